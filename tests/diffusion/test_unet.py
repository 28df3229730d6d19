"""The cut through the UNet: both halves together are the UNet, and the middle can be changed."""

import math

import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.diffusion import (
    build_unet,
    decode,
    encode,
    encode_noised,
    mix,
    noise_schedule,
    pool,
)
from clsp_utils.runtime import generator

SHAPES = {
    "two levels": UNetShape(channels=(8, 16), groups=4),
    "two layers": UNetShape(channels=(8, 16), layers=2, groups=8),
    "attention on the second level": UNetShape(channels=(8, 16), attention=(8,), groups=4),
    "attention on every level": UNetShape(channels=(8, 16), attention=(16, 8), groups=2),
    "three levels, no grouping": UNetShape(channels=(4, 8, 8), layers=2, attention=(4,), groups=1),
    "four levels": UNetShape(channels=(8, 8, 16, 16), attention=(8, 2), groups=4),
}


def tiny_unet(shape: UNetShape):
    torch.manual_seed(0)
    return build_unet(shape, 16).eval()


@pytest.mark.parametrize("t", [0, 50, 999, torch.tensor(50), torch.tensor([0, 50, 999])], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_both_halves_are_the_unet(shape, t):
    unet, x = tiny_unet(shape), torch.randn(3, 3, 16, 16)
    assert torch.equal(decode(unet, *encode(unet, x, t)), unet(x, t).sample)


@torch.no_grad()
def test_compiled_halves_are_traced_as_a_whole_and_are_the_same():
    unet, x = tiny_unet(SHAPES["two levels"]), torch.randn(3, 3, 16, 16)
    t = torch.tensor([0, 50, 999])
    # What runs on CUDA; the backend "eager" traces and needs no compiler.
    first, second = (
        torch.compile(half.__wrapped__, backend="eager", fullgraph=True)
        for half in (encode, decode)
    )
    assert torch.equal(second(unet, *first(unet, x, t)), unet(x, t).sample)


@torch.no_grad()
def test_features_have_the_shapes_of_the_middle_and_of_every_skip():
    unet = tiny_unet(SHAPES["two layers"])
    features = encode(unet, torch.randn(3, 3, 16, 16), 50)
    assert features.h.shape == (3, 16, 8, 8)
    # conv_in; two blocks and the downsampling of level 1; two blocks of level 2.
    expected = [(8, 16), (8, 16), (8, 16), (8, 8), (16, 8), (16, 8)]
    assert [(s.shape[1], s.shape[2]) for s in features.skips] == expected
    assert SHAPES["two layers"].n_skips == len(expected)
    assert features.temb.shape == (3, 32)


@pytest.mark.parametrize("part", ["h", "skips", "temb"])
@torch.no_grad()
def test_the_decoder_reads_each_feature(part):
    unet = tiny_unet(SHAPES["two levels"])
    features = encode(unet, torch.randn(2, 3, 16, 16), 500)
    silent = {
        "h": torch.zeros_like(features.h),
        "skips": tuple(map(torch.zeros_like, features.skips)),
        "temb": torch.zeros_like(features.temb),
    }
    changed = decode(unet, *features._replace(**{part: silent[part]}))
    assert (changed - decode(unet, *features)).abs().max() > 1e-3


@torch.no_grad()
def test_training_reaches_both_halves_alike():
    # encode and decode must not leave dropout or gradients of one half out.
    unet = tiny_unet(UNetShape(channels=(8, 16), groups=4, dropout=0.5)).train()
    x = torch.randn(2, 3, 16, 16)
    torch.manual_seed(1)
    halves = decode(unet, *encode(unet, x, 50))
    torch.manual_seed(1)
    assert torch.equal(halves, unet(x, 50).sample)


@pytest.mark.parametrize("t", [0, 300, 999])
@torch.no_grad()
def test_encode_noised_is_noising_and_encoding_by_hand(t):
    unet, x0 = tiny_unet(SHAPES["two levels"]), torch.rand(3, 3, 16, 16) * 2 - 1
    found = encode_noised(unet, x0, t, generator(5, "noise"))
    noise = torch.randn(3, 3, 16, 16, generator=generator(5, "noise"))
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[t]
    x = (alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise).float()
    expected = encode(unet, x, t)
    torch.testing.assert_close(found.h, expected.h, atol=1e-5, rtol=1e-4)
    assert len(found.skips) == len(expected.skips)
    for one, other in zip(found.skips, expected.skips):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.temb, expected.temb)
    # Bit for bit it is the schedule's noising, with a step per image.
    steps = torch.full((3,), t)
    same = encode(unet, noise_schedule().add_noise(x0, noise, steps), steps)
    assert torch.equal(found.h, same.h) and all(map(torch.equal, found.skips, same.skips))


@torch.no_grad()
def test_encode_noised_draws_fresh_noise_at_each_call():
    unet, x0 = tiny_unet(SHAPES["two levels"]), torch.zeros(2, 3, 16, 16)
    g = generator(5, "noise")
    first, second = encode_noised(unet, x0, 500, g), encode_noised(unet, x0, 500, g)
    assert not torch.equal(first.h, second.h)
    assert torch.equal(first.h, encode_noised(unet, x0, 500, generator(5, "noise")).h)


# Very different sizes, where a*w + b*(1 - w) in floating point would lose the smaller one.
H = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 1e4
ANCHOR = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * 1e-4


def test_mix_is_exact_at_both_ends():
    assert torch.equal(mix(H, ANCHOR, 1.0), H)
    assert torch.equal(mix(H, ANCHOR, 0.0), ANCHOR)


@pytest.mark.parametrize("w", [0.1, 0.5, 0.9])
def test_mix_weight_is_the_share_of_the_noise_branch(w):
    torch.testing.assert_close(mix(H, ANCHOR, w), w * H + (1 - w) * ANCHOR)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_pool_against_a_slow_loop(size):
    h = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    # A cell starts at the pixel it begins in and ends with the one it ends in (cells may overlap).
    edges = [(i * 8 // size, math.ceil((i + 1) * 8 / size)) for i in range(size)]
    slow = torch.tensor(
        [
            [
                image[c, top:bottom, left:right].mean().item()
                for c in range(3)
                for top, bottom in edges
                for left, right in edges
            ]
            for image in h
        ]
    )
    torch.testing.assert_close(pool(h, size), slow)


def test_pool_of_half_precision_is_fp32():
    assert pool(torch.ones(1, 2, 4, 4, dtype=torch.bfloat16), 2).dtype == torch.float32
