"""Intervals and tests over seeds: against scipy, slow loops and examples worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clsp_utils.evaluation import holm, interval, paired


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("values", [[0.5, 0.6], [0.71, 0.68, 0.75, 0.7, 0.69]], ids=len)
def test_interval_against_scipy(values, level):
    mean, half = interval(values, level)
    centre, scale = np.mean(values), stats.sem(values)
    low, high = stats.t.interval(level, len(values) - 1, loc=centre, scale=scale)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def table(**methods):
    rows = [(m, seed, x) for m, values in methods.items() for seed, x in values.items()]
    return pd.DataFrame(rows, columns=["method", "seed", "knn"]).sample(frac=1, random_state=0)


def test_paired_against_scipy():
    a, b = [0.7, 0.72, 0.69, 0.75], [0.68, 0.73, 0.6, 0.7]
    result = paired(table(a=dict(enumerate(a)), b=dict(enumerate(b)), c={0: 0.1}), "knn", "a", "b")
    reference = stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(0.95)
    assert result["p"] == pytest.approx(reference.pvalue)
    assert result["difference"] == pytest.approx((low + high) / 2) and result["difference"] > 0
    assert result["half_width"] == pytest.approx((high - low) / 2)
    assert (result["method"], result["rival"], result["metric"]) == ("a", "b", "knn")
    assert (result["seeds"], result["wins"]) == (4, 3)


def test_paired_changes_sign_with_the_order_and_keeps_the_rest():
    values = table(a={0: 0.7, 1: 0.72, 2: 0.69}, b={0: 0.68, 1: 0.73, 2: 0.6})
    ab, ba = paired(values, "knn", "a", "b"), paired(values, "knn", "b", "a")
    assert ba["difference"] == pytest.approx(-ab["difference"])
    assert (ab["wins"], ba["wins"]) == (2, 1)
    assert (ab["p"], ab["half_width"]) == pytest.approx((ba["p"], ba["half_width"]))


def test_paired_uses_only_the_seeds_that_both_have():
    both = table(a={1: 0.72, 2: 0.69}, b={1: 0.73, 2: 0.6})
    more = table(a={0: 0.9, 1: 0.72, 2: 0.69}, b={1: 0.73, 2: 0.6, 3: 0.1})
    assert paired(more, "knn", "a", "b") == paired(both, "knn", "a", "b")


def holm_by_definition(p):
    """For each test, the smallest alpha at which the step-down procedure rejects it."""
    m, adjusted = len(p), []
    for own in range(m):
        smallest = 0.0
        for rank, test in enumerate(sorted(range(m), key=p.__getitem__)):
            # At step `rank` the procedure goes on only if p * (m - rank) <= alpha.
            smallest = max(smallest, p[test] * (m - rank))
            if test == own:
                break
        adjusted.append(min(1.0, smallest))
    return adjusted


@pytest.mark.parametrize("m", [1, 2, 5, 30])
def test_holm_against_a_slow_loop(m):
    rng = np.random.default_rng(m)
    for scale in (1.0, 0.1, 0.01):
        p = scale * rng.random(m)
        np.testing.assert_allclose(holm(p), holm_by_definition(p.tolist()), rtol=1e-12)


@pytest.mark.parametrize(("p", "expected"), [
    ([0.03], [0.03]),
    ([0.01, 0.04], [0.02, 0.04]),
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 0.04 * 1 does not fall below 0.03 * 2
    ([0.2, 0.2, 0.2], [0.6, 0.6, 0.6]),
    ([0.6, 0.9], [1.0, 1.0]),
    ([], []),
])  # fmt: skip
def test_holm_of_examples_worked_out_by_hand(p, expected):
    np.testing.assert_allclose(holm(p), expected, rtol=1e-12)


def test_holm_keeps_the_order_and_lies_between_the_raw_values_and_bonferroni():
    p = np.random.default_rng(0).random(20) * 0.1
    adjusted, shuffled = holm(p), np.random.default_rng(1).permutation(20)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, 20 * p)).all()
    assert (np.diff(adjusted[p.argsort()]) >= 0).all()
    assert np.array_equal(holm(p[shuffled]), adjusted[shuffled])


def test_holm_keeps_the_chance_of_any_false_rejection():
    p = np.random.default_rng(0).random((4000, 5))  # five tests of nothing, 4000 times
    any_raw, any_adjusted = ((f(p) <= 0.05).any(1).mean() for f in (np.asarray, by_row(holm)))
    assert any_raw > 0.2 and any_adjusted < 0.06  # 1 - 0.95^5 = 0.23; deviation of 0.05: 0.0034


def by_row(function):
    return lambda table: np.array([function(row) for row in table])
