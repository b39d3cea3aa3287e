"""How far an image lies from all that a classifier has learnt: a photograph of something else belongs to no class.

The distance is one minus the mean cosine between the features of an image, averages of the network's last feature map,
and those of the five training images of the predicted class that are nearest (after Sun et al. 2022, arXiv:2204.06507).
Area under ROC between test images and images of two classes that were held out of the training, beside the confidence
alone (Lite0; photographs at 224 px: the mean of all 28 pairs of 8 classes, by a head on some 120 images of the other
six; CIFAR-10 at 96 px: pairs of 10 classes, 30 to 500 images a class, five by a head and three fine-tuned):

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

A Mahalanobis distance is as good, but needs a covariance of thousands of channels in the classifier's file.
"""

from typing import NamedTuple

import numpy as np

_NUM_NEAREST = 5
# Of the held-out images, the share that counts as known.
_KNOWN = 0.98


class References(NamedTuple):
    """What images are compared with.

    Attributes:
        directions: of the features of training images, float16 ``(M, channels)``; see :func:`directions`.
        labels: their class indices ``(M,)``.
    """

    directions: np.ndarray
    labels: np.ndarray


def directions(features: np.ndarray) -> np.ndarray:
    """Features ``(N, channels)`` with a length of one, as float16."""
    unit: np.ndarray = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit.astype(np.float16)


def distances(features: np.ndarray, classes: np.ndarray, references: References) -> np.ndarray:
    """How far images lie from what was learnt of a class.

    Args:
        features: ``(N, channels)``.
        classes: of each image, the index of its predicted class ``(N,)``.
        references: training images.

    Returns:
        float64 ``(N,)`` in 0–1: 0 at a training image itself; 1 where there is none of the class.
    """
    similarities = directions(features).astype(np.float32) @ references.directions.astype(np.float32).T
    similarities[references.labels[None] != classes[:, None]] = np.nan
    nearest = np.sort(similarities, axis=1)[:, ::-1]  # what is not a number comes first
    found = np.full(len(features), 1.0)
    for row, values in enumerate(nearest):
        of_class = values[~np.isnan(values)][:_NUM_NEAREST]
        if len(of_class):
            found[row] = 1.0 - of_class.mean(dtype=np.float64)
    return np.clip(found, 0.0, 1.0)


def choose_max_distance(held_out: np.ndarray) -> float:
    """The distance within which nearly all held-out images lie, by their :func:`distances`."""
    return float(np.quantile(held_out, _KNOWN, method="higher"))
