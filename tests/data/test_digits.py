"""The digits: known content, known background, and splits that share no stroke."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.datasets import load_digits
from torch.nn import functional as F

from clsp_utils.config import Data
from clsp_utils.data import LUMA, load
from clsp_utils.data.digits import CONTRAST, WAVELENGTHS

SIZE = 16


@pytest.fixture(scope="module")
def splits():
    return load(Data(size=SIZE))


def arrays(part):
    yield from (part.images, part.labels, part.groups, part.background)
    yield from (part.factors[name] for name in sorted(part.factors))


def groups(part):
    return set(part.groups.tolist())


def test_two_loads_are_equal(splits):
    for one, other in zip(splits, load(Data(size=SIZE))):
        assert all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.mark.parametrize("i, n", [(0, 3 * 1297), (1, 2 * 500)])  # 1797 strokes, of which 500 test
def test_shapes_and_dtypes(splits, i, n):
    part = splits[i]
    assert len(part) == n
    assert part.images.shape == part.background.shape == (n, SIZE, SIZE, 3)
    assert part.labels.shape == part.groups.shape == (n,)
    assert [x.dtype for x in (part.images, part.labels, part.groups, part.background)] == [
        np.uint8,
        np.int64,
        np.int64,
        np.float32,
    ]
    assert part.background.min() >= 0 and part.background.max() <= 1
    assert part.class_names == tuple("0123456789") and set(part.labels) == set(range(10))


def test_draws_and_size():
    train, test = load(Data(size=24, draws=1))
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
    rest, held = load(Data(size=SIZE, evaluate_on="validation"))
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
    a, b = (part.factors[name][i] for name in ("colour_a", "colour_b"))
    angle, wavelength, phase = (part.factors[name][i] for name in ("angle", "wavelength", "phase"))
    for row in range(SIZE):
        for column in range(SIZE):
            # Pixel centres, from the centre of the image, in sides of it.
            x, y = (column + 0.5) / SIZE - 0.5, (row + 0.5) / SIZE - 0.5
            along = (x * math.cos(angle) + y * math.sin(angle)) / wavelength
            share = (1 + math.cos(2 * math.pi * along + phase)) / 2
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
    cover = F.interpolate(torch.tensor(strokes)[:, None], size=SIZE, mode="bilinear")[
        :, 0, :, :, None
    ].numpy()
    blend = cover * part.factors["ink"][:, None, None] + (1 - cover) * part.background
    assert np.abs(part.images - 255.0 * blend).max() <= half


def test_backgrounds_reach_from_stripes_to_gradients(splits):
    """Wavelengths fill their range evenly on a logarithmic scale; phase and angle the circle."""
    factors = splits[0].factors
    shortest, longest = np.log(WAVELENGTHS)
    of_range = (np.log(factors["wavelength"]) - shortest) / (longest - shortest)
    for shares in (of_range, factors["angle"] / (2 * np.pi), factors["phase"] / (2 * np.pi)):
        assert stats.kstest(shares, "uniform").pvalue > 0.01


def test_ink_is_far_from_the_background(splits):
    for part in splits:
        ink = part.factors["ink"] @ LUMA
        paper = (part.background @ np.float32(LUMA)).reshape(len(part), -1)
        darker, lighter = ink - paper.max(1), paper.min(1) - ink
        assert np.maximum(darker, lighter).min() > CONTRAST - 1e-5


def test_no_lightness_says_what_is_ink(splits):
    """Ink and background overlap in lightness: the mean of one lies inside the other's spread."""
    for part in splits:
        ink, paper = part.factors["ink"] @ LUMA, part.background.mean((1, 2)) @ LUMA
        assert abs(ink.mean() - paper.mean()) < 0.03 and 0.3 < (ink > paper).mean() < 0.7


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_limit_keeps_the_first(evaluate_on):
    everything = load(Data(size=8, evaluate_on=evaluate_on))
    for whole, part in zip(everything, load(Data(size=8, evaluate_on=evaluate_on, limit=200))):
        assert len(part) == 200
        assert all(
            np.array_equal(a[:200], b) for a, b in zip(arrays(whole), arrays(part), strict=True)
        )


def test_index_picks_the_same_rows_everywhere(splits):
    index = np.array([7, 3, 900])
    part = splits[0][index]
    assert all(
        np.array_equal(a[index], b) for a, b in zip(arrays(splits[0]), arrays(part), strict=True)
    )
