"""How close sets of images are to each other, seen through a network."""

import numpy as np
from scipy.linalg import sqrtm


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) of two sets of features (arXiv 1706.08500).

    Args:
        a: features `(N, D)`; b: `(M, D)`. With few more than D rows the distance comes out too
            large; compare sets of the same size.

    Returns:
        Squared units of the features, >= 0 up to rounding; 0 for equal mean and covariance.
    """
    c_a, c_b = np.cov(a.T), np.cov(b.T)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b).real))
