"""What a frozen encoder knows of the anchors, as a condition for a diffusion model (RCG).

Nothing here reads a label.
"""

import numpy as np
from sklearn.cluster import KMeans


def standardise(features: np.ndarray) -> np.ndarray:
    """`r = (f(x) - mean_d) / std_d`, dimension by dimension, over the anchors (arXiv 2312.03701).

    A dimension that does not vary becomes 0: it says nothing.

    Args:
        features: of a finished encoder in eval mode, `(N, D)`, a row per anchor.

    Returns:
        fp32 `(N, D)`; mean 0 and variance 1 in each dimension that varies.
    """
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    std = centred.std(0)
    return (centred / np.where(std > 1e-6, std, np.inf)).astype(np.float32)


def cluster(r: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The cluster of each anchor, by k-means on the anchors themselves (RCG-cluster).

    The best of ten starts counts, by the sum of squared distances to the clusters' means.

    Args:
        r: representations `(N, D)`.
        n_clusters: at most N.

    Returns:
        int64 `(N,)` in 0..n_clusters - 1; none of these is left out if that many rows differ.
    """
    means = KMeans(n_clusters, n_init=10, random_state=seed)
    return means.fit_predict(r.astype(np.float64)).astype(np.int64)
