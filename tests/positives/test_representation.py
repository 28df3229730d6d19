"""Representations and their clusters: standardised as written, decided by the seed alone."""

import numpy as np
import pytest

from clsp_utils.positives import cluster, standardise


def test_standardised_against_a_slow_loop():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((50, 4)) * [1, 10, 1e-3, 0] + [0, 5, -3, 2]).astype(np.float32)
    r = standardise(features)
    assert r.dtype == np.float32 and r.shape == (50, 4)
    for d in range(3):
        column = features[:, d].astype(float)
        mean = sum(column) / 50
        std = (sum((x - mean) ** 2 for x in column) / 50) ** 0.5
        np.testing.assert_allclose(r[:, d], [(x - mean) / std for x in column], atol=1e-5)
    assert not r[:, 3].any()  # it never varies


@pytest.fixture
def blobs():
    """200 points in five clouds that lie far apart, and which cloud each is of."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, 5, 200)
    means = 20 * np.eye(5, 8)
    return (means[which] + rng.standard_normal((200, 8))).astype(np.float32), which


def test_clouds_that_lie_apart_are_found(blobs):
    r, which = blobs
    found = cluster(r, 5, 0)
    assert found.shape == (200,) and found.dtype == np.int64
    assert {len(set(found[which == i])) for i in range(5)} == {1}
    assert set(found) == set(range(5))


def test_clusters_depend_on_the_seed_alone():
    r = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
    first = cluster(r, 7, 0)
    np.random.seed(99)  # noqa: NPY002  (the global state has no say)
    assert np.array_equal(first, cluster(r, 7, 0))
    assert not np.array_equal(first, cluster(r, 7, 1))
    assert set(first) == set(range(7))


def test_each_row_is_nearest_to_the_mean_of_its_own_cluster():
    r = np.random.default_rng(1).standard_normal((120, 3)).astype(np.float32)
    found = cluster(r, 4, 0)
    means = np.stack([r[found == c].mean(0) for c in range(4)])
    distances = ((r[:, None] - means) ** 2).sum(2)
    assert (distances.argmin(1) == found).mean() > 0.98  # k-means stops when hardly any moves
