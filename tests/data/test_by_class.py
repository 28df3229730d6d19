"""The order in which classes take turns, which figures and curves show images in."""

import numpy as np
import pytest

from clsp_utils.data import by_class

LABELS = np.array([2, 2, 0, 2, -1, 1, 0, 1, 2])


def test_classes_take_turns():
    assert by_class(LABELS).tolist() == [4, 2, 5, 0, 6, 7, 1, 3, 8]


@pytest.mark.parametrize("seed", range(3))
def test_each_row_comes_once_and_no_class_twice_before_another_has_come(seed):
    labels = np.random.default_rng(seed).integers(0, 5, 60)
    order = by_class(labels)
    assert sorted(order) == list(range(60))
    for n in range(1, 61):
        counts = np.bincount(labels[order[:n]], minlength=5)
        left = np.bincount(labels, minlength=5) - counts
        # A class that is behind another one has no image left.
        assert all(counts.max() - counts[c] <= 1 or left[c] == 0 for c in range(5))


def test_images_of_one_class_keep_their_order():
    assert by_class(np.zeros(7, int)).tolist() == list(range(7))
