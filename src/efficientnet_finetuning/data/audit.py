"""The audit: a summary of the images, with warnings about results that they would distort."""

from collections.abc import Iterable, Mapping, Sequence
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
from efficientnet_finetuning.errors import counted, shorten
from efficientnet_finetuning.parameters import DatasetParameters

_LISTED = 10
_FEW_TEST_IMAGES = 5
_SIDES = (32, 64, 128, 256, 512, 1024, 4096)
_SIDE_NAMES = ["below 32", *(f"{a} to {b - 1}" for a, b in pairwise(_SIDES)), "4096 or more"]
_ASPECT_RATIOS = {"tall (below 1:3)": 1 / 3, "portrait": 0.95, "square": 1.05, "landscape": 3.0}

# Sets that overlap the images on which ImageNet weights were trained, with the source of this claim.
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
    """Summarize a manifest, as JSON.

    Args:
        source: for its name, ignored entries and notes.
        manifest: one row per image, with excluded ones.
        class_names: by label.
        dataset: how images were grouped and splits cut.
        corrections: that were applied.

    Returns:
        ``source``, ``images``, ``used``; ``excluded``: by kind, the count and the first ids with reasons;
        ``relabelled``: images with a corrected label; ``ignored_entries``; ``classes``: used images by class and split;
        ``missing_classes`` by split; ``imbalance``: size of the largest class in train over the smallest; counts of
        ``formats``, ``channels``, ``sides`` (shorter side, pixels) and ``aspect_ratios`` (width to height);
        ``conflicting_labels`` and ``near_duplicates`` across splits: the count and the first ones; ``groups`` of
        :func:`~efficientnet_finetuning.data.groups.describe_groups`, with the number of near duplicates kept together;
        ``warnings``: sentences.
    """
    used = manifest[manifest["split"] != ""]
    readable = manifest[manifest["width"] > 0]
    balance = pd.crosstab(used["class_name"], used["split"]).reindex(
        index=list(class_names), columns=list(SPLITS), fill_value=0
    )
    conflicts, (near, num_alike) = conflicting_labels(manifest), near_duplicates(manifest)
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
        "sides": _binned(readable[["width", "height"]].min(axis=1), _SIDES, _SIDE_NAMES),
        "aspect_ratios": _binned(
            readable["width"] / readable["height"], _ASPECT_RATIOS.values(), [*_ASPECT_RATIOS, "wide (above 3:1)"]
        ),
        "conflicting_labels": {"count": len(conflicts), "first": conflicts[:_LISTED]},
        "near_duplicates": {"count": len(near), "first": near[:_LISTED].to_dict("records")},
    }
    unused = [] if corrections is None else unused_corrections(corrections, manifest, source)
    groups = describe_groups(manifest, dataset)
    groups["near_duplicates"] = num_alike if dataset.group_near_duplicates else 0
    unmatched = groups.pop("unmatched")
    warnings = _warnings(source, report) + _group_warnings(used, groups, unmatched, dataset, bool(source.groups))
    return report | {"groups": groups, "warnings": warnings + unused}


def format_audit(report: Mapping[str, Any]) -> str:
    """The audit as a few lines for the terminal."""
    lines = [f"{report['source']}: {report['used']:,} of {report['images']:,} images are used"]
    lines += [
        f"excluded, {kind.replace('_', ' ')}: {found['count']}, first {found['first'][0].replace(f'({kind}: ', '(')}"
        for kind, found in report["excluded"].items()
    ]
    lines += [f"corrected labels: {report['relabelled']}"] if report["relabelled"] else []
    lines += [f"ignored, {kind}: {count}" for kind, count in report["ignored_entries"].items()]
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
            warnings.append(f"{split} has no image of {counted(len(names), 'class')}: {shorten(names)}")
    few = {name: counts["test"] for name, counts in report["classes"].items() if 0 < counts["test"] < _FEW_TEST_IMAGES}
    if few:
        warnings.append(
            f"the test split has fewer than {_FEW_TEST_IMAGES} images of {counted(len(few), 'class')}, so their "
            f"scores are uncertain: {shorten(sorted(few, key=few.__getitem__))}"
        )
    if report["conflicting_labels"]["count"]:
        warnings.append(
            f"the audit found different labels for {counted(report['conflicting_labels']['count'], 'image')}"
        )
    if num_pairs := report["near_duplicates"]["count"]:
        pair = report["near_duplicates"]["first"][0]
        warnings.append(
            f"the splits share {counted(num_pairs, 'pair')} of nearly equal images, such as {pair['first']} and "
            f"{pair['second']}; test scores may be too high"
        )
    if report["imbalance"] > 3:
        warnings.append(
            f"the largest class has {report['imbalance']:.0f} times as many images as the smallest; "
            "finetune.training.class_weight=balanced and transfer.head.class_weight=balanced weight them alike"
        )
    overlap = DRAWN_FROM_IMAGENET.get(source.name.split("/")[0])
    if overlap:
        warnings.append(f"these images are {overlap}, so scores of models with ImageNet weights are too high")
    return warnings


def _group_warnings(
    used: pd.DataFrame, groups: Mapping[str, Any], unmatched: list[str], dataset: DatasetParameters, are_named: bool
) -> list[str]:
    warnings = []
    if unmatched:
        warnings.append(
            f"dataset.group_pattern does not match {counted(len(unmatched), 'id')}: {shorten(unmatched, 3)}. Each "
            "of these images is a group of its own"
        )
    missed = missed_shares(used, {"test": dataset.test_fraction, "validation": dataset.validation_fraction})
    for split, classes in missed.items() if groups["count"] else ():
        warnings.append(
            f"groups stay whole, so {split} does not have the requested share of {counted(len(classes), 'class')}: "
            f"{shorten(classes)}; the largest group is {groups['largest']['name']} with {groups['largest']['images']} "
            "images"
        )
    # The report lists near duplicates image by image, so groups that only these form need no warning.
    if are_named or dataset.group_pattern:
        splits = used.groupby("group", sort=False)["split"].nunique()
        if len(across := list(splits.index[splits > 1])):
            warnings.append(
                f"the set's own splits divide {counted(len(across), 'group')}: {shorten(across, 3)}. Test scores "
                "may be too high"
            )
    return warnings


def _counts(values: pd.Series, sort: bool = True) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts(sort=sort).items() if count}


def _binned(values: pd.Series, edges: Iterable[float], names: Sequence[str]) -> dict[str, int]:
    return _counts(pd.cut(values, [0, *edges, np.inf], right=False, labels=names), sort=False)
