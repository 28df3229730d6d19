"""Views against torchvision, one transform at a time, and what is random about them."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from clsp_utils.config import Views
from clsp_utils.contrastive.augment import (
    Draws,
    augment,
    crop_and_flip,
    crop_and_shrink,
    crop_boxes,
    jitter,
)
from clsp_utils.data import ChannelStatistics, grey, normalise, to_float

NO_STATISTICS = ChannelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NOTHING = Views(
    crop_area=(0.5, 0.5),
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    p_jitter=0,
    p_grey=0,
    p_flip=0,
    p_solarize=0,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, low=0.0, high=1.0):
    return torch.rand(*shape, generator=generator(1)) * (high - low) + low


def only(**changes):
    """Settings in which nothing happens but a crop of fixed size, and `changes`."""
    return Views(
        **{name: getattr(NOTHING, name) for name in NOTHING.__dataclass_fields__} | changes
    )


def view(cfg, seed=0, n=4):
    images = (noise(n, 12, 12, 3) * 255).byte()
    return augment(images, cfg, NO_STATISTICS, generator(seed))


def boxes(*box, n=2):
    return tuple(torch.full((n,), value) for value in box)


@pytest.mark.parametrize("flipped", [False, True])
def test_crop_of_everything_is_the_image_or_its_mirror(flipped):
    x = noise(2, 3, 8, 8)
    found = crop_and_flip(x, boxes(0.5, 0.5, 1.0, 1.0), torch.full((2,), flipped))
    torch.testing.assert_close(found, tv.horizontal_flip(x) if flipped else x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("top, left, height, width", [(4, 2, 8, 12), (0, 8, 16, 8), (3, 3, 5, 7)])
def test_crop_as_torchvision(top, left, height, width, flipped):
    size = 16
    x = noise(2, 3, size, size)
    box = boxes((left + width / 2) / size, (top + height / 2) / size, width / size, height / size)
    found = crop_and_flip(x, box, torch.full((2,), flipped))
    expected = tv.resized_crop(x, top, left, height, width, [size, size], antialias=False)
    expected = tv.horizontal_flip(expected) if flipped else expected
    # torchvision repeats the border of the box, ours that of the image: up to half a pixel of the
    # box, which is this many pixels of the view.
    edge = math.ceil(size / min(height, width) / 2)
    inner = slice(edge, -edge)
    torch.testing.assert_close(
        found[..., inner, inner], expected[..., inner, inner], atol=1e-5, rtol=0
    )


# From a larger image ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 24])
@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 24.0, 24.0), (1.3, 4.8, 22.1, 23.4), (3.0, 2.5, 11.2, 9.1), (8, 8, 16, 16)]
)
def test_a_box_of_a_larger_image_as_pil_resamples_it(box, size):
    images = (noise(3, 24, 24, 3) * 255).byte()
    left, top, right, bottom = box
    sides = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    flipped = torch.tensor([False, True, False])
    own = boxes(*(one / 24 for one in sides), n=3)
    found = crop_and_shrink(to_float(images), own, flipped, size)
    for i, image in enumerate(images.numpy()):
        pil = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box)
        pil = ImageOps.mirror(pil) if flipped[i] else pil
        expected = to_float(torch.from_numpy(np.array(pil))[None])[0]
        # PIL rounds to grey levels after the rows and again after the columns.
        torch.testing.assert_close(found[i], expected, atol=1.01 / 255, rtol=0)


def test_a_box_that_does_not_shrink_is_cut_as_from_an_image_of_the_size_of_the_view():
    n, size = 200, 16
    x, flipped = noise(n, 3, size, size), torch.arange(n) % 2 == 0
    own = crop_boxes(n, Views(crop_area=(0.08, 1.0)), Draws(generator()))
    found = crop_and_shrink(x, own, flipped, size)
    torch.testing.assert_close(found, crop_and_flip(x, own, flipped), atol=1e-4, rtol=0)


def test_each_image_has_a_box_of_its_own():
    x, flipped = noise(5, 3, 24, 24), torch.tensor([True, False, True, False, True])
    own = crop_boxes(5, Views(crop_area=(0.08, 1.0)), Draws(generator()))
    both = crop_and_shrink(x, own, flipped, 10)
    for i in range(5):
        one = tuple(side[i : i + 1] for side in own)
        alone = crop_and_shrink(x[i : i + 1], one, flipped[i : i + 1], 10)
        torch.testing.assert_close(both[i : i + 1], alone)


def test_a_view_of_a_larger_image_is_that_box_at_its_size():
    images = (noise(6, 24, 24, 3) * 255).byte()
    cfg = only(crop_area=(0.3, 1.0), p_flip=0.5)
    found = augment(images, cfg, NO_STATISTICS, generator(), size=16)
    draws = Draws(generator())
    flipped = draws.uniform(0, 1, 6) < 0.5
    own = crop_boxes(6, cfg, draws)
    expected = crop_and_shrink(to_float(images), own, flipped, 16)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    # At its own size it is the view that it was before there was a choice.
    same = augment(images, cfg, NO_STATISTICS, generator(), size=24)
    assert same.equal(augment(images, cfg, NO_STATISTICS, generator()))
    assert found.shape == (6, 3, 16, 16) and same.shape == (6, 3, 24, 24)


def test_every_image_has_its_own_box_and_flip():
    x = noise(1, 3, 8, 8).expand(2, 3, 8, 8)
    box = tuple(torch.tensor(pair) for pair in ((0.5, 0.25), (0.5, 0.5), (1.0, 0.5), (1.0, 0.5)))
    flipped = torch.tensor([True, False])
    both = crop_and_flip(x, box, flipped)
    for i in range(2):
        alone = crop_and_flip(
            x[i : i + 1], tuple(value[i : i + 1] for value in box), flipped[i : i + 1]
        )
        torch.testing.assert_close(both[i], alone[0])


@pytest.mark.parametrize("crop_area", [(0.25, 0.7), (0.25, 1.0), (0.08, 1.0)])
def test_boxes_are_distributed_as_torchvision_draws_them(crop_area):
    n, size = 8000, 32
    x, y, width, height = crop_boxes(n, Views(crop_area=crop_area), Draws(generator()))
    torch.manual_seed(0)  # torchvision draws from the global generator
    image = torch.zeros(3, size, size)
    theirs = [
        RandomResizedCrop.get_params(image, list(crop_area), [3 / 4, 4 / 3]) for _ in range(n)
    ]
    top, left, tall, wide = torch.tensor(theirs).T / size
    share = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    pairs = {
        "area": (width * height, wide * tall),
        "log of aspect": ((width / height).log(), (wide / tall).log()),
        "centre x": (x, left + wide / 2),
        "centre y": (y, top + tall / 2),
    }
    for name, (ours, other) in pairs.items():
        assert ours.mean().item() == pytest.approx(other.mean().item(), abs=0.015), name
        # Theirs are whole pixels, so that quantiles move in steps of 1/32.
        gap = (ours.quantile(share) - other.quantile(share)).abs().max()
        assert gap <= 0.02 + 1 / size, name


@pytest.mark.parametrize("crop_area", [(0.25, 1.0), (0.05, 0.06), (1.0, 1.0)])
def test_boxes_lie_in_the_image(crop_area):
    x, y, width, height = crop_boxes(2000, Views(crop_area=crop_area), Draws(generator()))
    for centre, extent in ((x, width), (y, height)):
        assert (centre - extent / 2).min() >= -1e-6 and (centre + extent / 2).max() <= 1 + 1e-6
    assert (width * height).max() <= crop_area[1] + 1e-6


CHANGES = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
}


@pytest.mark.parametrize("name", CHANGES)
def test_jitter_as_torchvision_with_the_factor_it_drew(name):
    n, strength = 1500, 0.8
    x = noise(n, 3, 4, 4, low=0.3, high=0.55)  # so dim that nothing is clamped
    found = jitter(x, only(**{name: strength}, p_jitter=1), Draws(generator()))
    # Each of the three moves a pixel away from an anchor, or to it: anchor + factor (x - anchor).
    luma = grey(x)
    anchor = {
        "brightness": 0 * luma,
        "contrast": luma.mean((1, 2, 3), keepdim=True),
        "saturation": luma,
    }[name]
    moved, apart = (found - anchor).flatten(1), (x - anchor).flatten(1)
    factor = (moved * apart).sum(1) / apart.square().sum(1)
    for i in range(20):
        expected = CHANGES[name](x[i], factor[i].item())
        torch.testing.assert_close(found[i], expected, atol=1e-3, rtol=0)
    # uniform in 1 - strength .. 1 + strength
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(factor.quantile(share), 0.2 + 1.6 * share, atol=0.06, rtol=0)


def test_jitter_turns_hues_evenly_up_to_its_strength():
    n = 1500
    x = torch.tensor(colorsys.hsv_to_rgb(0.5, 0.6, 0.7)).view(1, 3, 1, 1).expand(n, 3, 1, 1)
    found = jitter(x, only(hue=0.4, p_jitter=1), Draws(generator())).flatten(1)
    hsv = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in found.tolist()])
    torch.testing.assert_close(hsv[:, 1:], torch.tensor([0.6, 0.7]).expand(n, 2), atol=1e-4, rtol=0)
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(hsv[:, 0].quantile(share), 0.1 + 0.8 * share, atol=0.03, rtol=0)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_jitter_leaves_its_share_of_images_alone(p):
    x = noise(2000, 3, 2, 2)
    found = jitter(x, Views(p_jitter=p), Draws(generator()))
    changed = ((found - x).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
    assert changed == pytest.approx(p, abs=0.03)


def test_jitter_stays_in_range():
    found = jitter(noise(500, 3, 3, 3), Views(p_jitter=1), Draws(generator()))
    assert found.min() >= 0 and found.max() <= 1


# With the same seed the same numbers are drawn whatever the shares are, so that a view with share 1
# is that change of the view with share 0.
SURE = {
    "p_flip": tv.horizontal_flip,
    "p_grey": lambda x: grey(x).expand(-1, 3, -1, -1),
    "p_solarize": lambda x: torch.where(x >= 0.5, 1 - x, x),
}


@pytest.mark.parametrize("name", SURE)
def test_share_of_one_changes_every_image_exactly(name):
    plain, changed = view(NOTHING), view(only(**{name: 1}))
    torch.testing.assert_close(changed, SURE[name](plain), atol=1e-5, rtol=0)
    assert (changed - plain).abs().amax((1, 2, 3)).min() > 0.1


def test_solarize_as_torchvision():
    plain, changed = view(NOTHING), view(only(p_solarize=1))
    torch.testing.assert_close(changed, tv.solarize(plain, 0.5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SURE)
def test_share_between_changes_that_share_of_images(name):
    plain, changed = view(NOTHING, n=1000), view(only(**{name: 0.3}), n=1000)
    share = ((plain - changed).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    "cfg",
    [
        only(crop_area=(0.25, 0.5)),
        only(brightness=0.8, p_jitter=1),
        only(contrast=0.8, p_jitter=1),
        only(saturation=0.8, p_jitter=1),
        only(hue=0.4, p_jitter=1),
    ],
    ids=["crop", "brightness", "contrast", "saturation", "hue"],
)
def test_copies_of_one_image_get_views_of_their_own(cfg):
    image = (noise(1, 12, 12, 3) * 255).byte()
    if cfg.p_jitter:
        image[:] = image[:, :1, :1]  # of one colour, so that its crops are all the same
    copies = image.expand(50, -1, -1, -1)
    found = augment(copies, cfg, NO_STATISTICS, generator())
    assert len(found.round(decimals=4).unique(dim=0)) == 50


def test_same_seed_same_views():
    assert torch.equal(view(Views(), seed=3), view(Views(), seed=3))
    assert not torch.equal(view(Views(), seed=3), view(Views(), seed=4))


def test_views_do_not_touch_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    view(Views())
    assert torch.equal(torch.get_rng_state(), before)


def test_augment_normalises_at_the_end():
    statistics = ChannelStatistics((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    images = (noise(4, 12, 12, 3) * 255).byte()
    plain, normal = (augment(images, Views(), s, generator()) for s in (NO_STATISTICS, statistics))
    torch.testing.assert_close(normal, normalise(plain, statistics))
    assert normal.dtype == torch.float32 and normal.shape == (4, 3, 12, 12)


class OfGPU:
    """Stands for a generator of a GPU, which tells its state without waiting for the GPU."""

    device = torch.device("cuda")

    def __init__(self, offset):
        self.offset = offset

    def get_state(self):
        return torch.tensor([7, self.offset], dtype=torch.uint8)


def test_nobody_waits_for_a_gpu_to_draw_an_order():
    orders = [Draws(OfGPU(i)).order(4) for i in range(20)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert orders[3] == Draws(OfGPU(3)).order(4)
    assert len({tuple(order) for order in orders}) > 5
