"""The checks of notebook 06 on right answers, and on each mistake that they name."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from clsp_utils import evaluation

SCORES = {0: {5: 0.80, 10: 0.82, 20: 0.70}, 1: {5: 0.75, 10: 0.74, 20: 0.60}}
CHOSEN = {0: 5, 1: 5}


@pytest.mark.parametrize(
    "answer, part",
    [
        ({0: 0.02, 1: 0.0}, "✓ 06.1: 2.0, 0.0 points, mean 1.0"),
        ({0: 0.02, 1: None}, "not yet"),
        ({0: -0.02, 1: 0.0}, "the sign is wrong"),
        ({0: 2.0, 1: 0.0}, "not points"),
        ({0: 1.96, 1: 0.04}, "not points"),
        ({0: 0.12, 1: 0.15}, "the best minus the worst"),
        ({0: 0.82, 1: 0.75}, "subtract the one at the chosen k"),
        ({0: 0.02}, "a dictionary with 0, 1"),
    ],
)
def test_optimism(said, answer, part):
    assert part in said("06.1", answer, accuracies=SCORES.get, chosen=CHOSEN)


def half(values, quantile=0.975, ddof=1, freedom=1, root=True):
    n = len(values)
    t = stats.t.ppf(quantile, n - freedom)
    return np.mean(values), t * np.std(values, ddof=ddof) / (np.sqrt(n) if root else 1)


COVERS = 2 * stats.t.cdf(1.96, 2) - 1


@pytest.mark.parametrize(
    "interval, covers, part",
    [
        (half, COVERS, "✓ 06.2: with three seeds 1.96 covers 81% of the time, your interval 9"),
        (evaluation.interval, 0.80, "✓"),
        (half, None, "not yet"),
        (lambda x: (np.mean(x), 1.96 * stats.sem(x)), COVERS, "not 1.96"),
        (lambda x: half(x, ddof=0), COVERS, "divides by n - 1"),
        (lambda x: half(x, root=False), COVERS, "divide by sqrt(n)"),
        (lambda x: (np.mean(x), half(x, root=False)[1] / len(x)), COVERS, "not by n"),
        (lambda x: half(x, freedom=0), COVERS, "n - 1 degrees of freedom"),
        (lambda x: half(x, quantile=0.95), COVERS, "the quantile is at 0.975"),
        (lambda x: (np.mean(x), 2 * half(x)[1]), COVERS, "half the width"),
        (lambda x: (np.mean(x), 1.96 * np.std(x) / len(x) ** 0.5), COVERS, "of t, not 1.96; and"),
        (lambda x: np.mean(x) + half(x)[1] * np.array([-1, 1]), COVERS, "not the two ends"),
        (half, 81.1, "covers: give a share in [0, 1], not percent"),
        (lambda x: half(x)[::-1], COVERS, "the mean comes first"),
        (lambda x: (np.mean(x), 4.302653 * stats.sem(x)), COVERS, "4.30 is that of three values"),
        (half, 82, "not percent"),
        (half, 0.19, "the 0 lies outside"),
        (half, 0.95, "what one hopes for"),
        (half, 2 * stats.t.cdf(1.96 * np.sqrt(2 / 3), 2) - 1, "std(ddof=1)"),
        (half, 2 * stats.t.cdf(1.96 * np.sqrt(3), 2) - 1, "divide by sqrt(3)"),
        (half, 0.5, "draw a few thousand times"),
    ],
)
def test_interval_by_hand(said, interval, covers, part):
    assert part in said("06.2", {"interval": interval, "covers": covers})


CONTRASTS = pd.DataFrame(
    {"metric": "linear", "method": ["A", "B", "C"], "rival": "D", "p": [0.001, 0.03, 0.5]}
)


def stepped(p, factors, accumulate=True, clip=True, restore=True):
    order = p.argsort()
    adjusted = p[order] * factors
    adjusted = np.maximum.accumulate(adjusted) if accumulate else adjusted
    adjusted = adjusted.clip(max=1) if clip else adjusted
    return adjusted[order.argsort()] if restore else adjusted


def falling(p):
    return np.arange(len(p), 0, -1)


def hochberg(p):
    order = p.argsort()
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    return np.minimum.accumulate(steps[::-1])[::-1][order.argsort()]


def holm_in_place(p):
    order = p.argsort()
    p[order] = np.maximum.accumulate(p[order] * falling(p))
    return p.clip(max=1)


@pytest.mark.parametrize(
    "answer, part",
    [
        (evaluation.holm, "✓ 06.3: 2 of 3 stand one by one, 1 together:\n  linear: A against D"),
        (lambda p: stepped(p, falling(p)), "✓"),
        (lambda p: p, "as they were"),
        (lambda p: (len(p) * p).clip(max=1), "that is Bonferroni's: only"),
        (lambda p: len(p) * p, "that is Bonferroni's, and"),
        (lambda p: stepped(p, falling(p), accumulate=False), "no value may fall below"),
        (lambda p: stepped(p, falling(p), accumulate=False, clip=False), "and none may fall"),
        (lambda p: stepped(p, falling(p), clip=False), "a p value is at most 1"),
        (lambda p: stepped(p, falling(p), restore=False), "in the order in which they came"),
        (lambda p: stepped(p, falling(p)[::-1], accumulate=False, clip=False), "counts m times"),
        (lambda p: np.sort(evaluation.holm(p))[p.argsort()], "[order] sorts once more"),
        (lambda p: p * falling(p), "not the first"),
        (hochberg, "Benjamini"),
        (holm_in_place, "✓"),
    ],
)
def test_holm(said, answer, part):
    assert part in said("06.3", answer, contrasts=CONTRASTS)


@pytest.mark.parametrize(
    "answer, part",
    [
        (21, "✓ 06.4: 20 seeds give ± 1.00 points; the 3 we have give ±"),
        (19, "✓"),
        (None, "not yet"),
        (4, "the half-width falls with the root of n"),
        (70, "half the width is to be one point"),
        (10, "10 seeds give ± 1.52 points: more are needed"),
        (30, "30 seeds give ± 0.80 points: fewer are enough"),
        (1, "two seeds at least"),
        (-3, "two seeds at least"),
        (np.nan, "one number of seeds"),
        ("many", "one number of seeds"),
    ],
)
def test_seeds_for_a_point(said, answer, part):
    differences = 2.13 * np.array([-1.0, 0.0, 1.0]) + 3
    assert part in said("06.4", answer, differences=differences)


def test_seeds_by_the_normal_quantile_are_too_few(said):
    differences = 1.02 * np.array([-1.0, 0.0, 1.0])  # 4.0 by 1.96, 7 by t
    assert "1.96 in the place of t" in said("06.4", 4, differences=differences)


@pytest.mark.parametrize(
    "spread, answer, mark", [(0.2, 2, "✗"), (0.2, 3, "✓"), (0.2, 4, "✓"), (10, 400, "✓")]
)
def test_an_estimate_of_seeds_need_not_be_exact(said, spread, answer, mark):
    differences = spread * np.array([-1.0, 0.0, 1.0])
    assert said("06.4", answer, differences=differences).startswith(mark)


def perplexity(sigma, log=torch.log):
    share = sigma / sigma.sum()
    return torch.exp(-(share * log(share)).sum()).item()


def values(x):
    return torch.linalg.svdvals(x)


@pytest.mark.parametrize(
    "answer, part",
    [
        (evaluation.rank_me, "✓ 06.5: rank correlation with the linear accuracy 1.00, 2 methods\n"),
        (lambda x: perplexity(values(x)), "✓"),
        (lambda x: np.log(perplexity(values(x))), "take exp of it"),
        (lambda x: perplexity(values(x) ** 2), "not of their squares"),
        (lambda x: perplexity(values(x), torch.log2), "not that of base 2"),
        (lambda x: perplexity(values(x - x.mean(0))), "do not centre"),
        (lambda x: perplexity(values(F.normalize(x, dim=1))), "leave the rows"),
        (
            lambda x: torch.exp(-(values(x) * values(x).log()).sum()),
            "divide the singular values by their sum",
        ),
        (lambda x: torch.linalg.matrix_rank(x).item(), "that is the rank"),
    ],
)
def test_ranks(said, answer, part):
    features = {"A": torch.eye(6), "B": torch.ones(6, 6) + 0.1 * torch.eye(6)}
    given = {"features_of": features.get, "linear": {"A": 0.9, "B": 0.5}}
    assert part in said("06.5", answer, **given)


def test_rank_of_features_that_use_fewer_directions(said):
    given = {"features_of": lambda method: torch.eye(6)[:, :2], "linear": {"A": 0.9, "B": 0.5}}

    def padded(x):
        return torch.cat([values(x), torch.zeros(1)]) if x.shape[1] == 2 else values(x)

    text = said("06.5", lambda x: perplexity(padded(x)), **given)
    assert text == "✗ 06.5: A: nan: a singular value of 0 has no logarithm, and adds 0\n"
