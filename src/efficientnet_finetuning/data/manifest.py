"""The manifest: one row an image, in a split or excluded."""

import pandas as pd

from efficientnet_finetuning.data.corrections import apply_corrections, read_corrections
from efficientnet_finetuning.data.groups import group_images
from efficientnet_finetuning.data.inspection import kind_of, kinds
from efficientnet_finetuning.data.splits import assign_splits, complete_splits
from efficientnet_finetuning.errors import InputError, counted, shorten
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

# What is wrong with an image by itself; an image that merely appears twice is not bad.
BAD = frozenset({"empty", "unreadable", "undecodable", "truncated", "too_large", "too_small", "single_colour"})


def build_manifest(
    findings: pd.DataFrame,
    class_names: tuple[str, ...],
    dataset: DatasetParameters,
    audit: AuditParameters,
    seed: int,
    corrections: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Let sound images pass, correct their labels, and put each into a split.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`.
        class_names: by label, those included that are new by the corrections.
        dataset: the fractions to cut where the source lacks a split, and what a group is.
        audit: how many images may be excluded.
        seed: of the cut.
        corrections: of :func:`~efficientnet_finetuning.data.corrections.read_corrections`.

    Returns:
        The findings with ``split`` (``train``, ``validation`` or ``test``; empty where the image is excluded),
        ``corrected`` (``was <class name>`` where a correction has changed something, else empty) and a ``group`` for
        every image.

    Raises:
        InputError: too many images are excluded, a class would be missing from a split, or groups cannot be named.
    """
    if corrections is None:
        corrections, _ = read_corrections(None, class_names)
    manifest = apply_corrections(findings, corrections, class_names)
    _check_excluded(manifest["excluded"], manifest["id"], audit)
    # The set's own labels decide about the cut, so that a correction moves no other image into another split.
    manifest["group"] = group_images(findings, dataset.group_pattern, dataset.group_near_duplicates)
    sound = findings[findings["excluded"] == ""].assign(group=manifest["group"])
    new = set(corrections.loc[corrections["action"] == "new_class", "label"])
    own_names = tuple(name for name in class_names if name not in new)
    fractions = dataset.validation_fraction, dataset.test_fraction
    assigned = assign_splits(sound.assign(split=sound["source_split"]), own_names, *fractions, seed)
    manifest.insert(2, "split", assigned["split"].reindex(manifest.index, fill_value=""))
    manifest.loc[manifest["excluded"] != "", "split"] = ""
    return complete_splits(manifest, class_names, *fractions, seed) if len(corrections) else manifest


def _check_excluded(excluded: pd.Series, ids: pd.Series, audit: AuditParameters) -> None:
    faulty = excluded[(excluded != "") & (kind_of(excluded) != "corrected")]  # what somebody chose is no fault
    bad = faulty[kind_of(faulty).isin(BAD)]
    if audit.on_bad_image == "fail" and len(bad):
        raise InputError(
            f"{counted(len(bad), 'image')} cannot be used: {_listed(bad, ids)}. Mend them or take them out of the set, "
            "or let audit.on_bad_image=exclude leave them out."
        )
    share = len(faulty) / max(len(excluded), 1)
    if share > audit.max_excluded_fraction:
        counts = ", ".join(f"{len(rows)} {kind}" for kind, rows in kinds(excluded))
        raise InputError(
            f"{len(faulty)} of {len(excluded)} images ({share:.1%}) would be excluded ({counts}), more than "
            f"audit.max_excluded_fraction allows ({audit.max_excluded_fraction:.1%}): {_listed(faulty, ids)}. "
            "Look at them (all are in image_findings.csv), mend the set, or raise the limit."
        )


def _listed(rows: pd.Series, ids: pd.Series) -> str:
    return shorten([f"{id_} ({reason})" for id_, reason in zip(ids[rows.index], rows, strict=True)])
