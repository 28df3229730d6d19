"""Measures of positives: how pure the groups are that they come from, and how they vary."""

import numpy as np
from sklearn.metrics.cluster import contingency_matrix


def purity(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that have the commonest label of their cluster: `1/N sum_c max_y n_cy`.

    It grows with the number of clusters by itself, up to 1 with a cluster per image: compare it
    with that of labels in random order.

    Args:
        clusters: `(N,)`; labels: `(N,)`; images without a label (-1) do not count.

    Returns:
        In (0, 1].
    """
    n = _counts(clusters, labels)
    return float(n.max(1).sum() / n.sum())


def label_agreement(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a random image of an image's cluster has its label: `1/N sum_cy n_cy^2 / n_c`.

    So much agreement with their anchors would samples have that show a cluster exactly as it is.

    Args:
        clusters: `(N,)`; labels: `(N,)`; images without a label (-1) do not count.

    Returns:
        In (0, 1].
    """
    n = _counts(clusters, labels)
    return float((n**2 / n.sum(1, keepdims=True)).sum() / n.sum())


def _counts(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each label occurs in each cluster, `(clusters, labels)`."""
    known = labels >= 0
    return contingency_matrix(clusters[known], labels[known]).astype(float)


def diversity(candidates: np.ndarray) -> float:
    """Variance among the candidates of an anchor, as a share of that among all anchors' candidates.

    Both are means over pixels and channels, and unbiased.

    Args:
        candidates: uint8 `(N, k, H, W, 3)`, N >= 2, k >= 2.

    Returns:
        0 where an anchor's candidates are alike; near 1 where its anchor says nothing of one.
    """
    x = candidates.reshape(*candidates.shape[:2], -1).astype(np.float64)
    return float(x.var(1, ddof=1).mean() / x.var(0, ddof=1).mean())
