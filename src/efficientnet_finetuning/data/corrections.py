"""Corrections: what somebody who looked at the images has decided about them, in a file of their own.

The file is a CSV in UTF-8 with the columns ``id,sha256,action,label,when``. The raw images are never touched.
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
        sha256: of the encoded image that was looked at.
        action: ``keep`` (it is right as it is), ``label``, ``new_class`` (``label``, for a class that the set does not
            have) or ``exclude`` (leave it out).
        label: class name; empty where the action needs none.
        when: of the decision, for people.
    """

    id: str
    sha256: str
    action: str
    label: str = ""
    when: str = ""


def read_decisions(file: Path) -> dict[int, Decision]:
    """All decisions of a file by the number of their line.

    Raises:
        InputError: not such a file; the message names the lines.
    """
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
            f"{file} has more fields than columns in {shorten(crooked)}. Put quotes around what holds a comma."
        )
    decisions = {line: Decision(**{name: row[name] for name in Decision._fields}) for line, row in lines.items()}
    faults = [f"line {line} ({fault})" for line, row in decisions.items() if (fault := _fault(row))]
    if faults:
        raise InputError(f"{file} cannot be applied: {shorten(faults)}. The actions are {', '.join(ACTIONS)}.")
    return decisions


def replace_decision(file: Path, id_: str, decision: Decision | None) -> None:
    """Write a decision about an image in the place of earlier ones, or only remove those.

    The file is there as a whole at any time, before or after, also where the process is killed.

    Raises:
        InputError: what is there is no corrections file; it stays as it is.
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
    """What is to be applied to a set: of several decisions about one image the last in the file.

    Args:
        file: of decisions; ``None``: there are none.
        class_names: that the set has.

    Returns:
        One row an image, all of them strings: the fields of :class:`Decision`, with ``new_class`` only where the set
        lacks the class, and ``file``, the file's name; and the class names with the new ones behind them, in the order
        of their first appearance.

    Raises:
        InputError: not a corrections file, or a label is no class and was not said to be a new one.
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
            f"{file} names classes that the set does not have: {listed}.{meant} Mend the name, or write new_class "
            "instead of label where a new class is meant."
        )
    rows = [
        row if row.action in ("keep", "exclude") else row._replace(action="new_class" if row.label in new else "label")
        for row in valid.values()
    ]
    table = pd.DataFrame(rows, columns=list(Decision._fields), dtype=str)
    return table.assign(file=printable(file.name) if file else ""), known


def apply_corrections(findings: pd.DataFrame, corrections: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Change labels and leave images out as the corrections say.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`.
        corrections: of :func:`read_corrections`. One whose image has changed since or is gone does nothing.
        class_names: by label, new classes included.

    Returns:
        A copy with ``corrected``: ``was <class name>`` where a correction has changed something, else empty.
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
    """Sentences about the corrections that did nothing because their image has changed since, or is gone."""
    sums = manifest.set_index("id")["sha256"]
    absent = corrections[~corrections["id"].isin(sums.index)]
    present = corrections.drop(absent.index)
    changed = present[present["sha256"] != sums.reindex(present["id"]).to_numpy()]
    if len(absent):  # what dataset.fraction has left out this time is not gone
        there = {id_ for split in source.splits for id_, _ in source.labels(split)}
        absent = absent[~absent["id"].isin(there)]
    return [
        f"the run ignored {counted(len(rows), 'correction')}, since the image {why}: {shorten(list(rows['id']))}"
        for rows, why in ((changed, "has changed since (its SHA-256 differs)"), (absent, "is gone"))
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
    """With a label that differs from a class in the blanks around it or in Unicode's form alone called by its name."""
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
