"""Weak spots: groups of similar images that a classifier gets wrong far more often than expected from their classes.

Images are clustered in feature space, as in Domino (Eyuboglu et al. 2022, arXiv:2203.14960) and Spotlight (d'Eon et al.
2022, arXiv:2107.00758). Those methods use the errors to form clusters and then need other images to test them. Here
only features form the clusters, so all images can test all clusters, with a correction for their number.

Clusters over all images find problems across classes (on CIFAR-10: pictures with a frame); clusters within each class
find the others. Of ten planted weak spots ``tests/benchmarks/shortcuts_and_weak_spots.py`` finds six on CIFAR-10; it
reports none in ten draws without any.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import percent, shorten
from efficientnet_finetuning.evaluation.comparison import wilson_interval
from efficientnet_finetuning.quality.multiple_tests import holm
from efficientnet_finetuning.quality.projection import project, unit

# Mean cluster sizes. Smaller clusters have too few mistakes for a test; larger ones mix different images.
_OF_ALL, _OF_CLASS = 100, 25
_FEWEST_OF_ALL, _MOST_OF_ALL, _MOST_OF_CLASS = 8, 100, 20
_SMALLEST_GROUP = 10
_FEWEST_IMAGES = 200
_DIMENSIONS = 64
_LEVEL = 0.05
# Minimum gap between the accuracy and the accuracy expected from the classes.
_MUCH = 0.1
_MOST_SPOTS, _EXAMPLES = 8, 8
# Deviation of a group's mean rank within its classes (0–1, 0.5 on average) that is worth reporting.
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
    """Cluster the images and find the clusters with far too many errors.

    Each cluster is compared with the other images class by class, so that a difficult class alone makes no weak spot.
    Under chance, the number of errors is a sum of hypergeometric variables with an exact distribution; Holm's method
    corrects for the number of clusters.

    Args:
        features: float32 ``(N, channels)``.
        probabilities: of models that did not see the image, ``(N, num_classes)``.
        labels: class indices ``(N,)``.
        images: one row per image: ``id``, ``split``, and properties of
            :func:`~efficientnet_finetuning.quality.image_properties.measure_properties`. Test images are ignored,
            because weak spots may guide the collection of images.
        class_names: by label.
        seed: of the clusters.

    Returns:
        As JSON: ``num_images``, ``num_clusters``, ``words`` and at most eight ``spots``, by p-value. Each spot has
        ``size``; ``accuracy`` in the group and ``elsewhere``, each with Wilson's 95 % interval ``…_low``, ``…_high``;
        ``expected``, the accuracy of the same classes elsewhere; ``p_value`` (corrected); ``classes``: images by class;
        ``true``, ``predicted`` and ``confused``: the most frequent mistake and its count; ``unlike``: how the images
        differ from others of their classes; ``examples``: ids of at most eight mistakes, nearest to the centre first;
        ``words``.
    """
    used = (images["split"] != "test").to_numpy()
    features, labels, images = features[used], labels[used], images[used].reset_index(drop=True)
    predicted = probabilities[used].argmax(axis=1)
    is_wrong = predicted != labels
    report: dict[str, Any] = {"num_images": len(labels), "num_clusters": 0, "spots": []}
    if len(labels) < _FEWEST_IMAGES:
        return report | {
            "words": [f"The search for weak spots needs {_FEWEST_IMAGES} images, and there are {len(labels)}."]
        }
    # Give each channel the same weight; the scales of the stages differ.
    standardized = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    groups = _groups(project(unit(standardized), _DIMENSIONS, seed), labels, seed)
    p_values = holm([_probability_of_as_many(group, labels, is_wrong) for group in groups])
    spots: list[dict[str, Any]] = []
    is_known = np.zeros(len(labels), bool)
    for p_value, group in sorted(zip(p_values, groups, strict=True), key=lambda found: found[0]):
        # A cluster within a class may be most of a cluster over all images.
        if p_value < _LEVEL and len(spots) < _MOST_SPOTS and is_known[group].mean() < 0.5:
            spot = {"p_value": float(p_value)} | _describe(group, labels, predicted, images, class_names)
            if spot["expected"] - spot["accuracy"] > _MUCH:
                spots.append(spot | {"words": _sentence(spot)})
                is_known[group] = True
    words = [spot["words"] for spot in spots] or [f"None of {len(groups)} groups of similar images is a weak spot."]
    return report | {"num_clusters": len(groups), "spots": spots, "words": words}


def _groups(points: np.ndarray, labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows of each sufficiently large cluster, nearest to its centre first."""
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
    """Probability of at least as many mistakes if the images were drawn at random from their classes."""
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
    """Describe a spot; ``group`` holds its rows in the order of the examples."""
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
        # A class without images elsewhere is expected to have the accuracy of the group.
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
        f"{spot['size']} similar images ({classes}): {percent(spot['accuracy'], 0)} are right, but "
        f"{percent(spot['expected'], 0)} are expected from their classes. {spot['confused']} images of {spot['true']} "
        f"are predicted as {spot['predicted']}.{unlike}"
    )
