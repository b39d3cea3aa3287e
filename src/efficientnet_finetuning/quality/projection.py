"""Reduce the dimensions of features before images are compared."""

import numpy as np


def project(features: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """The first principal components of features ``(N, channels)``: ``(N, dimensions)`` or fewer."""
    from sklearn.decomposition import PCA

    channels = min(dimensions, *features.shape)
    return PCA(channels, svd_solver="randomized", random_state=seed).fit_transform(features)


def unit(features: np.ndarray) -> np.ndarray:
    """Scale rows to unit length."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
