"""The audit: what a user should know about the images before trusting anything that was learnt from them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.corrections import unused_corrections
from efficientnet_finetuning.data.duplicates import conflicting_labels, near_duplicates
from efficientnet_finetuning.data.groups import describe_groups
from efficientnet_finetuning.data.inspection import kinds
from efficientnet_finetuning.data.sources import Source
from efficientnet_finetuning.data.splits import SPLITS, missed_shares
from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.parameters import DatasetParameters

_LISTED = 10
_FEW_TEST_IMAGES = 5
_SIDES = (32, 64, 128, 256, 512, 1024, 4096)
_ASPECT_RATIOS = {"tall (below 1:3)": 1 / 3, "portrait": 0.95, "square": 1.05, "landscape": 3.0}

# Sets whose images are, or overlap, those that ImageNet weights were trained on. The words name who says so.
DRAWN_FROM_IMAGENET = {
    "stanford_dogs": "built from ImageNet's images (Khosla et al. 2011)",
    "imagenette": "a part of ImageNet (fast.ai)",
    "imagewang": "a part of ImageNet (fast.ai)",
    "imagenet2012": "ImageNet itself",
    "imagenet2012_subset": "a part of ImageNet",
    "imagenet_resized": "ImageNet at a smaller size (Chrabaszcz et al. 2017)",
    "downsampled_imagenet": "ImageNet at a smaller size (van den Oord et al. 2016)",
    "stl10": "acquired from labelled examples on ImageNet (Coates et al. 2011)",
    "caltech_birds2011": "known to overlap ImageNet (its own page warns of it)",
}


def audit(
    source: Source,
    manifest: pd.DataFrame,
    class_names: Sequence[str],
    dataset: DatasetParameters,
    corrections: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Sum up a manifest, as JSON.

    Args:
        source: for its name, what it ignored and what it noticed.
        manifest: one row an image, excluded ones too.
        class_names: by label.
        dataset: how groups were made and splits were to be cut.
        corrections: that were applied.

    Returns:
        ``source``, ``images``, ``used``; ``excluded``: count and the first ids with their reasons, by kind;
        ``relabelled``: how many bear a corrected label; ``ignored_entries``; ``classes``: images in use by class and
        split; ``missing_classes`` by split;
        ``imbalance``: the largest class of train over the smallest; ``formats``, ``channels``, ``sides`` (of the
        shorter side, pixels) and ``aspect_ratios`` (width to height) with a count each; ``conflicting_labels`` and
        ``near_duplicates`` across a split: count and the first of them; ``groups``: how many have more than one image,
        how many images are in them, the largest, and how many near duplicates are kept together; ``warnings``:
        sentences.
    """
    used = manifest[manifest["split"] != ""]
    readable = manifest[manifest["width"] > 0]
    balance = pd.crosstab(used["class_name"], used["split"]).reindex(
        index=list(class_names), columns=list(SPLITS), fill_value=0
    )
    conflicts, near = conflicting_labels(manifest), near_duplicates(manifest)
    report: dict[str, Any] = {
        "source": source.name,
        "images": len(manifest),
        "used": len(used),
        "excluded": {
            kind: {"count": len(rows), "first": [f"{manifest['id'][i]} ({rows[i]})" for i in rows.index[:_LISTED]]}
            for kind, rows in kinds(manifest["excluded"])
        },
        "relabelled": int(((manifest["corrected"] != "") & (manifest["split"] != "")).sum()),
        "ignored_entries": dict(source.ignored),
        "classes": balance.to_dict("index"),
        "missing_classes": {split: list(balance.index[balance[split] == 0]) for split in SPLITS},
        "imbalance": float(balance["train"].max() / max(balance["train"].min(), 1)),
        "formats": _counts(readable["format"]),
        "channels": _counts(readable["mode"]),
        "sides": _sides(readable[["width", "height"]].min(axis=1)),
        "aspect_ratios": _aspect_ratios(readable["width"] / readable["height"]),
        "conflicting_labels": {"count": len(conflicts), "first": conflicts[:_LISTED]},
        "near_duplicates": {"count": len(near), "first": near[:_LISTED].to_dict("records")},
    }
    unused = [] if corrections is None else unused_corrections(corrections, manifest, source)
    groups = describe_groups(manifest, dataset)
    unmatched = groups.pop("unmatched")
    warnings = _warnings(source, report) + _group_warnings(used, groups, unmatched, dataset, bool(source.groups))
    return report | {"groups": groups, "warnings": warnings + unused}


def format_audit(report: Mapping[str, Any]) -> str:
    """The audit in a few lines for the terminal."""
    lines = [f"{report['source']}: {report['used']:,} of {report['images']:,} images are used"]
    lines += [
        f"excluded, {kind}: {found['count']}, first {found['first'][0]}" for kind, found in report["excluded"].items()
    ]
    lines += [f"corrected labels: {report['relabelled']}"] if report["relabelled"] else []
    lines += [f"left out, {kind}: {count}" for kind, count in report["ignored_entries"].items()]
    groups, largest = report["groups"], report["groups"]["largest"]
    if groups["count"]:
        lines.append(
            f"groups: {groups['count']} of more than one image, {groups['images']} images in all; the largest, "
            f"{largest['name']}, has {largest['images']}; {groups['near_duplicates']} near duplicates are kept together"
        )
    lines += [f"note: {warning}" for warning in report["warnings"]]
    return "\n  ".join(lines)


def _warnings(source: Source, report: Mapping[str, Any]) -> list[str]:
    warnings = list(source.notes)
    for split, names in report["missing_classes"].items():
        if names:
            warnings.append(f"{len(names)} class(es) have no image in {split}: {shorten(names)}")
    few = {name: counts["test"] for name, counts in report["classes"].items() if 0 < counts["test"] < _FEW_TEST_IMAGES}
    if few:
        warnings.append(
            f"{len(few)} class(es) have fewer than {_FEW_TEST_IMAGES} test images, so their scores say little: "
            f"{shorten(sorted(few, key=few.__getitem__))}"
        )
    if report["conflicting_labels"]["count"]:
        warnings.append(f"{report['conflicting_labels']['count']} image(s) bear several labels")
    if count := report["near_duplicates"]["count"]:
        pair = report["near_duplicates"]["first"][0]
        warnings.append(
            f"{count} pair(s) of nearly equal images stand on two sides of a split, such as {pair['first']} and "
            f"{pair['second']}: test scores may flatter"
        )
    if report["imbalance"] > 3:
        warnings.append(
            f"the largest class has {report['imbalance']:.0f} times the images of the smallest: class_weight=balanced "
            "weighs them alike"
        )
    overlap = DRAWN_FROM_IMAGENET.get(source.name.split("/")[0])
    if overlap:
        warnings.append(f"these images are {overlap}: scores of models with ImageNet weights flatter")
    return warnings


def _group_warnings(
    used: pd.DataFrame, groups: Mapping[str, Any], unmatched: list[str], dataset: DatasetParameters, are_named: bool
) -> list[str]:
    warnings = []
    if unmatched:
        warnings.append(
            f"dataset.group_pattern does not match {len(unmatched)} id(s), and each is a group of its own: "
            f"{shorten(unmatched, 3)}"
        )
    missed = missed_shares(used, {"test": dataset.test_fraction, "validation": dataset.validation_fraction})
    for split, classes in missed.items() if groups["count"] else ():
        warnings.append(
            f"groups stay whole, so {split} has another share than was asked for of {len(classes)} class(es): "
            f"{shorten(classes)}; the largest group is {groups['largest']['name']} with {groups['largest']['images']} "
            "images"
        )
    # Those of near duplicates alone are told image by image.
    if are_named or dataset.group_pattern:
        splits = used.groupby("group", sort=False)["split"].nunique()
        if len(across := list(splits.index[splits > 1])):
            warnings.append(
                f"{len(across)} group(s) stand on two sides of a split that the set brings: {shorten(across, 3)}. Test "
                "scores may flatter"
            )
    return warnings


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _sides(sides: pd.Series) -> dict[str, int]:
    edges = [0, *_SIDES, np.inf]
    names = [
        f"below {_SIDES[0]}",
        *(f"{a} to {b - 1}" for a, b in pairwise(_SIDES)),
        f"{_SIDES[-1]} or more",
    ]
    return _filled(pd.cut(sides, edges, right=False, labels=names))


def _aspect_ratios(ratios: pd.Series) -> dict[str, int]:
    edges = [0, *_ASPECT_RATIOS.values(), np.inf]
    return _filled(pd.cut(ratios, edges, right=False, labels=[*_ASPECT_RATIOS, "wide (above 3:1)"]))


def _filled(binned: pd.Series) -> dict[str, int]:
    counts = binned.value_counts(sort=False)
    return {str(name): int(count) for name, count in counts.items() if count}
