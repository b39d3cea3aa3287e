"""Groups of like images that a classifier gets wrong far more often than their classes let expect.

Clusters in feature space, as Domino (Eyuboglu et al. 2022, arXiv:2203.14960) and Spotlight (d'Eon et al. 2022,
arXiv:2107.00758) look for them. Those let the errors shape the groups, and must then judge them on other images. Here
the clusters are of features alone: which images went wrong has no part in them, so all images may judge all clusters,
and only their number has to be corrected for.

There are clusters of all images, for what is weak in several classes at once (on CIFAR-10: pictures with a frame), and
clusters within each class. Of ten planted weak spots
``tests/benchmarks/shortcuts_and_weak_spots.py`` finds six on CIFAR-10, and none in ten draws without any.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.evaluation.comparison import wilson_interval
from efficientnet_finetuning.quality.multiple_tests import holm
from efficientnet_finetuning.quality.projection import project, unit

# Mean sizes of clusters: smaller ones hold too few mistakes to be told from luck, and larger ones mix what is unlike.
_OF_ALL, _OF_CLASS = 100, 25
_FEWEST_OF_ALL, _MOST_OF_ALL, _MOST_OF_CLASS = 8, 100, 20
_SMALLEST_GROUP = 10
_FEWEST_IMAGES = 200
_DIMENSIONS = 64
_LEVEL = 0.05
# By so much must the accuracy fall short of what the classes let expect.
_MUCH = 0.1
_MOST_SPOTS, _EXAMPLES = 8, 8
# How far the mean rank of a group within its classes (0–1, 0.5 on average) is off where it is worth a word.
_UNLIKE = 0.2
_MORE_OR_LESS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("higher in contrast", "lower in contrast"),
    "saturation": ("more colourful", "less colourful"),
    "blurriness": ("sharper", "less sharp"),
    "border_spread": ("more varied at the border", "more uniform at the border"),
    "size": ("larger", "smaller"),
    "aspect_ratio": ("nearer to a square", "farther from a square"),
}


def find_weak_spots(
    features: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    images: pd.DataFrame,
    class_names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Cluster the images and find the clusters where the classifier fails.

    A cluster is compared with the other images class by class, so that one of a difficult class is not found for that
    alone: metrics by class say it already. Its number of errors is then a sum of hypergeometric ones, whose
    distribution is exact; Holm's correction for the number of clusters follows.

    Args:
        features: float32 ``(N, channels)``.
        probabilities: of models that have not seen the image, ``(N, num_classes)``.
        labels: class indices ``(N,)``.
        images: a row an image: ``id``, ``split``, and the properties of
            :func:`~efficientnet_finetuning.quality.image_properties.measure_properties` that are known. Images of
            the test split are passed over: what is found here may decide which images to collect.
        class_names: by label.
        seed: of the clusters.

    Returns:
        As JSON: ``num_images``, ``num_clusters``, ``words`` and ``spots``, at most eight, the surest first. Of each:
        ``size``; ``accuracy`` in the group and ``elsewhere``, both with Wilson's 95 % interval ``…_low``, ``…_high``;
        ``expected``, the accuracy of the same classes elsewhere; ``p_value`` (corrected by Holm); ``classes``: images
        by class; ``true``, ``predicted`` and ``confused``: the mistake that occurs most often, and how often;
        ``unlike``: what the images are, beside others of their classes; ``examples``: ids of mistakes, at most eight,
        the nearest to the centre first; ``words``.
    """
    used = (images["split"] != "test").to_numpy()
    features, labels, images = features[used], labels[used], images[used].reset_index(drop=True)
    predicted = probabilities[used].argmax(axis=1)
    is_wrong = predicted != labels
    report: dict[str, Any] = {"num_images": len(labels), "num_clusters": 0, "spots": []}
    if len(labels) < _FEWEST_IMAGES:
        return report | {
            "words": [f"It takes {_FEWEST_IMAGES} images to look for weak spots, and there are {len(labels)}."]
        }
    # Each channel counts the same, or those of some stages would outweigh all others.
    standardized = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    groups = _groups(project(unit(standardized), _DIMENSIONS, seed), labels, seed)
    p_values = holm([_probability_of_as_many(group, labels, is_wrong) for group in groups])
    spots: list[dict[str, Any]] = []
    is_known = np.zeros(len(labels), bool)
    for p_value, group in sorted(zip(p_values, groups, strict=True), key=lambda found: found[0]):
        # A group within a class may be the better part of one of all images.
        if p_value < _LEVEL and len(spots) < _MOST_SPOTS and is_known[group].mean() < 0.5:
            spot = {"p_value": float(p_value)} | _describe(group, labels, predicted, images, class_names)
            if spot["expected"] - spot["accuracy"] > _MUCH:
                spots.append(spot | {"words": _sentence(spot)})
                is_known[group] = True
    words = [spot["words"] for spot in spots] or [f"None of {len(groups)} groups of like images is a weak spot."]
    return report | {"num_clusters": len(groups), "spots": spots, "words": words}


def _groups(points: np.ndarray, labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows of each cluster that is large enough, the nearest to its centre first."""
    count = int(np.clip(len(points) // _OF_ALL, _FEWEST_OF_ALL, _MOST_OF_ALL))
    groups = _clusters(points, np.arange(len(points)), count, seed)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if (count := min(len(rows) // _OF_CLASS, _MOST_OF_CLASS)) > 1:
            groups += _clusters(points, rows, count, seed)
    return [group for group in groups if len(group) >= _SMALLEST_GROUP]


def _clusters(points: np.ndarray, rows: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    from sklearn.cluster import KMeans

    means = KMeans(count, n_init=1, random_state=seed).fit(points[rows])
    distances = np.linalg.norm(points[rows] - means.cluster_centers_[means.labels_], axis=1)
    order = np.argsort(distances, kind="stable")
    return [rows[order[means.labels_[order] == cluster]] for cluster in range(count)]


def _probability_of_as_many(group: np.ndarray, labels: np.ndarray, is_wrong: np.ndarray) -> float:
    """How likely a group has as many mistakes or more, were its images drawn from their classes at random."""
    from scipy.stats import hypergeom

    distribution = np.ones(1)
    for label, count in zip(*np.unique(labels[group], return_counts=True), strict=True):
        of_class = labels == label
        drawn = hypergeom.pmf(np.arange(count + 1), of_class.sum(), is_wrong[of_class].sum(), count)
        distribution = np.convolve(distribution, drawn)
    return min(float(distribution[is_wrong[group].sum() :].sum()), 1.0)


def _describe(
    group: np.ndarray, labels: np.ndarray, predicted: np.ndarray, images: pd.DataFrame, class_names: Sequence[str]
) -> dict[str, Any]:
    """What a spot is; ``group`` holds its rows in the order of the examples."""
    is_right = predicted == labels
    others = np.setdiff1d(np.arange(len(labels)), group)
    recall = pd.Series(is_right[others]).groupby(labels[others]).mean()
    wrong = group[~is_right[group]]
    ((true, taken_for), confused), *_ = Counter(zip(labels[wrong], predicted[wrong], strict=True)).most_common()
    found: dict[str, Any] = {"size": len(group)}
    for name, rows in (("accuracy", group), ("elsewhere", others)):
        low, high = wilson_interval(int(is_right[rows].sum()), len(rows))
        found |= {name: float(is_right[rows].mean()), f"{name}_low": low, f"{name}_high": high}
    return found | {
        # A class that is nowhere else is expected to be as it is here.
        "expected": float(recall.reindex(labels[group]).fillna(found["accuracy"]).mean()),
        "classes": {class_names[label]: count for label, count in Counter(labels[group]).most_common()},
        "true": class_names[true],
        "predicted": class_names[taken_for],
        "confused": confused,
        "unlike": _unlike(group, labels, images),
        "examples": images["id"].iloc[wrong[:_EXAMPLES]].astype(str).to_list(),
    }


def _unlike(group: np.ndarray, labels: np.ndarray, images: pd.DataFrame) -> list[str]:
    known = [name for name in _MORE_OR_LESS if name in images]
    ranks = images[known].groupby(labels).rank(pct=True).iloc[group].mean().to_numpy() - 0.5
    return [_MORE_OR_LESS[name][int(rank < 0)] for name, rank in zip(known, ranks, strict=True) if abs(rank) > _UNLIKE]


def _sentence(spot: dict[str, Any]) -> str:
    classes = shorten([f"{count} {name}" for name, count in spot["classes"].items()], limit=3)
    unlike = f" They are {', '.join(spot['unlike'])} than others of their classes." if spot["unlike"] else ""
    return (
        f"{spot['size']} like images ({classes}): {spot['accuracy']:.0%} right, where {spot['expected']:.0%} would be "
        f"expected of their classes; {spot['confused']} times {spot['true']} is taken for {spot['predicted']}.{unlike}"
    )
