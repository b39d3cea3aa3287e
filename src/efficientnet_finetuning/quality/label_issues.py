"""Rank labels by how likely they are wrong, and find classes that are confused with each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

# Minimum share of each split in the ranking, even if fewer labels are doubted.
_RANKED = 0.1
_LISTED = 10


def rank_labels(
    probabilities: np.ndarray, labels: np.ndarray, splits: np.ndarray, judged: np.ndarray, num_doubted: int
) -> pd.DataFrame:
    """Rank labels, the most doubtful first, by the probability of the given class.

    This is cleanlab's ``self_confidence`` (Northcutt et al. 2021, arXiv:1911.00068). At least a tenth of each split is
    listed.

    Args:
        probabilities: out of sample and calibrated, ``(N, num_classes)``.
        labels, splits: of the images, each ``(N,)``.
        judged: boolean ``(N,)``; other images are not ranked.
        num_doubted: how many labels are doubted.

    Returns:
        ``row`` (0 to N − 1), ``score`` (0–1, higher is more likely wrong), ``suggested`` (the likeliest other label)
        and its ``probability``.
    """
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(labels, probabilities, method="self_confidence", adjust_pred_probs=False)
    order = np.argsort(quality, kind="stable")
    order = order[judged[order]]
    rank = pd.Series(splits[order]).groupby(splits[order]).cumcount().to_numpy()
    sizes = pd.Series(splits).value_counts()
    wanted = (np.arange(len(order)) < num_doubted) | (rank < np.ceil(_RANKED * sizes[splits[order]].to_numpy()))
    rows = order[wanted]
    others = probabilities[rows].copy()
    others[np.arange(len(rows)), labels[rows]] = -1
    suggested = others.argmax(1)
    return pd.DataFrame(
        {
            "row": rows,
            "score": 1 - quality[rows],
            "suggested": suggested,
            "probability": others[np.arange(len(rows)), suggested],
        }
    )


def label_quality_of_classes(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The classes with the smallest share (0–1) of right labels, as cleanlab estimates it.

    Returns:
        At most ten of ``class``, ``quality`` (0–1) and ``images``, worst first, without classes that have no images.
    """
    from cleanlab.dataset import rank_classes_by_label_quality

    present, labels, shares = _of_present_classes(probabilities, labels)
    if len(present) < 2:
        return []
    found = rank_classes_by_label_quality(labels=labels, pred_probs=shares)
    found = found.assign(quality=1 - found["Label Noise"]).sort_values("quality", kind="stable").head(_LISTED)
    return [
        {"class": class_names[present[index]], "quality": float(quality), "images": int((labels == index).sum())}
        for index, quality in zip(found["Class Index"], found["quality"], strict=True)
    ]


def overlapping_classes(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often, by cleanlab's confident joint.

    Returns:
        At most ten of ``first``, ``second`` (names) and ``images``: estimated number labelled as one class that look
        like the other.
    """
    from cleanlab.dataset import find_overlapping_classes

    present, labels, shares = _of_present_classes(probabilities, labels)
    if len(present) < 2:
        return []
    found = find_overlapping_classes(labels=labels, pred_probs=shares)
    found = found[found["Num Overlapping Examples"] > 0].head(_LISTED)
    return [
        {
            "first": class_names[present[row["Class Index A"]]],
            "second": class_names[present[row["Class Index B"]]],
            "images": int(row["Num Overlapping Examples"]),
        }
        for row in found.to_dict("records")
    ]


def _of_present_classes(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes with images, which cleanlab requires, with labels and probabilities among them."""
    present = np.unique(labels)
    shares = probabilities[:, present] / np.maximum(probabilities[:, present].sum(1, keepdims=True), 1e-12)
    return present, np.searchsorted(present, labels), shares
