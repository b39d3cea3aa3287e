"""The manifest: one row an image, in a split or excluded."""

import pandas as pd

from efficientnet_finetuning.data.groups import group_images
from efficientnet_finetuning.data.inspection import kind_of, kinds
from efficientnet_finetuning.data.splits import assign_splits
from efficientnet_finetuning.errors import InputError, shorten
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

# What is wrong with an image by itself; an image that merely appears twice is not bad.
BAD = frozenset({"empty", "unreadable", "undecodable", "truncated", "too_large", "too_small", "single_colour"})


def build_manifest(
    findings: pd.DataFrame,
    class_names: tuple[str, ...],
    dataset: DatasetParameters,
    audit: AuditParameters,
    seed: int,
) -> pd.DataFrame:
    """Let sound images pass and put each into a split.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`.
        class_names: by label.
        dataset: the fractions to cut where the source lacks a split, and what a group is.
        audit: how many images may be excluded.
        seed: of the cut.

    Returns:
        The findings with ``split`` (``train``, ``validation`` or ``test``; empty where the image is excluded), and with
        a ``group`` for every image.

    Raises:
        InputError: too many images are excluded, a class would be missing from a split, or groups cannot be named.
    """
    _check_excluded(findings["excluded"], findings["id"], audit)
    sound = findings["excluded"] == ""
    manifest = findings.copy()
    manifest["group"] = group_images(findings, dataset.group_pattern, dataset.group_near_duplicates)
    manifest.insert(2, "split", "")
    manifest.loc[sound, "split"] = manifest.loc[sound, "source_split"]
    assigned = assign_splits(manifest[sound], class_names, dataset.validation_fraction, dataset.test_fraction, seed)
    manifest.loc[sound, "split"] = assigned["split"]
    return manifest


def _check_excluded(excluded: pd.Series, ids: pd.Series, audit: AuditParameters) -> None:
    faulty = excluded[excluded != ""]
    bad = faulty[kind_of(faulty).isin(BAD)]
    if audit.on_bad_image == "fail" and len(bad):
        raise InputError(
            f"{len(bad)} image(s) cannot be used: {_listed(bad, ids)}. Mend them or take them out of the set, or let "
            "audit.on_bad_image=exclude leave them out."
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
