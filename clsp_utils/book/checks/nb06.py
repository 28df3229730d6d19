"""Checks of notebook 06: which differences can be trusted, and what else may foresee them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from clsp_utils import evaluation
from clsp_utils.book.checks import NO_PERCENT, Wrong, compare, entries
from clsp_utils.runtime import generator


def optimism(
    answer: Any, accuracies: Callable[[int], Mapping[int, float]], chosen: Mapping[int, int]
) -> str:
    """06.1, seed -> what the k that is best on the test images gains over the chosen one.

    Args:
        accuracies: from a seed to the accuracy of each k on the test images.
        chosen: seed -> k chosen on held-out training images.
    """
    found = entries(answer, *chosen)
    scores = {seed: accuracies(seed) for seed in chosen}
    best = np.array([max(own.values()) for own in scores.values()])
    taken = np.array([scores[seed][k] for seed, k in chosen.items()])
    worst = np.array([min(own.values()) for own in scores.values()])
    mistakes = {
        "the sign is wrong: the best k on the test images cannot be worse there": taken - best,
        "that is the best minus the worst k": best - worst,
        "that is the accuracy at the best k; subtract the one at the chosen k": best,
    }
    percent = "give shares in [0, 1], not points"
    compare(found, best - taken, mistakes, within=1e-3, percent=percent)
    points = ", ".join(f"{100 * x:.1f}" for x in best - taken)
    return (
        f"{points} points, mean {100 * (best - taken).mean():.1f}: never below 0, by construction"
    )


def interval_by_hand(answer: Any) -> str:
    """06.2, the t interval `values -> (mean, half-width)`, and what 1.96 covers with 3 seeds."""
    interval, covers = entries(answer, "interval", "covers")
    rng = np.random.default_rng(0)
    for values in (np.array([1.0, 1.4, 0.6, 1.0, 0.9]), rng.normal(2, 3, 3), rng.normal(0, 1, 10)):
        mean, right = evaluation.interval(values)
        n, spread = len(values), values.std(ddof=1)
        t = stats.t.ppf(0.975, n - 1)
        halves = {
            "with few seeds the quantile is that of t with n - 1 degrees of freedom, not 1.96": (
                1.96 * spread / np.sqrt(n)
            ),
            "the standard deviation divides by n - 1 here: std(ddof=1)": (
                t * values.std() / np.sqrt(n)
            ),
            "the mean of n values varies less than one of them: divide by sqrt(n)": t * spread,
            "divide by sqrt(n), not by n": t * spread / n,
            "t has n - 1 degrees of freedom": stats.t.ppf(0.975, n) * spread / np.sqrt(n),
            "2.5 % lie on either side: the quantile is at 0.975": (
                stats.t.ppf(0.95, n - 1) * spread / np.sqrt(n)
            ),
            "the quantile of few seeds is that of t, not 1.96; and std(ddof=1) divides by n - 1": (
                1.96 * values.std() / np.sqrt(n)
            ),
            "the quantile depends on n: 4.30 is that of three values": (
                stats.t.ppf(0.975, 2) * spread / np.sqrt(n)
            ),
            "half the width, please": 2 * right,
        }
        by_half = {told: [mean, half] for told, half in halves.items()}
        by_half["the mean comes first, then half the width"] = [right, mean]
        ends = [mean - right, mean + right]
        by_half["give the mean and half the width, not the two ends"] = ends
        compare(interval(values), [mean, right], by_half, part="interval")
    draws = np.random.default_rng(1).normal(size=(2000, 3))
    own = np.mean([abs(mean) <= half for mean, half in map(interval, draws)])
    with_normal = 2 * stats.t.cdf(1.96, 2) - 1  # closed form: mean / standard error has a t
    mistakes = {
        "that is how often the 0 lies outside": 1 - with_normal,
        "that is what one hopes for: count how often mean - half <= 0 <= mean + half": 0.95,
        "the standard deviation divides by n - 1 here: std(ddof=1)": (
            2 * stats.t.cdf(1.96 * np.sqrt(2 / 3), 2) - 1
        ),
        "the mean of three values varies less than one: divide by sqrt(3)": (
            2 * stats.t.cdf(1.96 * np.sqrt(3), 2) - 1
        ),
    }
    count = "draw a few thousand times, and count how often mean - half <= 0 <= mean + half"
    compare(covers, with_normal, mistakes, count, 0.02, NO_PERCENT, "covers")
    return f"with three seeds 1.96 covers {with_normal:.0%} of the time, your interval {own:.0%}"


def holm(answer: Callable, contrasts: pd.DataFrame) -> str:
    """06.3, `p -> adjusted p`, in the order of p.

    Args:
        contrasts: columns metric, method, rival, p.
    """
    p = np.array([0.03, 0.55, 0.004, 0.035, 0.6, 0.01])
    order, m = p.argsort(), len(p)
    rank = order.argsort()
    steps = p * (m - rank)
    hochberg = np.minimum.accumulate((np.sort(p) * m / np.arange(1, m + 1))[::-1])[::-1]
    right = evaluation.holm(p)
    mistakes = {
        "these are the values as they were": p,
        "that is Bonferroni's: only the smallest counts m times, the next m - 1 times": (
            (m * p).clip(max=1)
        ),
        "that is Bonferroni's, and a p value is at most 1": m * p,
        "no value may fall below one before it, in rising order": steps.clip(max=1),
        "a p value is at most 1, and none may fall below one before it": steps,
        "a p value is at most 1": np.maximum.accumulate(steps[order])[rank],
        "give the values in the order in which they came": np.sort(right),
        "put the values back by adjusted[order] = ...; [order] sorts once more": (
            np.sort(right)[order]
        ),
        "sort first: the smallest value counts m times, not the first": p * np.arange(m, 0, -1),
        "the smallest value counts m times, and the largest once": p * (rank + 1),
        "that is Benjamini and Hochberg's, which bounds the share of false ones": hochberg[rank],
    }
    compare(answer(p.copy()), right, mistakes)
    alone = contrasts.p < 0.05
    adjusted = np.asarray(answer(contrasts.p.to_numpy()))
    stand = contrasts[adjusted < 0.05]
    names = [f"  {row.metric}: {row.method} against {row.rival}" for row in stand.itertuples()]
    count = f"{alone.sum()} of {len(contrasts)} stand one by one, {len(stand)} together"
    return "\n".join([f"{count}:" if names else count, *names])


def seeds_for_a_point(answer: Any, differences: np.ndarray) -> str:
    """06.4, how many seeds make the half-width of a difference one point.

    Args:
        differences: of the seeds so far, in points.
    """
    spread = float(np.std(differences, ddof=1))

    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n))

    n = 2
    while half(n) > 1:
        n += 1
    if not isinstance(answer, (int, float, np.number)) or not np.isfinite(answer):
        raise Wrong("give one number of seeds")
    if answer < 2:
        raise Wrong("two seeds at least: one alone says nothing of the spread")
    found = half(round(float(answer)))
    if found > 1.05 or answer > 1.1 * n + 1:  # an estimate need not be exact
        mistakes = {
            "that is 1.96 in the place of t, which is larger with few seeds": (1.96 * spread) ** 2,
            "the half-width falls with the root of n, so n goes with the square": 1.96 * spread,
            "half the width is to be one point, not all of it": (2 * 1.96 * spread) ** 2,
        }
        for told, value in mistakes.items():
            if abs(answer - value) <= 1:
                raise Wrong(told)
        enough = "more are needed" if found > 1 else "fewer are enough"
        raise Wrong(f"{answer:g} seeds give ± {found:.2f} points: {enough}")
    have = len(differences)
    return f"{n} seeds give ± {half(n):.2f} points; the {have} we have give ± {half(have):.2f}"


def ranks(
    answer: Callable, features_of: Callable[[str], Tensor], linear: Mapping[str, float]
) -> str:
    """06.5, RankMe, features `(N, D)` -> number; then of each method beside its accuracy.

    Args:
        linear: method -> accuracy of the linear classifier.
    """
    g = generator("06.5")
    x = torch.randn(60, 8, generator=g) * torch.logspace(0, -1.5, 8) + 0.5
    right = evaluation.rank_me(x)

    def perplexity(sigma: Tensor, base: float = 1.0) -> float:
        share = sigma / sigma.sum()
        return float(torch.exp(-(share * share.log()).sum() / base))

    sigma = torch.linalg.svdvals(x)
    mistakes = {
        "that is the entropy: take exp of it": math.log(right),
        "the shares are of the singular values, not of their squares": perplexity(sigma**2),
        "with exp goes the natural logarithm, not that of base 2": perplexity(sigma, math.log(2)),
        "do not centre the features": perplexity(torch.linalg.svdvals(x - x.mean(0))),
        "leave the rows as long as they are": perplexity(
            torch.linalg.svdvals(F.normalize(x, dim=1))
        ),
        "divide the singular values by their sum first": float(
            torch.exp(-(sigma * sigma.log()).sum())
        ),
        "that is the rank, which counts the weakest direction in full": 8.0,
    }
    compare(answer(x), right, mistakes, within=0.01 * right)
    rank = {method: float(answer(features_of(method))) for method in linear}
    for method, found in rank.items():
        if not math.isfinite(found):
            raise Wrong(f"{method}: {found}: a singular value of 0 has no logarithm, and adds 0")
    agreement = stats.spearmanr([rank[name] for name in linear], list(linear.values()))[0]
    lines = (f"  {name}: RankMe {rank[name]:.1f}, linear {linear[name]:.3f}" for name in linear)
    return "\n".join(
        [f"rank correlation with the linear accuracy {agreement:.2f}, {len(rank)} methods", *lines]
    )


CHECKS: dict[str, Callable[..., str]] = {
    "06.1": optimism,
    "06.2": interval_by_hand,
    "06.3": holm,
    "06.4": seeds_for_a_point,
    "06.5": ranks,
}
