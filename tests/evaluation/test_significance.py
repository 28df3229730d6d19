"""Intervals and tests over seeds: against scipy, slow loops and examples worked out by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clsp_utils.evaluation import holm, interval, paired
from clsp_utils.evaluation.significance import nested_interval


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("values", [[0.5, 0.6], [0.71, 0.68, 0.75, 0.7, 0.69]], ids=len)
def test_interval_against_scipy(values, level):
    mean, half = interval(values, level)
    centre, scale = np.mean(values), stats.sem(values)
    low, high = stats.t.interval(level, len(values) - 1, loc=centre, scale=scale)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def table(models=1, **methods):
    """Seed s saw candidates of diffusion model s modulo `models`; rows in no order."""
    rows = [
        (m, seed, seed % models, x) for m, values in methods.items() for seed, x in values.items()
    ]
    columns = ["method", "seed", "model", "knn"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


def test_paired_against_scipy():
    a, b = [0.7, 0.72, 0.69, 0.75], [0.68, 0.73, 0.6, 0.7]
    result = paired(table(a=dict(enumerate(a)), b=dict(enumerate(b)), c={0: 0.1}), "knn", "a", "b")
    reference = stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(0.95)
    assert result["p"] == pytest.approx(reference.pvalue)
    assert result["difference"] == pytest.approx((low + high) / 2) and result["difference"] > 0
    assert result["half_width"] == pytest.approx((high - low) / 2)
    assert (result["method"], result["rival"], result["metric"]) == ("a", "b", "knn")
    assert (result["seeds"], result["wins"], result["models"]) == (4, 3, 1)
    assert np.isnan([result["nested_low"], result["nested_high"]]).all()


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


def test_paired_has_an_interval_over_diffusion_models_where_there_are_several():
    a, b = [0.7, 0.72, 0.69, 0.75, 0.71, 0.7], [0.68, 0.73, 0.6, 0.7, 0.7, 0.64]
    values = table(2, a=dict(enumerate(a)), b=dict(enumerate(b)), c={9: 0.1})
    result = paired(values, "knn", "a", "b")
    assert (result["seeds"], result["models"]) == (6, 2)
    expected = nested_interval(np.subtract(a, b), [0, 1, 0, 1, 0, 1])
    assert (result["nested_low"], result["nested_high"]) == pytest.approx(expected)
    assert result["nested_low"] < result["difference"] < result["nested_high"]
    # The other numbers know nothing of models.
    alone = paired(table(1, a=dict(enumerate(a)), b=dict(enumerate(b))), "knn", "a", "b")
    for name in ("difference", "half_width", "p", "wins"):
        assert result[name] == pytest.approx(alone[name])


def test_paired_counts_the_models_of_the_seeds_that_both_have():
    values = table(2, a={0: 0.7, 1: 0.9, 2: 0.69}, b={0: 0.68, 2: 0.6, 3: 0.1})
    result = paired(values, "knn", "a", "b")
    assert (result["seeds"], result["models"]) == (2, 1) and np.isnan(result["nested_low"])


# Nested bootstrap ---------------------------------------------------------------------------------


def every_draw(values, groups):
    """The mean of each draw that there is, `(draws,)`, and its probability.

    A draw takes groups with replacement, then of each its values with replacement.
    """
    own = {}
    for value, group in zip(values, groups):
        own.setdefault(group, []).append(value)
    means, chances = [], []
    for picked in itertools.product(own.values(), repeat=len(own)):
        chance = len(own) ** -len(own) / math.prod(len(group) ** len(group) for group in picked)
        for drawn in itertools.product(
            *(itertools.product(group, repeat=len(group)) for group in picked)
        ):
            drawn = [*itertools.chain(*drawn)]
            means.append(sum(drawn) / len(drawn))
            chances.append(chance)
    return np.array(means), np.array(chances)


GROUPED = {
    "equal sizes": ([0.1, 0.5, 0.2, 0.9, 1.0, 1.4], [0, 0, 1, 1, 2, 2]),
    "unequal sizes": ([0.1, 0.5, 0.2, 0.9, 1.0, 3.0], [5, 5, 5, 2, 2, 7]),
    "groups of one": ([0.1, 0.5, 0.2, 0.9, 1.0], [0, 1, 2, 3, 4]),
    "in no order": ([0.1, 0.9, 0.3, 0.7, 0.2, 0.8], [1, 0, 1, 0, 1, 0]),
}


@pytest.mark.parametrize("name", GROUPED)
def test_nested_interval_against_all_draws_there_are(name):
    means, chances = every_draw(*GROUPED[name])
    assert chances.sum() == pytest.approx(1)
    for level in (0.4, 0.7, 0.95):
        for x, share in zip(
            nested_interval(*GROUPED[name], level), (0.5 - level / 2, 0.5 + level / 2)
        ):
            # As many draws lie below it as should; 10,000 of them tell it to half a percent.
            assert chances[means < x - 1e-9].sum() < share + 0.015
            assert chances[means < x + 1e-9].sum() > share - 0.015


def test_nested_interval_of_an_example_that_can_be_counted():
    # Two groups of one value: the mean is 0, 1/2 or 1, with 1/4, 1/2 and 1/4.
    values, groups = [0.0, 1.0], ["a", "b"]
    assert nested_interval(values, groups, level=0.4) == (0.5, 0.5)
    assert nested_interval(values, groups, level=0.6) == (0.0, 1.0)


def test_nested_interval_of_one_group_is_that_of_a_bootstrap_of_the_mean():
    values = np.random.default_rng(0).normal(size=12)
    reference = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = nested_interval(values, np.zeros(12))
    np.testing.assert_allclose(found, reference, atol=0.08 * values.std())


def test_nested_interval_of_values_that_are_all_equal_has_no_width():
    assert nested_interval([0.25] * 6, [0, 0, 1, 1, 1, 2]) == (0.25, 0.25)


def test_nested_interval_depends_on_the_seed_and_on_nothing_else():
    values, groups = GROUPED["unequal sizes"]
    np.random.seed(0)  # noqa: NPY002
    first = nested_interval(values, groups, draws=50, seed=3)
    np.random.seed(1)  # noqa: NPY002
    assert first == nested_interval(values, groups, draws=50, seed=3)
    assert first != nested_interval(values, groups, draws=50, seed=4)


def test_nested_interval_is_wider_where_groups_differ_and_not_where_they_do_not():
    rng = np.random.default_rng(0)
    own, groups = rng.normal(size=32), np.repeat(np.arange(8), 4)

    def widths(values):
        low, high = nested_interval(values, groups)
        return high - low, 2 * interval(values)[1]

    nested, flat = widths(own + 5 * rng.normal(size=8)[groups])
    # Eight means tell what 32 values seem to: the standard error is twice as large.
    assert 1.5 * flat < nested < 2.5 * flat
    nested, flat = widths(own)
    assert 0.7 * flat < nested < 1.6 * flat


def test_nested_interval_holds_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    groups, hits = np.repeat(np.arange(8), 4), []
    for seed in range(300):
        values = rng.normal(size=8)[groups] + rng.normal(size=32)
        low, high = nested_interval(values, groups, draws=300, seed=seed)
        hits.append(low < 0 < high)
    assert 0.86 < np.mean(hits) < 0.98  # rather too narrow with so few groups


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
