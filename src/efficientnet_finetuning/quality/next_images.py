"""Which unlabelled images to label next: Cluster-Margin (Citovsky et al. 2021, arXiv:2107.14263).

The images are clustered by their features. From each cluster in turn comes the image whose two likeliest classes are
nearest to one another, so that the first ones are unsure and unlike each other. Chosen 200 at a time they
were 1.5 points ahead of images at random (``tests/benchmarks/next_images.py``).
"""

import numpy as np
import pandas as pd

from efficientnet_finetuning.quality.projection import project, unit

# A cluster for so many images: with one for 20, copies of an image are still chosen together.
_PER_CLUSTER = 8
# More clusters take long to find.
_MOST_CLUSTERS = 2000
_CHANNELS = 64


def margins(probabilities: np.ndarray) -> np.ndarray:
    """By how much the likeliest class is ahead of the next, 0–1 ``(N,)``, of probabilities ``(N, num_classes)``."""
    ordered = np.sort(probabilities, axis=1)
    ahead: np.ndarray = ordered[:, -1] - ordered[:, -2]
    return ahead


def rank_images(probabilities: np.ndarray, features: np.ndarray, seed: int) -> np.ndarray:
    """Order unlabelled images by what their labels would teach.

    Args:
        probabilities: of a classifier, 0–1 ``(N, num_classes)`` with two classes or more.
        features: what it sees of the images, float32 ``(N, channels)``.
        seed: of the clusters.

    Returns:
        Rows ``(N,)``, the most worthwhile first.
    """
    unsure_first = margins(probabilities)
    clusters = _clusters(features, seed)
    order = np.argsort(unsure_first, kind="stable")
    turns = pd.Series(order).groupby(clusters[order]).cumcount().to_numpy()
    return order[np.argsort(turns, kind="stable")]


def _clusters(features: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    count = min(len(features) // _PER_CLUSTER, _MOST_CLUSTERS)
    if count < 2:
        return np.arange(len(features))  # so few that each counts for itself
    kmeans = MiniBatchKMeans(
        count, random_state=seed, n_init=1, batch_size=max(1024, 2 * count), max_iter=10, reassignment_ratio=0
    )
    found: np.ndarray = kmeans.fit_predict(project(unit(features), _CHANNELS, seed))
    return found
