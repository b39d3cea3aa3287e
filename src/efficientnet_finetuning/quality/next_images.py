"""Which unlabelled images to label next: Cluster-Margin (Citovsky et al. 2021, arXiv:2107.14263).

The images are clustered by their features. From each cluster in turn comes the image whose two likeliest classes are
nearest to one another, so that the first ones are unsure and unlike each other. ``make bench-next-images`` printed, in
points ahead of as many images at random (heads on Lite0 at 96 px, CIFAR-10, five draws, with the standard error):

==============================================  ===================  ==================
800 more beside 200 labelled, of 6,000          margin alone         **Cluster-Margin**
==============================================  ===================  ==================
at once                                         +1.1 ± 0.4           +0.8 ± 0.3
200 at a time                                   +1.1 ± 0.5           +1.5 ± 0.2
at once, each image three times                 −2.2 ± 0.7           +1.3 ± 0.6
200 at a time, each image three times           −0.7 ± 0.5           +1.9 ± 0.6
three classes, one rare, 240 beside 60: 60 at   +1.5 ± 0.5           +1.4 ± 0.6
a time
the same at once                                −0.1 ± 1.1           +0.6 ± 0.7
==============================================  ===================  ==================

The images of the rarest class in the last two rows: 42 to 44 at random, 76 and 47 by Cluster-Margin. At once, on draws
for choosing (five or ten of them): entropy 0.0, core-set −1.4, TypiClust +0.5, BADGE +0.7, weighted k-means++ +0.8.
"""

import numpy as np
import pandas as pd

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
    from sklearn.decomposition import PCA

    count = min(len(features) // _PER_CLUSTER, _MOST_CLUSTERS)
    if count < 2:
        return np.arange(len(features))  # so few that each counts for itself
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    channels = min(_CHANNELS, *directions.shape)
    reduced = PCA(channels, svd_solver="randomized", random_state=seed).fit_transform(directions)
    kmeans = MiniBatchKMeans(
        count, random_state=seed, n_init=1, batch_size=max(1024, 2 * count), max_iter=10, reassignment_ratio=0
    )
    found: np.ndarray = kmeans.fit_predict(reduced)
    return found
