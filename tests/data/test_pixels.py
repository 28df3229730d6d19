"""Images as bytes and as numbers: ranges, luma, normalisation, other colours."""

import colorsys

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional as tv

from clsp_utils.data import (
    NORMALISATION,
    Images,
    grey,
    normalise,
    recolour,
    shift_hue,
    to_diffusion_range,
    to_float,
    to_uint8,
)

ALL_VALUES = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)


def test_ranges_round_trip_every_value():
    x = to_diffusion_range(ALL_VALUES)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_uint8(x), ALL_VALUES)


@pytest.mark.parametrize("offset", [-0.4, 0.4])
def test_to_uint8_rounds_to_the_nearest(offset):
    x = to_diffusion_range(ALL_VALUES) + offset / 127.5
    assert torch.equal(to_uint8(x), ALL_VALUES)


def test_ranges_keep_pixels_and_channels_in_place_and_clip():
    images = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    images[1, 2, 3, 0] = 255
    x = to_diffusion_range(images)
    assert x[1, 0, 2, 3] == 1 and x.sum() == 2 - x.numel()
    assert torch.equal(to_uint8(3 * x), images)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_grey_as_torchvision():
    x = noise(2, 3, 5, 5)
    torch.testing.assert_close(grey(x), tv.rgb_to_grayscale(x), atol=1e-3, rtol=0)


def test_to_float_divides_by_255_and_keeps_pixels_and_channels_in_place():
    x = to_float(ALL_VALUES)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32
    assert torch.equal(x[0, 0].flatten(), torch.arange(256) / 255)
    images = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    images[1, 2, 3, 0] = 255
    assert to_float(images)[1, 0, 2, 3] == 1 and to_float(images).sum() == 1


def test_normalise_gives_mean_zero_and_deviation_one():
    images = (noise(20, 6, 6, 3) ** torch.tensor([1.0, 2.0, 3.0]) * 255).byte()
    statistics = Images(images.numpy(), np.zeros(20), np.arange(20), ()).statistics
    x = normalise(to_float(images), statistics)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


CONSTANT = {
    "a black channel": lambda x: x * torch.tensor([1, 0, 1], dtype=torch.uint8),
    "a full channel": lambda x: x | torch.tensor([0, 0, 255], dtype=torch.uint8),
    "a channel of 77": lambda x: torch.where(torch.tensor([True, False, True]), x, 77).byte(),
    "two constant channels": lambda x: x * torch.tensor([1, 0, 0], dtype=torch.uint8),
    "one pixel apart": lambda x: torch.where(
        torch.tensor([True, False, True]) | (torch.arange(x.numel()).view(x.shape) == 1), x, 77
    ).byte(),
    "all black": lambda x: x * 0,
    "black and white": lambda x: (x[..., :1] > 127).repeat(1, 1, 1, 3) * torch.tensor(255).byte(),
}


@pytest.mark.parametrize("case", CONSTANT)
def test_a_channel_that_does_not_vary_is_not_blown_up(case):
    images = CONSTANT[case]((noise(20, 6, 6, 3) * 256).byte())
    statistics = Images(images.numpy(), np.zeros(20), np.arange(20), ()).statistics
    x = normalise(to_float(images), statistics)
    assert x.isfinite().all() and x.abs().max() < 20
    constant = images.flatten(0, 2).float().std(0, correction=0) < 1
    assert (x[:, constant].abs() < 1.01).all()
    scale = x.std((0, 2, 3), correction=0)[~constant]
    torch.testing.assert_close(scale, torch.ones_like(scale), atol=1e-5, rtol=0)


def test_published_constants():
    assert set(NORMALISATION) == {"cifar10", "cifar100", "stl10"}
    assert NORMALISATION["cifar10"].std == (0.2023, 0.1994, 0.2010)  # a fifth below the true ones
    for mean, std in NORMALISATION.values():
        assert all(0.4 < m < 0.52 for m in mean) and all(0.19 < s < 0.28 for s in std)


# Other colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [-0.5, -0.3, -0.05, 0.0, 0.1, 0.33, 0.5])
def test_hue_as_torchvision(turn):
    x = noise(3, 3, 9, 9)
    x[:, :, 0] = x[:, :1, 0]  # a row of grey pixels, which have no hue
    x[:, :, 0, :2] = torch.tensor([0.0, 1.0])  # black and white among them
    x[:, 1, 1] = x[:, 0, 1]  # a row in which two channels are equally strong
    found = shift_hue(x, torch.full((3,), turn))
    torch.testing.assert_close(found, tv.adjust_hue(x, turn), atol=2e-3, rtol=0)
    torch.testing.assert_close(found[:, :, 0], x[:, :, 0], atol=1e-6, rtol=0)


def test_hue_turns_each_image_by_its_own_shift():
    x, turns = noise(1, 3, 5, 5).expand(3, 3, 5, 5), torch.tensor([-0.2, 0.0, 0.4])
    for found, turn in zip(shift_hue(x, turns), turns.tolist()):
        torch.testing.assert_close(found, tv.adjust_hue(x[0], turn), atol=2e-3, rtol=0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Its negative has channels of 255 and 55, which no turn of the hue gives.
MARKER = torch.tensor([200, 0, 0], dtype=torch.uint8)


def random_images(n=6, size=5):
    images = (noise(n, size, size, 3) * 256).byte()
    images[:, 0, 0] = MARKER
    return images


def negatives(images):
    """Which of the images, all with the marker in the first pixel, were made negatives."""
    return images[:, 0, 0].amax(1) == 255


def hues(pixels):
    """In turns, of uint8 `(N, 3)`."""
    return [colorsys.rgb_to_hsv(*pixel)[0] for pixel in (pixels.double() / 255).tolist()]


def test_recolouring_gives_new_images_of_the_same_shape_that_the_generator_decides():
    images = noise(4, 5, 7, 3).mul(256).byte()
    before = images.clone()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = recolour(images, seeded(3))
    assert found.shape == images.shape and found.dtype == torch.uint8
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, recolour(images, seeded(3)))
    assert not torch.equal(found, recolour(images, seeded(4)))
    g = seeded(3)
    assert not torch.equal(recolour(images, g), recolour(images, g))


def test_one_colour_comes_in_all_hues_and_half_of_the_images_are_negatives():
    images = MARKER.expand(2000, 1, 1, 3)
    found = recolour(images, seeded())
    negative = negatives(found)
    assert negative.float().mean().item() == pytest.approx(0.5, abs=0.035)  # three deviations
    positive = torch.where(negative.view(-1, 1, 1, 1), 255 - found, found)[:, 0, 0]
    # Value and chroma are those of the colour.
    assert (positive.amax(1) == 200).all() and (positive.amin(1) == 0).all()
    for rows in (negative, ~negative):
        assert stats.kstest(hues(positive[rows]), "uniform").pvalue > 0.01


def test_all_pixels_of_an_image_get_the_same_turn_and_are_negated_together():
    images = random_images()
    found = recolour(images, seeded())
    negative = negatives(found)
    assert negative.any() and not negative.all()
    for old, new, is_negative in zip(images, found, negative.tolist()):
        new = 255 - new.int() if is_negative else new.int()
        [turn] = hues(new[0, :1])  # that of the marker, which was red
        for row in range(5):
            for column in range(5):
                h, s, v = colorsys.rgb_to_hsv(*(old[row, column] / 255).tolist())
                expected = [255 * x for x in colorsys.hsv_to_rgb((h + turn) % 1, s, v)]
                # The turn that is read off the marker is exact to half a grey level itself.
                assert new[row, column].tolist() == pytest.approx(expected, abs=2)


def test_shapes_stay_as_they_are():
    inside = torch.zeros(40, 8, 8, dtype=torch.bool)
    inside[:, 2:6, 3:7] = True
    red, green = (torch.tensor(c, dtype=torch.uint8) for c in ((230, 60, 60), (40, 130, 50)))
    found = recolour(torch.where(inside[..., None], red, green), seeded())
    for image, mask in zip(found, inside):
        (one,), (other,) = image[mask].unique(dim=0), image[~mask].unique(dim=0)
        assert (one.int() - other.int()).abs().max() > 50


def test_grey_images_stay_as_they_are_or_become_their_negatives():
    images = ALL_VALUES.repeat(20, 1, 1, 1)
    found = recolour(images, seeded())
    same = (found == images).flatten(1).all(1)
    assert (same ^ (found == 255 - images).flatten(1).all(1)).all()
    assert same.any() and not same.all()
