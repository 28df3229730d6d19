"""Interpolation: what is mixed, what an anchor's candidates share, and what the seed decides."""

import numpy as np
import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet, sample, sampling
from clsp_utils.diffusion import unet as halves
from clsp_utils.positives import interpolate
from clsp_utils.runtime import generator

ANCHORS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
STEPS = 4
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return build_unet(UNetShape(channels=(8, 16), groups=4), 8).eval()


def make(unet, mix_weight, k=3, anchors=ANCHORS, eta=None, seed=7):
    return interpolate(unet, anchors, mix_weight, k, STEPS, eta, seed, "fp32")


@pytest.fixture
def calls(monkeypatch):
    """What goes through the halves: `calls["anchor" | "noise" | "decode"]`, an entry per step."""
    seen = {"anchor": [], "noise": [], "decode": []}
    for module, branch in ((halves, "anchor"), (sampling, "noise")):

        def spy(net, x, t, labels=None, original=module.encode, branch=branch):
            features = original(net, x, t, labels)
            seen[branch].append((x.clone(), int(t), features))
            return features

        monkeypatch.setattr(module, "encode", spy)

    def decode(net, *features, original=sampling.decode):
        seen["decode"].append(features)
        return original(net, *features)

    monkeypatch.setattr(sampling, "decode", decode)
    return seen


def test_shape_and_dtype(unet):
    bank = make(unet, 0.1, k=2)
    assert bank.shape == (5, 2, 8, 8, 3) and bank.dtype == np.uint8


@pytest.mark.parametrize("eta", [0.0, 0.5, None])
def test_all_noise_is_plain_sampling_bit_for_bit(unet, eta):
    g = generator(7, "noise branch")
    noise = torch.randn(15, 3, 8, 8, generator=g)
    plain = sample(unet, noise, STEPS, eta, g, "fp32").numpy()
    assert np.array_equal(make(unet, 1.0, eta=eta), plain.reshape(5, 3, 8, 8, 3))
    assert not np.array_equal(make(unet, 0.5, eta=eta), plain.reshape(5, 3, 8, 8, 3))


@pytest.mark.parametrize("w", [0.0, 0.3])
def test_the_decoder_gets_the_mixed_middle_and_the_skips_of_the_noise_branch(unet, calls, w):
    make(unet, w)
    assert len(calls["decode"]) == STEPS
    for (_, t_anchor, anchor), (_, t, noise), (h, skips, temb) in zip(
        calls["anchor"], calls["noise"], calls["decode"], strict=True
    ):
        assert t_anchor == t
        h_anchor = anchor.h.repeat_interleave(3, 0)  # the k candidates of an anchor lie in a row
        if w == 0:
            assert torch.equal(h, h_anchor)
        torch.testing.assert_close(h, w * noise.h + (1 - w) * h_anchor)
        assert len(skips) == len(noise.skips) and all(map(torch.equal, skips, noise.skips))
        assert torch.equal(temb, noise.temb)


def test_candidates_of_an_anchor_share_its_encoding_and_differ(unet, calls):
    bank = make(unet, 0.1)
    assert [len(x) for x, *_ in calls["anchor"]] == [5] * STEPS
    assert [len(x) for x, *_ in calls["noise"]] == [15] * STEPS
    assert all(len(np.unique(row.reshape(3, -1), axis=0)) == 3 for row in bank)


def test_the_anchor_is_noised_to_each_step_with_fresh_noise(unet, calls):
    anchors = np.repeat(ANCHORS, 40, axis=0)  # enough pixels for statistics
    make(unet, 0.1, k=1, anchors=anchors)
    x0 = torch.from_numpy(anchors).permute(0, 3, 1, 2) / 127.5 - 1
    noises = []
    for x, t, _ in calls["anchor"]:
        a = ALPHA_BAR[t]
        noises.append(((x - a.sqrt() * x0) / (1 - a).sqrt()).flatten())
    # Standard normal and uncorrelated from step to step: 38,400 numbers, deviations of 1/196.
    torch.testing.assert_close(torch.stack(noises).cov(), torch.eye(STEPS), atol=0.04, rtol=0)
    assert max(noise.mean().abs() for noise in noises) < 0.03


def test_an_anchor_gets_its_own_candidates(unet):
    # Changing one anchor must change its row alone: batch mates do not leak into each other.
    changed = ANCHORS.copy()
    changed[2] = 255 - changed[2]
    differs = (make(unet, 0.0) != make(unet, 0.0, anchors=changed)).any((1, 2, 3, 4))
    assert differs.tolist() == [False, False, True, False, False]


def test_seed_decides_alone(unet):
    first = make(unet, 0.1)
    torch.manual_seed(99)
    assert np.array_equal(first, make(unet, 0.1))
    assert not np.array_equal(first, make(unet, 0.1, seed=8))
