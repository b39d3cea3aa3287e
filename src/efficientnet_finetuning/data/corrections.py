"""Corrections: the decisions of a person who reviewed the images, in a CSV file.

The file is in UTF-8 and has the columns ``id,sha256,action,label,when``. The raw images never change.
"""

import csv
import logging
import os
import tempfile
import unicodedata
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from efficientnet_finetuning.data.sources import Source, is_showable
from efficientnet_finetuning.errors import InputError, counted, naming_unreadable, near_matches, printable, shorten

logger = logging.getLogger(__name__)

ACTIONS = ("keep", "label", "new_class", "exclude")


class Decision(NamedTuple):
    """One line of a corrections file.

    Attributes:
        id: of the image, as in the manifest.
        sha256: of the encoded image that the person saw.
        action: ``keep`` (the label is right), ``label``, ``new_class`` (``label`` with a class that the set does not
            have yet) or ``exclude``.
        label: class name; empty if the action needs none.
        when: time of the decision, for people.
    """

    id: str
    sha256: str
    action: str
    label: str = ""
    when: str = ""


def read_decisions(file: Path) -> dict[int, Decision]:
    """Read all decisions of a file, by line; raises ``InputError`` with the lines that are invalid."""
    with naming_unreadable(str(file), "a CSV"):
        reader = csv.DictReader(StringIO(_text(file), newline=""), restval="")
        columns = reader.fieldnames or []
        lines = {reader.line_num: row for row in reader}  # noqa: B035  it moves with the rows
    if missing := [name for name in Decision._fields if name not in columns]:
        raise InputError(
            f"{file} lacks {', '.join(missing)} in its first line. Expected are these columns, separated by commas: "
            f"{','.join(Decision._fields)}."
        )
    if crooked := [f"line {line}" for line, row in lines.items() if None in row]:
        raise InputError(
            f"{file} has more fields than columns in {shorten(crooked)}. Put quotes around fields that contain a comma."
        )
    decisions = {line: Decision(**{name: row[name] for name in Decision._fields}) for line, row in lines.items()}
    faults = [f"line {line} ({fault})" for line, row in decisions.items() if (fault := _fault(row))]
    if faults:
        raise InputError(f"{file} cannot be applied: {shorten(faults)}. The actions are {', '.join(ACTIONS)}.")
    return decisions


def replace_decision(file: Path, id_: str, decision: Decision | None) -> None:
    """Replace the decisions about an image by a new one, or remove them, atomically.

    Raises ``InputError`` if the existing file is not a corrections file; it stays unchanged.
    """
    file = file.resolve()  # a link stays a link
    decisions = read_decisions(file).values() if file.exists() else []
    kept = [other for other in decisions if other.id != id_] + ([decision] if decision else [])
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as stream:
        csv.writer(stream, lineterminator="\n").writerows([Decision._fields, *kept])
        stream.flush()
        os.fsync(stream.fileno())
    new = Path(stream.name)
    new.chmod(file.stat().st_mode if file.exists() else 0o644)
    new.replace(file)


def read_corrections(file: Path | None, class_names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read the corrections for a set; if a file decides about an image twice, the last line counts.

    Args:
        file: of decisions, or ``None``.
        class_names: that the set has.

    Returns:
        One row of strings per image: the fields of :class:`Decision`, with ``new_class`` only for classes that the set
        lacks, and the name of the ``file``; and the class names, new ones last in the order of appearance.

    Raises:
        InputError: the file is invalid, or a label is neither a class nor declared as a new one.
    """
    lines = read_decisions(file) if file else {}
    last = {decision.id: line for line, decision in lines.items()}
    if repeated := len(lines) - len(last):
        logger.warning("%s: later lines about the same images replace %s", file, counted(repeated, "line"))
    valid = {line: _as_named(lines[line], class_names) for line in sorted(last.values())}
    new = dict.fromkeys(
        row.label for row in valid.values() if row.action == "new_class" and row.label not in class_names
    )
    known = [*class_names, *new]
    unknown = {line: row.label for line, row in valid.items() if row.action == "label" and row.label not in known}
    if unknown:
        listed = shorten([f"line {line} ({label})" for line, label in unknown.items()])
        meant = "".join(near_matches(label, known) for label in list(dict.fromkeys(unknown.values()))[:3])
        raise InputError(
            f"{file} names classes that the set does not have: {listed}.{meant} Correct the name, or write "
            "new_class instead of label to add a class."
        )
    rows = [
        row if row.action in ("keep", "exclude") else row._replace(action="new_class" if row.label in new else "label")
        for row in valid.values()
    ]
    table = pd.DataFrame(rows, columns=list(Decision._fields), dtype=str)
    return table.assign(file=printable(file.name) if file else ""), known


def apply_corrections(findings: pd.DataFrame, corrections: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Change labels and exclude images as corrections say.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`.
        corrections: of :func:`read_corrections`. Those whose image changed or is gone have no effect.
        class_names: by label, new classes included.

    Returns:
        A copy with ``corrected``: ``was <class name>`` if a correction changed something, else empty.
    """
    corrected = findings.assign(corrected="")
    found = findings[["id", "sha256"]].merge(corrections, how="left", on=["id", "sha256"]).set_index(findings.index)
    excluded = found["action"] == "exclude"
    relabelled = found["action"].isin(["label", "new_class"]) & (found["label"] != findings["class_name"])
    corrected.loc[excluded | relabelled, "corrected"] = "was " + findings["class_name"]
    corrected.loc[excluded, "excluded"] = "corrected: left out by " + found["file"]
    corrected.loc[relabelled, "class_name"] = found["label"]
    labels = {name: label for label, name in enumerate(class_names)}
    corrected.loc[relabelled, "label"] = found.loc[relabelled, "label"].map(labels).astype(int)
    return corrected


def unused_corrections(corrections: pd.DataFrame, manifest: pd.DataFrame, source: Source) -> list[str]:
    """Sentences about corrections without effect, because their image changed or is gone."""
    sums = manifest.set_index("id")["sha256"]
    absent = corrections[~corrections["id"].isin(sums.index)]
    present = corrections.drop(absent.index)
    changed = present[present["sha256"] != sums.reindex(present["id"]).to_numpy()]
    if len(absent):  # images outside dataset.fraction are not gone
        there = {id_ for split in source.splits for id_, _ in source.labels(split)}
        absent = absent[~absent["id"].isin(there)]
    return [
        f"the run ignored {counted(len(rows), 'correction')}, because the image {why}: {shorten(list(rows['id']))}"
        for rows, why in ((changed, "has changed (its SHA-256 differs)"), (absent, "is gone"))
        if len(rows)
    ]


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"The corrections {file} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{file} is not UTF-8: line {line}. Save it as CSV in UTF-8.") from error


def _as_named(row: Decision, class_names: Sequence[str]) -> Decision:
    """Correct a label that differs from a class name only in surrounding blanks or in its Unicode form."""
    return row if row.label in class_names else row._replace(label=unicodedata.normalize("NFC", row.label.strip()))


def _fault(row: Decision) -> str:
    if not row.id:
        return "no id"
    if row.action not in ACTIONS:
        return f"unknown action {row.action!r}.{near_matches(row.action, ACTIONS)}"
    if row.action in ("label", "new_class") and not row.label.strip():
        return f"{row.action} without a label"
    if not is_showable(row.label):
        return "a label with line breaks or control characters"
    return ""
