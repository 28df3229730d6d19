"""Measures of positives: closed forms, and slow loops."""

import numpy as np
import pytest

from clsp_utils.evaluation import diversity, label_agreement, purity

# A cluster of 3 twos, 1 three and 1 seven, one of 2 threes, and a cluster of one seven.
CLUSTERS = np.array([0, 0, 0, 0, 0, 1, 1, 2])
LABELS = np.array([2, 2, 2, 3, 7, 3, 3, 7])


def test_purity_and_agreement_by_hand():
    assert purity(CLUSTERS, LABELS) == pytest.approx((3 + 2 + 1) / 8)
    assert label_agreement(CLUSTERS, LABELS) == pytest.approx(((9 + 1 + 1) / 5 + 2 + 1) / 8)


def test_purity_and_agreement_against_slow_loops():
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(0, 7, 300), rng.integers(-1, 4, 300)
    known = [(c, y) for c, y in zip(clusters, labels) if y >= 0]
    right, same, total = 0, 0.0, 0
    for cluster in set(clusters):
        members = [y for c, y in known if c == cluster]
        right += max(members.count(y) for y in set(members))
        for y in members:
            same += sum(y == other for other in members) / len(members)
        total += len(members)
    assert purity(clusters, labels) == pytest.approx(right / total)
    assert label_agreement(clusters, labels) == pytest.approx(same / total)


def test_ends_of_purity_and_agreement():
    labels = np.repeat(np.arange(4), 5)
    for measure in (purity, label_agreement):
        assert measure(np.arange(20), labels) == 1  # a cluster per image
        assert measure((labels + 1) % 4, labels) == 1  # the classes by other names
        assert measure(np.zeros(20, int), labels) == pytest.approx(1 / 4)  # one cluster for all


def test_diversity_at_its_ends():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.integers(0, 256, (50, 1, 4, 4, 3), np.uint8), 3, axis=1)
    assert diversity(alike) == 0
    unrelated = rng.integers(0, 256, (2000, 2, 4, 4, 3), np.uint8)
    assert diversity(unrelated) == pytest.approx(1, abs=0.02)


def test_diversity_in_closed_form():
    # Two anchors with candidates 10, 30 and 50, 90: within (200 + 800) / 2, over anchors
    # (800 + 1800) / 2, by columns.
    pixels = np.array([[10, 30], [50, 90]], np.uint8)
    candidates = np.broadcast_to(pixels[:, :, None, None, None], (2, 2, 4, 4, 3))
    assert diversity(candidates) == pytest.approx(500 / 1300)
