"""Checks of notebook 07: distances of distributions, and correlations over few points."""

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np

from clsp_utils.book.checks import NO_PERCENT, compare


def collapsed(answer: Any, features: np.ndarray) -> str:
    """07.1, the Frechet distance of one picture at the mean from real features `(N, D)`."""
    trace = float(np.cov(features.T).trace())
    mistakes = {
        "one picture has no spread, and the real images have: that is what is left": 0.0,
        "the distance is a square already": np.sqrt(trace),
        "the spread of one of the two sets is 0, so it counts once": 2 * trace,
        "the means are equal, so their distance is 0": float((features.mean(0) ** 2).sum()),
        "sum the variances over the features": trace / features.shape[1],
        "np.cov takes a row for each feature: np.cov(features.T)": float(
            features.var(1, ddof=1).sum()
        ),
        "the covariance divides by N - 1": float(features.var(0).sum()),
    }
    rounded = min(5e-4, 0.4 / len(features))  # as a share, and less than N for N - 1 changes
    compare(answer, trace, mistakes, within=rounded * trace)
    return f"{trace:.4g}: to be right on average is not enough, variety counts"


def smallest_p(answer: Any) -> str:
    """07.2, the least two-sided p of Spearman's correlation over four points."""
    mistakes = {
        "two-sided: the mirror image of the best order is as extreme": 1 / factorial(4),
        "four moments have 4! orders": 2 / 2**4,
        "that is for three moments": 2 / factorial(3),
        "that is for six moments": 2 / factorial(6),
        "p is at least the share of orders that are as extreme, and so never 0": 0.0,
    }
    compare(answer, 2 / factorial(4), mistakes, within=5e-3, percent=NO_PERCENT)
    return f"{2 / factorial(4):.3f}: four points can never be significant at 0.05"


CHECKS: dict[str, Callable[..., str]] = {"07.1": collapsed, "07.2": smallest_p}
