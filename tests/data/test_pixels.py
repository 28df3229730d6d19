"""Images as bytes and as numbers: ranges, luma, normalisation."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from clsp_utils.data import (
    NORMALISATION,
    Images,
    grey,
    normalise,
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
