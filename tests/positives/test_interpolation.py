"""Interpolation: what is mixed, what an anchor's candidates share, and what the seed decides."""

import numpy as np
import pytest
import torch

from clsp_utils.config import ConfigError, UNetShape
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


def make(unet, mix_weight, k=3, anchors=ANCHORS, eta=None, seed=7, mix_below=1000, mix_skips=0):
    how = (mix_weight, mix_below, k, STEPS, eta, seed, "fp32", mix_skips)
    return interpolate(unet, anchors, *how)


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


@pytest.mark.parametrize("mix_skips", [0, 1, 3, 4])  # 4 are all
@pytest.mark.parametrize("w", [0.0, 0.3])
def test_the_decoder_gets_the_mixed_middle_and_so_many_mixed_skips(unet, calls, w, mix_skips):
    make(unet, w, mix_skips=mix_skips)
    assert len(calls["decode"]) == STEPS
    for (_, t_anchor, anchor), (_, t, noise), (h, skips, temb) in zip(
        calls["anchor"], calls["noise"], calls["decode"], strict=True
    ):
        assert t_anchor == t
        h_anchor = anchor.h.repeat_interleave(3, 0)  # the k candidates of an anchor lie in a row
        if w == 0:
            assert torch.equal(h, h_anchor)
        torch.testing.assert_close(h, w * noise.h + (1 - w) * h_anchor)
        assert len(skips) == len(noise.skips) == 4
        assert all(map(torch.equal, skips[: 4 - mix_skips], noise.skips))
        for i in range(1, mix_skips + 1):  # from the innermost, which the encoder made last
            of_anchor = anchor.skips[-i].repeat_interleave(3, 0)
            torch.testing.assert_close(skips[-i], w * noise.skips[-i] + (1 - w) * of_anchor)
        assert torch.equal(temb, noise.temb)


TIMES = {"DPM-Solver++": [999, 603, 73, 0], "DDIM": [999, 749, 499, 249]}


@pytest.mark.parametrize("mix_below", [1, 74, 500, 999, 1000])
@pytest.mark.parametrize("sampler, eta", [("DPM-Solver++", None), ("DDIM", 0.5)])
def test_the_anchor_takes_part_at_the_time_steps_below_a_bound(
    unet, calls, sampler, eta, mix_below
):
    make(unet, 0.3, eta=eta, mix_below=mix_below)
    times = [t for _, t, _ in calls["noise"]]
    assert times == TIMES[sampler]
    assert [t for _, t, _ in calls["anchor"]] == [t for t in times if t < mix_below]
    anchors = {t: features.h.repeat_interleave(3, 0) for _, t, features in calls["anchor"]}
    for (_, t, noise), (h, *_) in zip(calls["noise"], calls["decode"], strict=True):
        if t < mix_below:
            torch.testing.assert_close(h, 0.3 * noise.h + 0.7 * anchors[t])
        else:
            assert torch.equal(h, noise.h)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("w", [0.0, 0.3])
def test_a_bound_below_all_time_steps_is_plain_sampling_bit_for_bit(unet, w, eta):
    plain = make(unet, 1.0, eta=eta)
    assert np.array_equal(make(unet, w, eta=eta, mix_below=1), plain)
    assert np.array_equal(make(unet, w, eta=eta, mix_below=249), plain)
    assert not np.array_equal(make(unet, w, eta=eta, mix_below=250), plain)


@torch.no_grad()
def slowly(unet, mix_weight, mix_below, mix_skips, k, eta, seed):
    """Candidates by DDIM written from its equations (arXiv 2010.02502), an anchor at a time."""
    g, of_anchors = generator(seed, "noise branch"), generator(seed, "anchor noise")
    anchors = torch.from_numpy(ANCHORS).permute(0, 3, 1, 2) / 127.5 - 1
    x = torch.randn(len(anchors) * k, 3, 8, 8, generator=g)
    for t in (999, 749, 499, 249):
        a = ALPHA_BAR[t]
        a_before = ALPHA_BAR[t - 250] if t >= 250 else torch.tensor(1.0)
        h, skips, temb = halves.encode(unet, x, t)
        if t < mix_below:
            noised = torch.randn(anchors.shape, generator=of_anchors)
            for i, anchor in enumerate(anchors):
                own = halves.encode(unet, (a.sqrt() * anchor + (1 - a).sqrt() * noised[i])[None], t)
                for j in range(i * k, (i + 1) * k):
                    h[j] = mix_weight * h[j] + (1 - mix_weight) * own.h[0]
                    for s in range(1, mix_skips + 1):
                        mixed = mix_weight * skips[-s][j] + (1 - mix_weight) * own.skips[-s][0]
                        skips[-s][j] = mixed
        eps = halves.decode(unet, h, skips, temb)
        x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        sigma = eta * ((1 - a_before) / (1 - a) * (1 - a / a_before)).sqrt()
        x = a_before.sqrt() * x0 + (1 - a_before - sigma**2).sqrt() * eps
        x = x + sigma * torch.randn(x.shape, generator=g)
    x = ((x.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)
    return x.view(len(anchors), k, 8, 8, 3).numpy()


@pytest.mark.parametrize("mix_skips", [0, 2])
@pytest.mark.parametrize("mix_below", [249, 250, 499, 500, 749, 1000])
def test_candidates_against_a_slow_loop(unet, mix_below, mix_skips):
    found = make(unet, 0.3, k=2, eta=0.5, mix_below=mix_below, mix_skips=mix_skips)
    expected = slowly(unet, 0.3, mix_below, mix_skips, 2, 0.5, 7)
    assert np.abs(found.astype(int) - expected).max() <= 1  # rounding
    assert (found == expected).mean() > 0.99
    # Enough shades that a step, or a skip connection, more or less with the anchor would show.
    others = [slowly(unet, 0.3, {249: 1000}.get(mix_below, 249), mix_skips, 2, 0.5, 7)]
    if mix_below > 249:
        others.append(slowly(unet, 0.3, mix_below, mix_skips + 1, 2, 0.5, 7))
    for other in others:
        assert np.abs(found.astype(int) - other).max() > 3


def test_more_skips_than_there_are_is_refused(unet):
    with pytest.raises(ConfigError, match="^mix_skips=5: this UNet has 4 skip connections.$"):
        make(unet, 0.3, mix_skips=5)


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
