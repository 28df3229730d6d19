"""Candidates: what is mixed, what is shared, and a bank that survives a kill."""

import numpy as np
import pytest
import torch

from clsp_utils import candidates, diffusion, training
from clsp_utils.candidates import class_samples, fill_bank, interpolate, open_bank
from clsp_utils.config import UNet

ANCHORS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
STEPS = 4
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return diffusion.build_unet(UNet(channels=(8, 16), groups=4), 8).eval()


def make(unet, mix_weight, k=3, anchors=ANCHORS, eta=None, seed=7):
    return interpolate(unet, anchors, mix_weight, k, STEPS, eta, seed, "fp32")


@pytest.fixture
def calls(monkeypatch):
    """What goes through the two halves: `calls["anchor" | "noise" | "decode"]`, an entry a step."""
    seen = {"anchor": [], "noise": [], "decode": []}
    for module, branch in ((candidates, "anchor"), (diffusion, "noise")):
        def spy(net, x, t, labels=None, original=module.encode, branch=branch):
            features = original(net, x, t, labels)
            seen[branch].append((x.clone(), int(t), features))
            return features

        monkeypatch.setattr(module, "encode", spy)

    def decode(net, *features, original=diffusion.decode):
        seen["decode"].append(features)
        return original(net, *features)

    monkeypatch.setattr(diffusion, "decode", decode)
    return seen


def test_shape_and_dtype(unet):
    bank = make(unet, 0.1, k=2)
    assert bank.shape == (5, 2, 8, 8, 3) and bank.dtype == np.uint8


@pytest.mark.parametrize("eta", [0.0, 0.5, None])
def test_all_noise_is_plain_sampling_bit_for_bit(unet, eta):
    g = training.generator(7, "noise branch")
    noise = torch.randn(15, 3, 8, 8, generator=g)
    plain = diffusion.sample(unet, noise, STEPS, eta, g, "fp32").numpy()
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


# Bank -------------------------------------------------------------------------------------------

BATCH = 2  # 5 anchors: batches of 2, 2, 1


def bank_in(folder, unet, worlds=((0, 1),)):
    folder.mkdir(exist_ok=True)
    open_bank(folder, len(ANCHORS), 2, BATCH, ANCHORS.shape[1:])
    for rank, world in worlds:
        fill_bank(folder, lambda rows, seed: candidates.interpolate(
            unet, ANCHORS[rows], 0.1, 2, STEPS, 0.5, seed, "fp32"), BATCH, 0, rank, world)
    return np.load(folder / "bank.npy", mmap_mode="r")


def test_bank_is_a_memory_mapped_file_with_every_row(unet, tmp_path):
    bank = bank_in(tmp_path, unet)
    assert isinstance(bank, np.memmap)
    assert bank.shape == (5, 2, 8, 8, 3) and bank.dtype == np.uint8
    for i, rows in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        seed = training.seed_for(0, "bank", i)
        expected = interpolate(unet, ANCHORS[rows], 0.1, 2, STEPS, 0.5, seed, "fp32")
        assert np.array_equal(bank[rows], expected)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_resumed_bank_equals_uninterrupted_bit_for_bit(unet, tmp_path, monkeypatch, after):
    unbroken = bank_in(tmp_path / "unbroken", unet)
    sizes = []

    def counted(net, anchors, *rest):
        if len(sizes) == after:
            raise Killed
        sizes.append(len(anchors))
        return interpolate(net, anchors, *rest)

    monkeypatch.setattr(candidates, "interpolate", counted)
    with pytest.raises(Killed):
        bank_in(tmp_path / "resumed", unet)
    after = None  # let the next run finish
    resumed = bank_in(tmp_path / "resumed", unet)
    assert sizes == [2, 2, 1]  # no batch was made twice
    assert np.array_equal(resumed, unbroken)


@pytest.mark.parametrize("missing", ["bank.npy", "done.npy"])
def test_half_of_a_bank_starts_anew(unet, tmp_path, missing):
    unbroken = np.array(bank_in(tmp_path, unet))
    (tmp_path / missing).unlink()
    assert np.array_equal(bank_in(tmp_path, unet), unbroken)


def test_a_bank_does_not_depend_on_how_many_fill_it(unet, tmp_path, monkeypatch):
    unbroken = bank_in(tmp_path / "one", unet)
    sizes = []

    def counted(net, anchors, *rest):
        sizes.append(len(anchors))
        return interpolate(net, anchors, *rest)

    monkeypatch.setattr(candidates, "interpolate", counted)
    # The third of three fills its part, is cut off from the others, and one goes on alone.
    assert np.array_equal(bank_in(tmp_path / "more", unet, worlds=((2, 3), (1, 3), (0, 1))), unbroken)
    assert sizes == [1, 2, 2]  # nothing twice


# Class positives --------------------------------------------------------------------------------


@pytest.fixture
def conditional():
    torch.manual_seed(0)
    unet = diffusion.build_unet(UNet(channels=(8, 16), groups=4), 8, n_classes=3).eval()
    torch.nn.init.normal_(unet.class_embedding.weight, std=3)  # classes that differ
    return unet


def test_guidance_against_its_equation(conditional):
    labels, g = torch.tensor([0, 2]), training.generator(0)
    noise = torch.randn(2, 3, 8, 8, generator=g)
    found = diffusion.sample(conditional, noise, 2, 0.0, g, "fp32", labels=labels, guidance=1.5)
    x, nobody = noise, torch.tensor([3, 3])
    with torch.no_grad():
        for t, before in ((999, 499), (499, None)):
            with_class, without = (conditional(x, t, class_labels=c).sample for c in (labels, nobody))
            eps = with_class + 1.5 * (with_class - without)
            a, a_before = ALPHA_BAR[t], ALPHA_BAR[before] if before else torch.tensor(1.0)
            x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
            x = a_before.sqrt() * x0 + (1 - a_before).sqrt() * eps
    assert (found.int() - diffusion.to_uint8(x).int()).abs().max() <= 1  # rounding


def test_class_samples_depend_on_the_label_alone(conditional):
    make = lambda labels: class_samples(conditional, np.array(labels), 2, STEPS, 0.5, 1.0, 7, "fp32")  # noqa: E731
    first, other = make([0, 1, 2]), make([0, 2, 2])
    assert first.shape == (3, 2, 8, 8, 3) and first.dtype == np.uint8
    assert (first != other).any((1, 2, 3, 4)).tolist() == [False, True, False]
    assert not np.array_equal(first[0, 0], first[0, 1])
