"""Features in fewer dimensions, in which images are compared."""

import numpy as np


def project(features: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """The components that differ most between images: ``(N, dimensions)`` of ``(N, channels)``, or fewer."""
    from sklearn.decomposition import PCA

    channels = min(dimensions, *features.shape)
    return PCA(channels, svd_solver="randomized", random_state=seed).fit_transform(features)


def unit(features: np.ndarray) -> np.ndarray:
    """Rows with a length of one."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
