"""Images as bytes and as numbers: ranges, luma, normalisation."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from clsp_utils.data import Images, grey, normalise, to_diffusion_range, to_float, to_uint8

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
