"""Training of the diffusion model: its loss weight, its pairs, its log, and that it resumes."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from clsp_utils import runtime
from clsp_utils.config import Diffusion, UNetShape
from clsp_utils.diffusion import build_unet, decode, encode, min_snr_weight, noise_schedule, train

TINY = UNetShape(channels=(8, 16), groups=4)
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weight_in_closed_form(gamma):
    t = torch.tensor([0, 50, 200, 500, 999])
    weight = min_snr_weight(noise_schedule(), t, gamma)
    snr = ALPHA_BAR[t] / (1 - ALPHA_BAR[t])
    torch.testing.assert_close(weight.double(), (gamma / snr).clamp(max=1), rtol=1e-3, atol=0)


def test_min_snr_weight_without_gamma_is_one():
    weight = min_snr_weight(noise_schedule(), torch.tensor([0, 999]), 0)
    assert torch.equal(weight, torch.ones(2))


# Dropout and flips draw random numbers too, so that a resumed run must find those again.
CFG = Diffusion(
    unet=dataclasses.replace(TINY, dropout=0.1),
    steps=12,
    batch=4,
    lr=2e-3,
    warmup=3,
    ema_decay=0.9,
    flip=True,
)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def test_training_lowers_the_loss(tmp_path):
    colours = np.repeat(np.repeat(IMAGES[:, :1, :1], 8, 1), 8, 2)  # plain images: quickly learnt
    cfg = dataclasses.replace(CFG, steps=30, batch=32, lr=5e-3)
    _, losses = train(cfg, colours, 0, tmp_path, "fp32")
    assert losses.shape == (30,)
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()


def test_pairs_of_one_image_under_two_noises_exchange_their_middles(tmp_path, monkeypatch):
    # The room hands on the function `train` under the name of its module.
    module, seen = importlib.import_module("clsp_utils.diffusion.train"), {}

    def spy(name, function):
        def call(*arguments):
            seen[name] = arguments, function(*arguments)
            return seen[name][1]

        return call

    for name, function in (("encode", encode), ("decode", decode)):
        monkeypatch.setattr(module, name, spy(name, function))
    cfg = dataclasses.replace(CFG, steps=1, batch=32, second_noise=0.75, silent_middle=0.25)
    train(cfg, IMAGES, 0, tmp_path, "fp32")
    (_, x, t, _), features = seen["encode"]
    (_, h, *_), _ = seen["decode"]
    assert torch.equal(t[:12], t[12:24])
    # The image cancels; what is left is the difference of two draws of noise.
    difference = (x[:12] - x[12:24]) / (2 * (1 - ALPHA_BAR[t[:12]])).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(
        difference.std((1, 2, 3)), torch.ones(12, dtype=difference.dtype), atol=0.2, rtol=0
    )
    assert torch.equal(h, torch.cat([features.h[12:24], features.h[:12], torch.zeros_like(h[24:])]))


@pytest.mark.parametrize("share, same", [(1.0, True), (0.5, False)])
def test_a_silent_middle_learns_nothing(tmp_path, share, same):
    torch.manual_seed(runtime.seed_for(0, "unet weights"))
    before = build_unet(CFG.unet, 8).mid_block.resnets[0].conv1.weight.flatten()
    cfg = dataclasses.replace(CFG, ema_decay=0.0, second_noise=0.0, silent_middle=share)
    unet, _ = train(cfg, IMAGES, 0, tmp_path, "fp32")
    after = unet.mid_block.resnets[0].conv1.weight.flatten()
    cosine = torch.cosine_similarity(before.double(), after.double(), dim=0).item()
    assert (cosine > 1 - 1e-9) == same  # weight decay alone shortens it and does not turn it


def test_the_log_has_a_row_per_epoch_and_one_for_what_is_left(tmp_path):
    _, losses = train(CFG, IMAGES, 0, tmp_path, "fp32")  # 12 steps, 5 per epoch
    header, *rows = (line.split(",") for line in (tmp_path / "log.csv").read_text().split())
    assert header == ["epoch", "loss", "lr"] and [row[0] for row in rows] == ["1", "2", "3"]
    expected = [losses[:5].mean(), losses[5:10].mean(), losses[10:].mean()]
    np.testing.assert_allclose([float(row[1]) for row in rows], expected, atol=1e-5)
    expected = [CFG.lr * runtime.warmup_cosine(step, 12, CFG.warmup) for step in (4, 9, 11)]
    np.testing.assert_allclose([float(row[2]) for row in rows], expected, rtol=1e-5)


def test_a_constant_schedule_keeps_the_rate_after_the_warm_up(tmp_path):
    cosine = train(CFG, IMAGES, 0, tmp_path / "cosine", "fp32")[1]
    cfg = dataclasses.replace(CFG, schedule="constant")
    constant = train(cfg, IMAGES, 0, tmp_path / "constant", "fp32")[1]
    rows = (tmp_path / "constant" / "log.csv").read_text().split()[1:]
    assert [float(row.split(",")[2]) for row in rows] == [CFG.lr] * 3
    # Step 3 has the full rate in both; the loss of step 5 is the first that shows a lower one.
    assert np.array_equal(cosine[:5], constant[:5]) and not np.array_equal(cosine[5:], constant[5:])


def test_training_returns_the_average_and_depends_on_the_seed(tmp_path):
    runs = {
        name: train(dataclasses.replace(CFG, **change), IMAGES, seed, tmp_path / name, "fp32")
        for name, change, seed in [
            ("a", {}, 0),
            ("b", {}, 1),
            ("no average", {"ema_decay": 0.0}, 0),
        ]
    }
    weights = {
        name: torch.nn.utils.parameters_to_vector(unet.parameters())
        for name, (unet, _) in runs.items()
    }
    assert not runs["a"][0].training
    assert not np.array_equal(runs["a"][1], runs["b"][1])
    # The average is what is returned, not what is trained: the loss does not know of it.
    assert np.array_equal(runs["a"][1], runs["no average"][1])
    assert not torch.equal(weights["a"], weights["no average"])


@pytest.mark.parametrize(("saved", "precision"), [(0, "fp32"), (3, "fp32"), (5, "bf16")])
def test_resumed_training_equals_uninterrupted_bit_for_bit(
    tmp_path, monkeypatch, killed, saved, precision
):
    unbroken, losses = train(CFG, IMAGES, 0, tmp_path / "unbroken", precision)
    with killed(after=5, saved=saved):
        train(CFG, IMAGES, 0, tmp_path / "resumed", precision)

    steps = []
    original = runtime.Checkpoint.after_step
    monkeypatch.setattr(
        runtime.Checkpoint,
        "after_step",
        lambda self, step, *rest: (steps.append(step), original(self, step, *rest)),
    )
    torch.manual_seed(123)  # a new process has another global state
    resumed, resumed_losses = train(CFG, IMAGES, 0, tmp_path / "resumed", precision)

    assert steps == list(range(saved, 12))  # it did go on, rather than start anew
    assert np.array_equal(losses, resumed_losses)
    expected, found = unbroken.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_loss_that_is_not_finite_stops_training(tmp_path):
    cfg = dataclasses.replace(CFG, lr=1e30, clip=1e30)
    with pytest.raises(runtime.Diverged, match="lower diffusion.lr"):
        train(cfg, IMAGES, 0, tmp_path, "fp32")
    with pytest.raises(runtime.Diverged, match="lower class_diffusion.lr"):
        train(cfg, IMAGES, 0, tmp_path / "by class", "fp32", np.arange(20) % 3)
