"""The manifest: one row per image, with its split or the reason for its exclusion."""

import pandas as pd

from efficientnet_finetuning.data.corrections import apply_corrections, read_corrections
from efficientnet_finetuning.data.groups import group_images
from efficientnet_finetuning.data.inspection import kind_of, kinds
from efficientnet_finetuning.data.splits import assign_splits, complete_splits
from efficientnet_finetuning.errors import InputError, counted, percent, shorten
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

# Faults of a single image; a duplicate is not a bad image.
BAD = frozenset({"empty", "unreadable", "undecodable", "truncated", "too_large", "too_small", "single_colour"})


def build_manifest(
    findings: pd.DataFrame,
    class_names: tuple[str, ...],
    dataset: DatasetParameters,
    audit: AuditParameters,
    seed: int,
    corrections: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Check the number of excluded images, correct labels, and assign every usable image to a split.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`.
        class_names: by label, with the corrections' new classes.
        dataset: fractions of splits to cut, and how to group images.
        audit: how many images may be excluded.
        seed: of the splits.
        corrections: of :func:`~efficientnet_finetuning.data.corrections.read_corrections`.

    Returns:
        The findings with ``split`` (empty if the image is excluded), a ``group`` for every image, and ``corrected`` of
        :func:`~efficientnet_finetuning.data.corrections.apply_corrections`.

    Raises:
        InputError: too many images are excluded, a split would lack a class, or the group pattern matches no id.
    """
    if corrections is None:
        corrections, _ = read_corrections(None, class_names)
    manifest = apply_corrections(findings, corrections, class_names)
    _check_excluded(manifest["excluded"], manifest["id"], audit)
    # Splits depend on the original labels, so a correction never moves other images to another split.
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
    faulty = excluded[
        (excluded != "") & (kind_of(excluded) != "corrected")
    ]  # an image that a person excluded has no fault
    bad = faulty[kind_of(faulty).isin(BAD)]
    if audit.on_bad_image == "fail" and len(bad):
        raise InputError(
            f"{counted(len(bad), 'image')} cannot be used: {_listed(bad, ids)}. Repair them, remove them from the set, "
            "or set audit.on_bad_image=exclude."
        )
    share = len(faulty) / max(len(excluded), 1)
    if share > audit.max_excluded_fraction:
        counts = ", ".join(f"{len(rows)} {kind}" for kind, rows in kinds(excluded))
        raise InputError(
            f"{len(faulty)} of {len(excluded)} images ({percent(share)}) would be excluded ({counts}), more than "
            f"audit.max_excluded_fraction allows ({percent(audit.max_excluded_fraction)}): {_listed(faulty, ids)}. "
            "Look at them (image_findings.csv lists all), repair the set, or raise the limit."
        )


def _listed(rows: pd.Series, ids: pd.Series) -> str:
    return shorten([f"{id_} ({reason})" for id_, reason in zip(ids[rows.index], rows, strict=True)])
