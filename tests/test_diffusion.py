"""Diffusion: ranges, loss weight, training that resumes, and DDIM against its equations."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from clsp_utils import diffusion, training
from clsp_utils.bottleneck import decode, encode
from clsp_utils.config import Diffusion, UNet

TINY = UNet(channels=(8, 16), groups=4)
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def tiny_unet():
    torch.manual_seed(0)
    unet = diffusion.build_unet(TINY, 8).eval()
    with torch.no_grad():
        unet.conv_out.weight.mul_(3)  # predictions about as large as noise, few pixels saturated
    return unet


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# Ranges -----------------------------------------------------------------------------------------

ALL_VALUES = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)


def test_ranges_round_trip_every_value():
    x = diffusion.to_diffusion_range(ALL_VALUES)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(diffusion.to_uint8(x), ALL_VALUES)


@pytest.mark.parametrize("offset", [-0.4, 0.4])
def test_to_uint8_rounds_to_the_nearest(offset):
    x = diffusion.to_diffusion_range(ALL_VALUES) + offset / 127.5
    assert torch.equal(diffusion.to_uint8(x), ALL_VALUES)


def test_ranges_keep_pixels_and_channels_in_place_and_clip():
    images = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    images[1, 2, 3, 0] = 255
    x = diffusion.to_diffusion_range(images)
    assert x[1, 0, 2, 3] == 1 and x.sum() == 2 - x.numel()
    assert torch.equal(diffusion.to_uint8(3 * x), images)


# Training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weight_in_closed_form(gamma):
    t = torch.tensor([0, 50, 200, 500, 999])
    weight = diffusion.min_snr_weight(DDPMScheduler(**diffusion.NOISE), t, gamma)
    snr = ALPHA_BAR[t] / (1 - ALPHA_BAR[t])
    torch.testing.assert_close(weight.double(), (gamma / snr).clamp(max=1), rtol=1e-3, atol=0)


def test_min_snr_weight_without_gamma_is_one():
    weight = diffusion.min_snr_weight(DDPMScheduler(**diffusion.NOISE), torch.tensor([0, 999]), 0)
    assert torch.equal(weight, torch.ones(2))


# Dropout and flips draw random numbers too, so that a resumed run must find those again.
CFG = Diffusion(
    unet=dataclasses.replace(TINY, dropout=0.1), steps=12, batch=4, lr=2e-3, warmup=3, ema_decay=0.9, flip=True
)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def test_training_lowers_the_loss(tmp_path):
    colours = np.repeat(np.repeat(IMAGES[:, :1, :1], 8, 1), 8, 2)  # plain images: quickly learnt
    cfg = dataclasses.replace(CFG, steps=30, batch=32, lr=5e-3)
    _, losses = diffusion.train(cfg, colours, 0, tmp_path, "fp32")
    assert losses.shape == (30,)
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()


def test_pairs_of_one_image_under_two_noises_exchange_their_middles(tmp_path, monkeypatch):
    seen = {}

    def spy(name, function):
        def call(*arguments):
            seen[name] = arguments, function(*arguments)
            return seen[name][1]
        return call

    for name, function in (("encode", encode), ("decode", decode)):
        monkeypatch.setattr(diffusion, name, spy(name, function))
    cfg = dataclasses.replace(CFG, steps=1, batch=32, second_noise=0.75, silent_middle=0.25)
    diffusion.train(cfg, IMAGES, 0, tmp_path, "fp32")
    (_, x, t, _), features = seen["encode"]
    (_, h, *_), _ = seen["decode"]
    assert torch.equal(t[:12], t[12:24])
    # The image cancels; what is left is the difference of two draws of noise.
    difference = (x[:12] - x[12:24]) / (2 * (1 - ALPHA_BAR[t[:12]])).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(difference.std((1, 2, 3)), torch.ones(12, dtype=difference.dtype), atol=0.2, rtol=0)
    assert torch.equal(h, torch.cat([features.h[12:24], features.h[:12], torch.zeros_like(h[24:])]))


@pytest.mark.parametrize("share, same", [(1.0, True), (0.5, False)])
def test_a_silent_middle_learns_nothing(tmp_path, share, same):
    torch.manual_seed(training.seed_for(0, "unet weights"))
    before = diffusion.build_unet(CFG.unet, 8).mid_block.resnets[0].conv1.weight.flatten()
    cfg = dataclasses.replace(CFG, ema_decay=0.0, second_noise=0.0, silent_middle=share)
    unet, _ = diffusion.train(cfg, IMAGES, 0, tmp_path, "fp32")
    after = unet.mid_block.resnets[0].conv1.weight.flatten()
    cosine = torch.cosine_similarity(before.double(), after.double(), dim=0).item()
    assert (cosine > 1 - 1e-9) == same  # weight decay alone shortens it and does not turn it


def test_the_log_has_a_row_an_epoch_and_one_for_what_is_left(tmp_path):
    _, losses = diffusion.train(CFG, IMAGES, 0, tmp_path, "fp32")  # 12 steps, 5 an epoch
    header, *rows = (line.split(",") for line in (tmp_path / "log.csv").read_text().split())
    assert header == ["epoch", "loss", "lr"] and [row[0] for row in rows] == ["1", "2", "3"]
    expected = [losses[:5].mean(), losses[5:10].mean(), losses[10:].mean()]
    np.testing.assert_allclose([float(row[1]) for row in rows], expected, atol=1e-5)
    expected = [CFG.lr * training.warmup_cosine(step, 12, CFG.warmup) for step in (4, 9, 11)]
    np.testing.assert_allclose([float(row[2]) for row in rows], expected, rtol=1e-5)


def test_training_returns_the_average_and_depends_on_the_seed(tmp_path):
    runs = {
        name: diffusion.train(dataclasses.replace(CFG, **change), IMAGES, seed, tmp_path / name, "fp32")
        for name, change, seed in [("a", {}, 0), ("b", {}, 1), ("no average", {"ema_decay": 0.0}, 0)]
    }
    weights = {name: torch.nn.utils.parameters_to_vector(unet.parameters()) for name, (unet, _) in runs.items()}
    assert not runs["a"][0].training
    assert not np.array_equal(runs["a"][1], runs["b"][1])
    # The average is what is returned, not what is trained: the loss does not know of it.
    assert np.array_equal(runs["a"][1], runs["no average"][1])
    assert not torch.equal(weights["a"], weights["no average"])


@pytest.mark.parametrize(("saved", "precision"), [(0, "fp32"), (3, "fp32"), (5, "bf16")])
def test_resumed_training_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, killed, saved, precision):
    unbroken, losses = diffusion.train(CFG, IMAGES, 0, tmp_path / "unbroken", precision)
    with killed(after=5, saved=saved):
        diffusion.train(CFG, IMAGES, 0, tmp_path / "resumed", precision)

    steps = []
    original = training.Checkpoint.after_step
    monkeypatch.setattr(
        training.Checkpoint, "after_step", lambda self, step, *rest: (steps.append(step), original(self, step, *rest))
    )
    torch.manual_seed(123)  # a new process has another global state
    resumed, resumed_losses = diffusion.train(CFG, IMAGES, 0, tmp_path / "resumed", precision)

    assert steps == list(range(saved, 12))  # it did go on, rather than start anew
    assert np.array_equal(losses, resumed_losses)
    expected, found = unbroken.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_loss_that_is_not_finite_stops_training(tmp_path):
    cfg = dataclasses.replace(CFG, lr=1e30, clip=1e30)
    with pytest.raises(training.Diverged, match="diffusion.lr"):
        diffusion.train(cfg, IMAGES, 0, tmp_path, "fp32")


# Sampling ---------------------------------------------------------------------------------------


@torch.no_grad()
def ddim(unet, noise, steps, eta, g):
    """DDIM written from its equations (arXiv 2010.02502, eq. 12 and 16), in fp64."""
    gap, x = 1000 // steps, noise.double()
    for t in range(999, -1, -gap):
        a, a_prev = ALPHA_BAR[t], ALPHA_BAR[t - gap] if t >= gap else torch.tensor(1.0, dtype=torch.float64)
        eps = unet(x.float(), t).sample.double()
        x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
        x = a_prev.sqrt() * x0 + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * eps
        if eta > 0:
            x = x + sigma * torch.randn(noise.shape, generator=g)
    return x


@pytest.mark.parametrize("steps", [1, 4, 25])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_sample_against_the_equations(steps, eta):
    unet, noise = tiny_unet(), torch.randn(3, 3, 8, 8, generator=seeded(1))
    sampled = diffusion.sample(unet, noise, steps, eta, seeded(2), "fp32")
    x = ddim(unet, noise, steps, eta, seeded(2))
    expected = ((x + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)

    assert sampled.dtype == torch.uint8 and sampled.shape == (3, 8, 8, 3)
    assert (sampled.double() - expected).abs().max() <= 1
    if steps > 1:  # one step from pure noise saturates; more steps must show shades, or little is compared
        assert ((sampled > 0) & (sampled < 255)).float().mean() > 0.25


@torch.no_grad()
def dpm_solver(unet, noise, steps, g):
    """SDE-DPM-Solver++ (2M) written from its equations (arXiv 2211.01095, sections 5 and 6), in fp64.

    lambda = log(alpha / sigma) rises in equal steps from t = 999 to t = 0; the last step, to
    sigma = 0, is of first order.
    """
    all_lambdas = 0.5 * torch.log(ALPHA_BAR / (1 - ALPHA_BAR))
    lambdas = torch.linspace(all_lambdas[999], all_lambdas[0], steps, dtype=torch.float64)
    alpha, sigma = torch.sigmoid(2 * lambdas).sqrt(), torch.sigmoid(-2 * lambdas).sqrt()
    x, before = noise.double(), None
    for i in range(steps):
        t = int((all_lambdas - lambdas[i]).abs().argmin())
        eps = unet(x.float(), t).sample.double()
        x0 = ((x - sigma[i] * eps) / alpha[i]).clamp(-1, 1)
        z = torch.randn(noise.shape, generator=g)
        if i == steps - 1:
            return x0
        h = lambdas[i + 1] - lambdas[i]
        estimate = x0 if before is None else x0 + 0.5 * (x0 - before)  # linear extrapolation by half a step
        decay = torch.exp(-2 * h)
        x = sigma[i + 1] / sigma[i] * torch.exp(-h) * x + alpha[i + 1] * (1 - decay) * estimate
        x = x + sigma[i + 1] * (1 - decay).sqrt() * z
        before = x0


@pytest.mark.parametrize("steps", [1, 2, 10, 25])
def test_default_sampler_against_the_equations(steps):
    unet, noise = tiny_unet(), torch.randn(3, 3, 8, 8, generator=seeded(1))
    sampled = diffusion.sample(unet, noise, steps, None, seeded(2), "fp32")
    expected = ((dpm_solver(unet, noise, steps, seeded(2)) + 1) * 127.5).round().permute(0, 2, 3, 1)
    assert (sampled.double() - expected).abs().max() <= 1
    if steps > 1:
        assert ((sampled > 0) & (sampled < 255)).float().mean() > 0.1


def test_sample_leaves_its_noise_alone_and_eta_draws_from_the_generator():
    unet, noise = tiny_unet(), torch.randn(2, 3, 8, 8, generator=seeded(1))
    before = noise.clone()
    draw = lambda eta, seed: diffusion.sample(unet, noise, 4, eta, seeded(seed), "fp32")  # noqa: E731
    assert torch.equal(draw(0.0, 1), draw(0.0, 2))
    for eta in (0.5, None):
        assert not torch.equal(draw(eta, 1), draw(eta, 2))
        assert torch.equal(draw(eta, 1), draw(eta, 1))
    assert torch.equal(noise, before)


def test_the_edit_is_called_once_a_step_from_noise_to_image():
    times = []

    def edit(features, t):
        times.append(int(t))
        return features

    unet, noise = tiny_unet(), torch.randn(2, 3, 8, 8, generator=seeded(1))
    edited = diffusion.sample(unet, noise, 5, 0.5, seeded(2), "fp32", edit)
    assert times == [999, 799, 599, 399, 199]
    assert torch.equal(edited, diffusion.sample(unet, noise, 5, 0.5, seeded(2), "fp32"))


def test_the_edit_changes_the_image():
    unet, noise = tiny_unet(), torch.randn(2, 3, 8, 8, generator=seeded(1))
    silence = lambda features, t: features._replace(h=torch.zeros_like(features.h))  # noqa: E731
    masked = diffusion.sample(unet, noise, 4, 0.0, seeded(2), "fp32", silence)
    assert not torch.equal(masked, diffusion.sample(unet, noise, 4, 0.0, seeded(2), "fp32"))
