"""Correlation over few models with several runs each: against scipy, all orders, closed cases."""

import itertools

import numpy as np
import pytest
from scipy import stats

from clsp_utils.evaluation import correlation

X = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
Y = np.array([[0.50, 0.53], [0.61, 0.57], [0.60, 0.62], [0.70, 0.69], [0.66, 0.71], [0.75, 0.72]])


def test_coefficients_and_fishers_interval_are_scipys():
    found, mean = correlation(X, Y), Y.mean(1)
    assert found["spearman"] == pytest.approx(stats.spearmanr(X, mean).statistic)
    pearson = stats.pearsonr(X, mean)
    assert found["pearson"] == pytest.approx(pearson.statistic)
    interval = pearson.confidence_interval()
    assert (found["fisher_low"], found["fisher_high"]) == pytest.approx(tuple(interval))


def test_p_counts_all_orders():
    found, mean = correlation(X, Y), Y.mean(1)
    values = [stats.spearmanr(order, mean).statistic for order in itertools.permutations(X)]
    as_low = np.mean(np.array(values) <= found["spearman"] + 1e-12)
    assert len(values) == 720 and found["p"] == pytest.approx(2 * as_low)


def test_a_perfect_order_has_the_smallest_p_that_there_is():
    found = correlation(X, -np.stack([X, X], 1))
    assert found["spearman"] == found["spearman_low"] == found["spearman_high"] == -1
    assert found["pearson"] == pytest.approx(-1) and found["p"] == pytest.approx(2 / 720)
    assert -1 <= found["fisher_low"] <= found["fisher_high"] < -0.99


def test_the_interval_over_seeds_is_that_of_all_resamples():
    found = correlation(X, Y, draws=20_000)
    ways = [Y[:, list(picks)].mean(1) for picks in itertools.product(range(2), repeat=2)]
    values = [stats.pearsonr(X, way).statistic for way in ways]
    # Each of four resamples has a share of a quarter: 95 % hold the least and the largest.
    assert found["pearson_low"] == pytest.approx(min(values))
    assert found["pearson_high"] == pytest.approx(max(values))
    same = correlation(X, Y[:, :1].repeat(3, 1))
    assert same["pearson_low"] == pytest.approx(same["pearson_high"])


def test_what_does_not_vary_has_no_correlation():
    found = correlation(X, np.ones((6, 2)))
    assert len(found) == 9 and np.isnan(list(found.values())).all()
