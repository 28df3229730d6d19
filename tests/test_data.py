"""The digits: known content, known background, and splits that share no stroke."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits
from torch.nn import functional as F

from clsp_utils import data
from clsp_utils.config import Data, change
from clsp_utils.folders import DataError

SIZE = 16


@pytest.fixture(scope="module")
def splits():
    return data.load(Data(size=SIZE))


def arrays(part):
    yield from (part.images, part.labels, part.groups, part.background)
    yield from (part.factors[name] for name in sorted(part.factors))


def groups(part):
    return set(part.groups.tolist())


def test_two_loads_are_equal(splits):
    for one, other in zip(splits, data.load(Data(size=SIZE))):
        assert all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.mark.parametrize("i, n", [(0, 3 * 1297), (1, 2 * 500)])  # 1797 strokes, of which 500 test
def test_shapes_and_dtypes(splits, i, n):
    part = splits[i]
    assert len(part) == n
    assert part.images.shape == part.background.shape == (n, SIZE, SIZE, 3)
    assert part.labels.shape == part.groups.shape == (n,)
    assert [x.dtype for x in (part.images, part.labels, part.groups, part.background)] == [
        np.uint8, np.int64, np.int64, np.float32
    ]
    assert part.background.min() >= 0 and part.background.max() <= 1
    assert part.class_names == tuple("0123456789") and set(part.labels) == set(range(10))


def test_draws_and_size():
    train, test = data.load(Data(size=24, draws=1))
    assert train.images.shape == (1297, 24, 24, 3) and len(test) == 1000


def test_no_stroke_is_in_both_splits(splits):
    train, test = splits
    assert not groups(train) & groups(test)
    assert len(groups(train)) == 1297 and len(groups(test)) == 500


def test_no_two_pictures_share_a_background(splits):
    backgrounds = np.concatenate([part.background[:, 0, 0] for part in splits])
    assert len(np.unique(backgrounds, axis=0)) == len(backgrounds)


def test_validation_holds_strokes_out_and_leaves_the_test_split_alone(splits):
    train, test = splits
    rest, held = data.load(Data(size=SIZE, evaluate_on="validation"))
    assert groups(rest) | groups(held) == groups(train) and not groups(rest) & groups(held)
    assert not groups(held) & groups(test)
    assert len(groups(held)) == pytest.approx(1297 / 5, abs=1)
    assert len(rest) + len(held) == len(train), "no picture is lost"


def test_labels_are_those_of_the_strokes(splits):
    target = load_digits().target
    for part in splits:
        assert np.array_equal(part.labels, target[part.groups])


@pytest.mark.parametrize("i", [0, 5, 77])
def test_background_follows_from_its_factors(splits, i):
    part = splits[0]
    a, b, angle = (part.factors[name][i] for name in ("colour_a", "colour_b", "angle"))
    for row in range(SIZE):
        for column in range(SIZE):
            # Pixel centres; the corners of the image lie at -1 and 1 along a diagonal direction.
            x, y = (column + 0.5) / SIZE - 0.5, (row + 0.5) / SIZE - 0.5
            along = (x * math.cos(angle) + y * math.sin(angle)) * math.sqrt(2)
            share = (1 + along) / 2
            expected = [(1 - share) * a[c] + share * b[c] for c in range(3)]
            assert part.background[i, row, column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("split", [0, 1])
def test_image_is_ink_over_background(splits, split):
    part = splits[split][:200]
    strokes = load_digits().images[part.groups] / 16
    half = 0.5 + 1e-3  # of a level, from rounding
    # Linear zoom reaches one stroke pixel far: there is no ink where no neighbour has any.
    empty = ndimage.maximum_filter(strokes, size=3, axes=(1, 2)) == 0
    empty = empty.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    assert empty.sum() > 1000
    assert np.abs(part.images - 255.0 * part.background)[empty].max() <= half
    # Everywhere, with the cover from another library.
    cover = F.interpolate(torch.tensor(strokes)[:, None], size=SIZE, mode="bilinear")[:, 0, :, :, None].numpy()
    blend = cover * part.factors["ink"][:, None, None] + (1 - cover) * part.background
    assert np.abs(part.images - 255.0 * blend).max() <= half


def test_ink_is_far_from_the_background(splits):
    for part in splits:
        ink = part.factors["ink"] @ data.LUMA
        paper = (part.background @ np.float32(data.LUMA)).reshape(len(part), -1)
        darker, lighter = ink - paper.max(1), paper.min(1) - ink
        assert np.maximum(darker, lighter).min() > data.CONTRAST - 1e-5


def test_no_lightness_says_what_is_ink(splits):
    """Ink and background overlap in lightness: the mean of one lies well inside the spread of the other."""
    for part in splits:
        ink, paper = part.factors["ink"] @ data.LUMA, part.background.mean((1, 2)) @ data.LUMA
        assert abs(ink.mean() - paper.mean()) < 0.03 and 0.3 < (ink > paper).mean() < 0.7


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_limit_keeps_the_first(evaluate_on):
    everything = data.load(Data(size=8, evaluate_on=evaluate_on))
    for whole, part in zip(everything, data.load(Data(size=8, evaluate_on=evaluate_on, limit=200))):
        assert len(part) == 200
        assert all(np.array_equal(a[:200], b) for a, b in zip(arrays(whole), arrays(part), strict=True))


def test_index_picks_the_same_rows_everywhere(splits):
    index = np.array([7, 3, 900])
    part = splits[0][index]
    assert all(np.array_equal(a[index], b) for a, b in zip(arrays(splits[0]), arrays(part), strict=True))
    bare = data.Images(np.zeros((5, 2, 2, 3), np.uint8), np.arange(5), np.arange(5), ("a",))[1:3]
    assert bare.background is None and bare.factors is None and bare.labels.tolist() == [1, 2]


def test_split_keeps_groups_apart_and_classes_in_proportion():
    rng = np.random.default_rng(0)
    # Class 0 has 60 groups, class 1 has 30, class 2 has 10, of one to four images each, shuffled.
    group = rng.permutation(np.repeat(np.arange(100), rng.integers(1, 5, 100)))
    label = np.searchsorted([60, 90], group, side="right")
    whole = data.Images(np.zeros((len(group), 1, 1, 3), np.uint8), label, group, tuple("abc"))
    kept, held = data.split_by_group(whole, 0.3)
    assert not groups(kept) & groups(held) and len(kept) + len(held) == len(whole)
    classes = np.searchsorted([60, 90], sorted(groups(held)), side="right")
    assert np.bincount(classes).tolist() == [18, 9, 3]
    again, other = (data.split_by_group(whole, 0.3, seed)[1] for seed in (0, 1))
    assert groups(again) == groups(held) != groups(other)


def test_statistics():
    images = np.zeros((2, 1, 2, 3), np.uint8)
    images[..., 0] = 255
    images[0, ..., 1] = 255  # half of the pixels
    images[0, 0, 0, 2] = 51  # 0.2, a quarter of the pixels
    mean, std = data.Images(images, np.arange(2), np.arange(2), ("a",)).statistics
    assert mean == pytest.approx((1, 0.5, 0.05))
    assert std == pytest.approx((0, 0.5, 0.2 * math.sqrt(0.25 * 0.75)))


def test_statistics_of_many_images_are_those_in_floating_point():
    images = np.random.default_rng(0).integers(0, 256, (600, 3, 5, 3), dtype=np.uint8)
    mean, std = data.Images(images, np.arange(600), np.arange(600), ()).statistics
    x = images.reshape(-1, 3) / 255
    assert mean == pytest.approx(x.mean(0), rel=1e-12) and std == pytest.approx(x.std(0), rel=1e-12)


# Other people's data ----------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path):
    """100 training and 50 test images of CIFAR-10's shape, each of another colour; and their setting."""
    codes = np.arange(150)
    colours = np.stack([codes, 255 - codes, codes // 2], 1).astype(np.uint8)
    images = np.broadcast_to(colours[:, None, None], (150, 32, 32, 3))
    labels = codes % 10
    arrays = {"train_x": images[:100], "train_y": labels[:100], "test_x": images[100:], "test_y": labels[100:]}
    np.savez(tmp_path / "a.npz", **arrays)
    return arrays, Data(name="cifar10", size=32, path=str(tmp_path / "a.npz"))


def codes(part):
    return part.images[:, 0, 0, 0].tolist()


def test_other_data_have_a_group_an_image_and_no_background(npz):
    arrays, cfg = npz
    train, test = data.load(cfg)
    assert codes(train) == [*range(100)] and codes(test) == [*range(100, 150)]
    assert np.array_equal(train.labels, arrays["train_y"]) and np.array_equal(test.labels, arrays["test_y"])
    assert len(groups(train) | groups(test)) == 150
    assert train.groups.dtype == np.int64
    assert train.background is None and train.factors is None and train.class_names[9] == "truck"


def test_other_data_are_split_and_limited_like_the_digits(npz):
    cfg = npz[1]
    kept, held = data.load(change(cfg, evaluate_on="validation"))
    assert sorted(codes(kept) + codes(held)) == [*range(100)]
    assert np.bincount(held.labels).tolist() == [2] * 10
    np.savez(cfg.path, **{name: np.repeat(x, 5, 0) for name, x in npz[0].items()})
    train, test = data.load(change(cfg, limit=200))
    assert len(train) == len(test) == 200 and codes(train)[-1] == 39


def folder_of_images(path, *names, n=10):
    for i, name in enumerate(names):
        (path / name).mkdir(parents=True, exist_ok=True)
        for j in range(n):
            Image.new("RGB", (16, 16), (i, j, 0)).save(path / name / f"{j}.png")
    return Data(name="folder", path=str(path))


def test_a_folder_without_a_test_split_is_split_in_proportion(tmp_path):
    cfg = folder_of_images(tmp_path, "cat", "dog")
    train, test = data.load(cfg)
    assert len(train) == 16 and np.bincount(test.labels).tolist() == [2, 2]
    assert not groups(train) & groups(test)
    assert train.class_names == ("cat", "dog") and np.array_equal(train.images[:, 0, 0, 0], train.labels)
    assert np.array_equal(data.load(cfg)[0].images, train.images)


def test_a_folder_without_labels_is_split(tmp_path):
    train, test = data.load(folder_of_images(tmp_path, ""))
    assert len(train) == 8 and len(test) == 2 and set(train.labels) == {-1} and train.class_names == ()
    with pytest.raises(DataError, match="None of these images has a label"):
        test.labelled


@pytest.mark.parametrize("names, n", [(("",), 1), (("cat", "dog"), 2), (("cat",), 1), (tuple("abcdef"), 3)])
def test_too_few_images_to_split_are_refused(tmp_path, names, n):
    with pytest.raises(DataError, match=f"^{n * len(names)} images of {len(names)} class.* are too few to hold out 20% of every class.$"):
        data.load(folder_of_images(tmp_path, *names, n=n))


def test_split_keeps_unlabelled_images_in_proportion():
    labels = np.repeat([0, 1, -1], [10, 20, 70])
    whole = data.Images(np.zeros((100, 1, 1, 3), np.uint8), labels, np.arange(100), ("a", "b"))
    kept, held = data.split_by_group(whole, 0.2)
    assert [np.sum(held.labels == label) for label in (0, 1, -1)] == [2, 4, 14] and len(kept) == 80


def test_labelled_is_the_part_with_labels():
    labels = np.array([1, -1, 0, -1])
    whole = data.Images(np.arange(4), labels, np.arange(4), ("a", "b"))
    assert whole.labelled.images.tolist() == [0, 2] and whole.labelled.labels.tolist() == [1, 0]
    assert whole.labelled.labelled is not None and len(whole) == 4


# What the key of a result holds -----------------------------------------------------------------


def test_fingerprint_of_the_digits_is_their_settings():
    settings = data.fingerprint(Data(size=24), splits=None)
    assert settings == {"name": "digits", "size": 24, "draws": 3, "limit": 0, "evaluate_on": "test"}


def test_fingerprint_of_other_data_is_their_content_wherever_it_lies(npz, tmp_path):
    arrays, cfg = npz

    def fingerprint(cfg, **changes):
        np.savez(cfg.path, **arrays | changes)
        return data.fingerprint(cfg, lambda: data.load(cfg))

    original = fingerprint(cfg)
    assert original == fingerprint(change(cfg, path=str(tmp_path / "b.npz")))
    for name, x in arrays.items():
        changed = x.copy()
        changed[-1] = changed[-1] // 2  # one image, or one label
        assert fingerprint(cfg, **{name: changed}) != original, name
    assert fingerprint(change(cfg, size=16)) != original
    assert fingerprint(change(cfg, evaluate_on="validation")) != original
