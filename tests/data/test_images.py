"""A split of a data set: smaller splits of it, and its statistics."""

import math

import numpy as np
import pytest

from clsp_utils.data import ChannelStatistics, DataError, Images, split_by_group


def groups(part):
    return set(part.groups.tolist())


def test_a_split_without_background_is_indexed():
    bare = Images(np.zeros((5, 2, 2, 3), np.uint8), np.arange(5), np.arange(5), ("a",))[1:3]
    assert bare.background is None and bare.factors is None and bare.labels.tolist() == [1, 2]
    assert bare.background_or_image is bare.images


def test_split_keeps_groups_apart_and_classes_in_proportion():
    rng = np.random.default_rng(0)
    # Class 0 has 60 groups, class 1 has 30, class 2 has 10, of one to four images each, shuffled.
    group = rng.permutation(np.repeat(np.arange(100), rng.integers(1, 5, 100)))
    label = np.searchsorted([60, 90], group, side="right")
    whole = Images(np.zeros((len(group), 1, 1, 3), np.uint8), label, group, tuple("abc"))
    kept, held = split_by_group(whole, 0.3)
    assert not groups(kept) & groups(held) and len(kept) + len(held) == len(whole)
    classes = np.searchsorted([60, 90], sorted(groups(held)), side="right")
    assert np.bincount(classes).tolist() == [18, 9, 3]
    again, other = (split_by_group(whole, 0.3, seed)[1] for seed in (0, 1))
    assert groups(again) == groups(held) != groups(other)


def test_statistics():
    images = np.zeros((2, 1, 2, 3), np.uint8)
    images[..., 0] = 255
    images[0, ..., 1] = 255  # half of the pixels
    images[0, 0, 0, 2] = 51  # 0.2, a quarter of the pixels
    statistics = Images(images, np.arange(2), np.arange(2), ("a",)).statistics
    assert isinstance(statistics, ChannelStatistics)
    mean, std = statistics
    assert mean == pytest.approx((1, 0.5, 0.05))
    assert std == pytest.approx((0, 0.5, 0.2 * math.sqrt(0.25 * 0.75)))


def test_statistics_of_many_images_are_those_in_floating_point():
    images = np.random.default_rng(0).integers(0, 256, (600, 3, 5, 3), dtype=np.uint8)
    mean, std = Images(images, np.arange(600), np.arange(600), ()).statistics
    x = images.reshape(-1, 3) / 255
    assert mean == pytest.approx(x.mean(0), rel=1e-12) and std == pytest.approx(x.std(0), rel=1e-12)


def test_split_keeps_unlabelled_images_in_proportion():
    labels = np.repeat([0, 1, -1], [10, 20, 70])
    whole = Images(np.zeros((100, 1, 1, 3), np.uint8), labels, np.arange(100), ("a", "b"))
    kept, held = split_by_group(whole, 0.2)
    assert [np.sum(held.labels == label) for label in (0, 1, -1)] == [2, 4, 14] and len(kept) == 80


def test_labelled_is_the_part_with_labels():
    labels = np.array([1, -1, 0, -1])
    whole = Images(np.arange(4), labels, np.arange(4), ("a", "b"))
    assert whole.labelled.images.tolist() == [0, 2] and whole.labelled.labels.tolist() == [1, 0]
    assert whole.labelled.labelled is not None and len(whole) == 4
    with pytest.raises(DataError, match="^None of these images has a label"):
        _ = whole[labels < 0].labelled
