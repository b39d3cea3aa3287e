"""Outliers and near duplicates, by the features and logits of the network.

Ranking by the logits of the given and of the likeliest class found images of foreign classes with an area under ROC of
0.90 and 0.94; ``tests/benchmarks/data_quality.py`` lists other methods.
"""

import math

import numpy as np
import pandas as pd

from efficientnet_finetuning.quality.projection import project, unit

# Share of the images that is reported.
_NAMED = 0.01
# Fraction of the median distance between nearest neighbours, as in cleanlab's Datalab.
_NEAR = 0.13
# Components that still separate images, for a sixteenth of the work.
_CHANNELS = 128
_BLOCK = 1_000
# Comparing every image with every other takes about a minute for this many.
_MOST_COMPARED = 100_000


def unlike_any_class(logits: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The hundredth of the images that look least like their class and like any class, worst first.

    Args:
        logits: out of sample, ``(N, num_classes)``.
        labels: ``(N,)``.

    Returns:
        ``row`` and ``score`` (0–1, the share of images that look more like a class).
    """
    order = np.argsort(likeness(logits, labels), kind="stable")
    count = math.ceil(_NAMED * len(order))
    return pd.DataFrame({"row": order[:count], "score": 1 - np.arange(count) / len(order)})


def likeness(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much an image looks like its class and like any class ``(N,)``: the mean of the two logits."""
    return (logits[np.arange(len(labels)), labels] + logits.max(1)) / 2


def near_duplicates(features: np.ndarray, seed: int) -> pd.DataFrame:
    """Images whose nearest neighbour is unusually near, nearest first.

    Args:
        features: of a frozen backbone, ``(N, channels)``.
        seed: of the projection.

    Returns:
        ``row``, ``neighbour`` (its nearest row) and ``score`` (0–1; 1: equal). Empty for more than 100,000 images.
    """
    if not 2 <= len(features) <= _MOST_COMPARED:
        return pd.DataFrame({"row": [], "neighbour": [], "score": []}).astype({"row": int, "neighbour": int})
    distances, nearest = _nearest(directions(features, seed))
    usual = max(float(np.median(distances)), 1e-6)
    rows = np.flatnonzero(distances < _NEAR * usual)
    rows = rows[np.argsort(distances[rows], kind="stable")]
    return pd.DataFrame({"row": rows, "neighbour": nearest[rows], "score": 1 - distances[rows] / usual})


def directions(features: np.ndarray, seed: int) -> np.ndarray:
    """Features as unit vectors of their first 128 principal components or fewer, float32 ``(N, C)``."""
    return unit(project(features.astype(np.float32), _CHANNELS, seed))


def _nearest(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distance to the nearest other row, and that row."""
    distances, nearest = np.empty(len(points), np.float32), np.empty(len(points), np.int64)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK] @ points.T
        own = np.arange(len(block))
        block[own, start + own] = -np.inf
        nearest[start : start + _BLOCK] = block.argmax(1)
        distances[start : start + _BLOCK] = 1 - block.max(1)
    return np.maximum(distances, 0.0), nearest
