"""How far an image is from all training images: a photograph of something else belongs to no class.

The distance is one minus the mean cosine between the image's features, averages of the last feature map, and those of
the five nearest training images of the predicted class (after Sun et al. 2022, arXiv:2204.06507). Area under ROC
between test images and images of two held-out classes (Lite0; photographs at 224 px: mean over all 28 pairs of 8
classes, heads on some 120 images; CIFAR-10 at 96 px: pairs of 10 classes, 30 to 500 images per class, five heads and
three fine-tuned models):

============================================  ===========  ========  ==========
score                                         photographs  CIFAR-10  fine-tuned
============================================  ===========  ========  ==========
confidence                                           0.76      0.62        0.69
largest logit                                        0.78      0.63        0.71
Mahalanobis distance, all stages                     0.86      0.64        0.77
the same, relative (Ren et al. 2021)                 0.86      0.67        0.77
cosine, nearest 5, all stages                        0.81      0.68        0.75
cosine, nearest 5, last map                          0.84      0.71        0.74
**the same, of the predicted class**                 0.86      0.70        0.74
============================================  ===========  ========  ==========

A Mahalanobis distance is as good, but would store a covariance of thousands of channels with the classifier.
"""

from typing import NamedTuple

import numpy as np

_NUM_NEAREST = 5
# Share of held-out images that counts as known.
_KNOWN = 0.98


class References(NamedTuple):
    """Training images to compare with.

    Attributes:
        directions: of their features, float16 ``(M, channels)``; see :func:`directions`.
        labels: class indices ``(M,)``.
    """

    directions: np.ndarray
    labels: np.ndarray


def directions(features: np.ndarray) -> np.ndarray:
    """Scale features ``(N, channels)`` to unit length, as float16."""
    unit: np.ndarray = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit.astype(np.float16)


def distances(features: np.ndarray, classes: np.ndarray, references: References) -> np.ndarray:
    """Distance of images with features ``(N, channels)`` from the training images of predicted ``classes`` ``(N,)``.

    Returns:
        float64 ``(N,)`` in 0–1: 0 for a training image, 1 if no training image has the class.
    """
    similarities = directions(features).astype(np.float32) @ references.directions.astype(np.float32).T
    similarities[references.labels[None] != classes[:, None]] = np.nan
    nearest = np.sort(similarities, axis=1)[:, ::-1]  # NaN comes first
    found = np.full(len(features), 1.0)
    for row, values in enumerate(nearest):
        of_class = values[~np.isnan(values)][:_NUM_NEAREST]
        if len(of_class):
            found[row] = 1.0 - of_class.mean(dtype=np.float64)
    return np.clip(found, 0.0, 1.0)


def choose_max_distance(held_out: np.ndarray) -> float:
    """The distance below which nearly all held-out images lie, from their :func:`distances`."""
    return float(np.quantile(held_out, _KNOWN, method="higher"))
