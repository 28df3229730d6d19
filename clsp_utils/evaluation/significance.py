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
        table: rows with columns "method", "seed", `metric`, and "model", the number of the
            diffusion model whose candidates the seed's runs saw.

    Returns:
        method, rival, metric, difference (mean), half_width (95 %, over seeds), p, seeds, wins
        (seeds in which `method` is ahead), models, and nested_low and nested_high: the interval
        over diffusion models and seeds, which is NaN for a single model.
    """
    wide = table.pivot(index="seed", columns="method", values=metric)[[method, rival]].dropna()
    model = table.groupby("seed").model.first()[wide.index]
    difference = wide[method] - wide[rival]
    mean, half = interval(difference)
    p = stats.ttest_rel(wide[method], wide[rival]).pvalue
    nested = (np.nan, np.nan)
    if model.nunique() > 1:
        nested = nested_interval(difference, model)
    return {
        "method": method, "rival": rival, "metric": metric, "difference": mean, "half_width": half,
        "p": float(p), "seeds": len(wide), "wins": int((difference > 0).sum()),
        "models": model.nunique(), "nested_low": nested[0], "nested_high": nested[1],
    }  # fmt: skip


def verdict(row: Any) -> str:
    """What a row of differences says, in words; it goes by the corrected p value, at 5 %.

    Args:
        row: with the fields of `paired` and `p_holm`, such as one of `table.itertuples()`.
    """
    low, high = row.difference - row.half_width, row.difference + row.half_width
    word = "beats" if row.difference > 0 else "loses to"
    if not row.p_holm < 0.05:
        word = "cannot be told from"
    return (
        f"{row.metric:>6}: {row.method} {word} {row.rival} ({100 * row.difference:+.1f} points, "
        f"{100 * low:+.1f} to {100 * high:+.1f}; p = {row.p:.3f}, {row.p_holm:.3f} corrected)"
    )


def nested_interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a mean by a nested bootstrap, where values of a group share a source of chance.

    Each draw takes as many groups as there are, with replacement, then of each as many values as it
    has, with replacement (Davison & Hinkley 1997, section 3.8). So it is as wide as both sources of
    chance together make it. With few groups it is rather too narrow: three are few.

    Args:
        values: `(N,)`, such as differences of two methods, one per seed.
        groups: `(N,)`, such as the diffusion model that a seed's bank came from.
        level: coverage, in (0, 1).
        draws: of the bootstrap.

    Returns:
        Lower and upper end.
    """
    values, groups = np.asarray(values, float), np.asarray(groups)
    own = [values[groups == group] for group in np.unique(groups)]
    rng = np.random.default_rng(seed)
    # The mean of a resampled group, for every draw and every place that it may be drawn to.
    means = np.stack(
        [rng.choice(x, (draws, len(own), len(x))).mean(2) for x in own], 2
    )  # (draws, places, groups)
    sizes = np.array([len(x) for x in own])
    which = rng.integers(len(own), size=(draws, len(own)))
    drawn = np.take_along_axis(means, which[:, :, None], 2)[:, :, 0]
    mean = (drawn * sizes[which]).sum(1) / sizes[which].sum(1)
    low, high = np.quantile(mean, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def correlation(
    x: Sequence[float] | np.ndarray, y: np.ndarray, draws: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """How what was measured once of each of M models goes with what several runs made of it.

    The runs of a model are averaged. The intervals come from a bootstrap that draws as many seeds
    as there are, with replacement, the same for all models: they hold the chance of the runs and
    take the models as given. That these are few is told by `p` and by Fisher's interval.

    Args:
        x: `(M,)`, one value per model, M >= 4.
        y: `(M, S)`, one value per model and seed.
        draws: of the bootstrap.

    Returns:
        spearman and pearson, in [-1, 1]; spearman_low and so on, 95 % over seeds; p, two-sided, of
        Spearman's under all orders of the models (random ones where there are more than 10,000);
        fisher_low and fisher_high, 95 % of Pearson's over models, if these were independent and
        normal. All are NaN where the values do not vary.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    picks = np.random.default_rng(seed).integers(y.shape[1], size=(draws, y.shape[1]))
    drawn = y[:, picks].mean(2).T  # (draws, M)
    ranks, mean = stats.rankdata(x), y.mean(1)
    of_ranks = _pearson(ranks, stats.rankdata(mean))
    found = {"spearman": float(of_ranks), "pearson": float(_pearson(x, mean))}
    for name, values in (
        ("spearman", _pearson(ranks, stats.rankdata(drawn, axis=1))),
        ("pearson", _pearson(x, drawn)),
    ):
        known = values[np.isfinite(values)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    test = stats.permutation_test(
        (ranks,),
        lambda order, axis: _pearson(order, stats.rankdata(mean)),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=10_000,
    )
    half = stats.norm.ppf(0.975) / np.sqrt(len(x) - 3)
    nearly = np.clip(found["pearson"], -1 + 1e-12, 1 - 1e-12)
    low, high = np.tanh(np.arctanh(nearly) + np.array([-half, half]))
    p = float(test.pvalue) if np.isfinite(of_ranks) else np.nan
    return found | {"p": p, "fisher_low": float(low), "fisher_high": float(high)}


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Linear correlation along the last axis; NaN where one of the two does not vary."""
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    norm = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), norm, where=norm > 0, out=np.full_like(norm, np.nan))


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
