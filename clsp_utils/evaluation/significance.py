"""Can a difference be trusted? Intervals and tests over the seeds of a study."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats


def interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval.

    Args:
        values: `(N,)`, N >= 2, independent: one per seed.
        level: coverage, in (0, 1).
    """
    values = np.asarray(values, float)
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)


def paired(table: pd.DataFrame, metric: str, method: str, rival: str) -> dict[str, Any]:
    """Difference of two methods over the seeds that both have, with a paired t test.

    Args:
        table: rows with columns "method", "seed" and `metric`.

    Returns:
        method, rival, metric, difference (mean), half_width (95 %), p, seeds, and wins (seeds in
        which `method` is ahead).
    """
    wide = table.pivot(index="seed", columns="method", values=metric)[[method, rival]].dropna()
    difference = wide[method] - wide[rival]
    mean, half = interval(difference)
    p = stats.ttest_rel(wide[method], wide[rival]).pvalue
    return {
        "method": method, "rival": rival, "metric": metric, "difference": mean, "half_width": half,
        "p": float(p), "seeds": len(wide), "wins": int((difference > 0).sum()),
    }  # fmt: skip


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p values adjusted for how many tests were made, by Holm's step-down procedure.

    The smallest of m values counts m times, the next m - 1 times, and so on; none falls below one
    before it. Rejecting what is at most alpha then has a chance of at most alpha of any false
    rejection, however the tests depend on each other.

    Args:
        p: `(m,)` in [0, 1], of all the tests that were made.

    Returns:
        `(m,)` in [0, 1], in the order of `p`.
    """
    p = np.asarray(p, float)
    order = p.argsort()
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted
