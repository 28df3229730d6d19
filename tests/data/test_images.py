"""A split of a data set: smaller splits of it, and its statistics."""

import math

import numpy as np
import pytest

from clsp_utils.data import ChannelStatistics, DataError, Images, split_by_group
from clsp_utils.data.images import by_class, classes_in_turn, grouped_by_pixels


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


# Labels that scores can come of -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "n", "chance"),
    [([0, 1, 0, 1], 2, 1 / 2), ([7, 3, 3, 9], 3, 1 / 3), ([-1, 4, 4, -1], 1, 1), ([-1], 0, 1)],
)
def test_chance_is_of_the_classes_that_are_present(labels, n, chance):
    names = tuple("0123456789")
    images = Images(np.zeros((len(labels), 1)), np.array(labels), np.arange(len(labels)), names)
    assert images.n_classes_present == n and images.chance == chance


@pytest.mark.parametrize(("n_classes", "each"), [(2, 10), (3, 10), (10, 10), (100, 10)])
def test_ten_images_of_each_class_can_be_split_twice_and_once_more(n_classes, each):
    labels = np.arange(n_classes).repeat(each)
    data = Images(np.zeros((len(labels), 1)), labels, np.arange(len(labels)), ())
    for _ in range(3):  # without a test split, with evaluate_on="validation", and for k of kNN
        data, held = split_by_group(data, 0.2)
        assert held.n_classes_present == data.n_classes_present == n_classes


def test_too_few_images_are_counted_with_their_copies():
    data = Images(np.zeros((12, 1)), np.arange(12) % 2, np.arange(12) % 4, ("a", "b"))
    with pytest.raises(DataError) as error:
        split_by_group(data, 0.2)
    assert str(error.value) == (
        "4 images (12 with copies) of 2 class(es), where the smallest has 2 and 10 are enough, "
        "are too few to hold out 20% of every class."
    )


# The same pixels ----------------------------------------------------------------------------------


def test_images_of_the_same_pixels_are_one_group_and_others_are_not():
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (6, 4, 4, 3), np.uint8)
    train, test = grouped_by_pixels(
        (some[[0, 1, 0, 2, 1]], np.array([0, 1, 0, 0, -1])), (some[[3, 0, 4]], np.zeros(3, int)), ()
    )
    assert train.groups.tolist() == [0, 1, 0, 3, 1] and test.groups.tolist() == [5, 0, 7]
    alone, none = grouped_by_pixels((some, np.zeros(6, int)), None, ())
    assert alone.groups.tolist() == [*range(6)] and none is None and alone.groups.dtype == np.int64


def test_a_mirrored_image_is_in_the_group_of_the_image_and_a_turned_one_is_not():
    x = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    images = np.concatenate([x, x[:, :, ::-1], x[:, ::-1], x[:, ::-1, ::-1]])
    data, _ = grouped_by_pixels((images, np.zeros(12, int)), None, ())
    assert data.groups.tolist() == [0, 1, 2, 0, 1, 2, 6, 7, 8, 6, 7, 8]


def test_no_copy_is_on_the_other_side_of_a_split():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 2, 2, 3), np.uint8)[rng.integers(0, 60, 300)]
    data, _ = grouped_by_pixels((images, images[:, 0, 0, 0] % 2), None, ("a", "b"))
    kept, held = (set(map(bytes, part.images)) for part in split_by_group(data, 0.2))
    assert kept and held and not kept & held


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "n", "expected"),
    [
        ([500, 500], 200, [100, 100]),
        ([900, 60, 40], 200, [100, 60, 40]),
        ([990, 10], 400, [390, 10]),
        ([100, 100], 400, [100, 100]),
        ([1] * 300, 200, [1] * 200),
    ],
)
def test_classes_in_turn(sizes, n, expected):
    labels = np.arange(len(sizes)).repeat(sizes)  # sorted by class
    data = Images(np.arange(len(labels)), labels, np.arange(len(labels)), ())
    some = classes_in_turn(data, n)
    assert np.bincount(some.labels).tolist() == expected
    assert (np.diff(some.images) > 0).all()  # the order stays
    for label in range(len(expected)):  # and of each class the first
        first = data.images[labels == label][: expected[label]]
        assert some.images[some.labels == label].tolist() == first.tolist()


def test_classes_in_turn_count_images_without_a_label_as_one():
    labels = np.repeat([0, 1, -1], [50, 50, 900])
    some = classes_in_turn(Images(np.arange(1000), labels, np.arange(1000), ()), 60)
    assert [(some.labels == label).sum() for label in (0, 1, -1)] == [20, 20, 20]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([2, 0, 0, 1, 2, 0], [1, 3, 0, 2, 4, 5]),
        ([1, 1, -1, -1, -1], [2, 0, 3, 1, 4]),
        ([7, 7, 7], [0, 1, 2]),
        ([], []),
    ],
)
def test_rows_in_which_classes_take_turns(labels, expected):
    assert by_class(np.array(labels, int)).tolist() == expected


def test_any_first_rows_of_classes_that_take_turns_are_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), 40))
    rows = by_class(labels)
    assert sorted(rows) == list(range(280))
    for n in (7, 30, 32, 280):
        counts = np.bincount(labels[rows[:n]], minlength=7)
        assert counts.max() - counts.min() <= (n % 7 > 0)
