"""How far an image lies from all that a classifier has learnt: a photograph of something else belongs to no class.

The distance is one minus the mean cosine between the features of an image, averages of the network's last feature map,
and those of the five training images that are nearest (after Sun et al. 2022, arXiv:2204.06507). Area under ROC
between test images and images of two classes that were held out of the training, beside the confidence alone
(Lite0; photographs at 224 px: all 28 pairs of 8 classes, by a head on some 120 images of the other six; CIFAR-10 at
96 px: pairs of 10 classes, 30 to 500 images a class, five by a head and three fine-tuned):

=====================================  ===========  ========  ==========
score                                  photographs  CIFAR-10  fine-tuned
=====================================  ===========  ========  ==========
confidence                             PH_MSP         0.62      0.69
largest logit                          PH_MAX         0.63      0.71
Mahalanobis distance, all stages       PH_MAHA         0.64      0.77
relative (Ren et al. 2021)             PH_RMAHA         0.67      0.77
cosine, nearest 5, all stages          PH_KALL         0.68      0.75
**cosine, nearest 5, last map**        PH_KLAST         0.71      0.74
=====================================  ===========  ========  ==========
"""

import numpy as np

_NUM_NEAREST = 5
# Of the held-out images, the share that counts as known.
_KNOWN = 0.98


def directions(features: np.ndarray) -> np.ndarray:
    """Features ``(N, channels)`` with a length of one, as float16."""
    unit: np.ndarray = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit.astype(np.float16)


def distances(features: np.ndarray, references: np.ndarray) -> np.ndarray:
    """How far images lie from everything learnt.

    Args:
        features: ``(N, channels)``.
        references: :func:`directions` of the features of training images, ``(M, channels)``.

    Returns:
        float64 ``(N,)`` in 0–1: 0 at a training image itself.
    """
    similarities = directions(features).astype(np.float32) @ references.astype(np.float32).T
    nearest = np.sort(similarities, axis=1)[:, -_NUM_NEAREST:]
    return np.clip(1.0 - nearest.mean(axis=1, dtype=np.float64), 0.0, 1.0)


def choose_max_distance(held_out: np.ndarray, references: np.ndarray) -> float:
    """The distance within which nearly all held-out images lie, by their features ``(N, channels)``."""
    return float(np.quantile(distances(held_out, references), _KNOWN, method="higher"))
