"""Sampling: DDIM and DPM-Solver++ against their equations, and the edit between the halves."""

import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet, sample

TINY = UNetShape(channels=(8, 16), groups=4)
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def tiny_unet():
    torch.manual_seed(0)
    unet = build_unet(TINY, 8).eval()
    with torch.no_grad():
        unet.conv_out.weight.mul_(3)  # predictions about as large as noise, few pixels saturated
    return unet


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def ddim(unet, noise, steps, eta, g):
    """DDIM written from its equations (arXiv 2010.02502, eq. 12 and 16), in fp64."""
    gap, x = 1000 // steps, noise.double()
    for t in range(999, -1, -gap):
        last = torch.tensor(1.0, dtype=torch.float64)
        a, a_prev = ALPHA_BAR[t], ALPHA_BAR[t - gap] if t >= gap else last
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
    sampled = sample(unet, noise, steps, eta, seeded(2), "fp32")
    x = ddim(unet, noise, steps, eta, seeded(2))
    expected = ((x + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)

    assert sampled.dtype == torch.uint8 and sampled.shape == (3, 8, 8, 3)
    assert (sampled.double() - expected).abs().max() <= 1
    # One step from pure noise saturates; more steps must show shades, or little is compared.
    if steps > 1:
        assert ((sampled > 0) & (sampled < 255)).float().mean() > 0.25


@torch.no_grad()
def dpm_solver(unet, noise, steps, g):
    """SDE-DPM-Solver++ (2M) from its equations (arXiv 2211.01095, sections 5 and 6), in fp64.

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
            break
        h = lambdas[i + 1] - lambdas[i]
        # Linear extrapolation by half a step.
        estimate = x0 if before is None else x0 + 0.5 * (x0 - before)
        decay = torch.exp(-2 * h)
        x = sigma[i + 1] / sigma[i] * torch.exp(-h) * x + alpha[i + 1] * (1 - decay) * estimate
        x = x + sigma[i + 1] * (1 - decay).sqrt() * z
        before = x0
    return x0


@pytest.mark.parametrize("steps", [1, 2, 10, 25])
def test_default_sampler_against_the_equations(steps):
    unet, noise = tiny_unet(), torch.randn(3, 3, 8, 8, generator=seeded(1))
    sampled = sample(unet, noise, steps, None, seeded(2), "fp32")
    expected = ((dpm_solver(unet, noise, steps, seeded(2)) + 1) * 127.5).round().permute(0, 2, 3, 1)
    assert (sampled.double() - expected).abs().max() <= 1
    if steps > 1:
        assert ((sampled > 0) & (sampled < 255)).float().mean() > 0.1


def test_sample_leaves_its_noise_alone_and_eta_draws_from_the_generator():
    unet, noise = tiny_unet(), torch.randn(2, 3, 8, 8, generator=seeded(1))
    before = noise.clone()

    def draw(eta, seed):
        return sample(unet, noise, 4, eta, seeded(seed), "fp32")

    assert torch.equal(draw(0.0, 1), draw(0.0, 2))
    for eta in (0.5, None):
        assert not torch.equal(draw(eta, 1), draw(eta, 2))
        assert torch.equal(draw(eta, 1), draw(eta, 1))
    assert torch.equal(noise, before)


def test_the_edit_is_called_once_per_step_from_noise_to_image():
    times = []

    def edit(features, t):
        times.append(int(t))
        return features

    unet, noise = tiny_unet(), torch.randn(2, 3, 8, 8, generator=seeded(1))
    edited = sample(unet, noise, 5, 0.5, seeded(2), "fp32", edit)
    assert times == [999, 799, 599, 399, 199]
    assert torch.equal(edited, sample(unet, noise, 5, 0.5, seeded(2), "fp32"))


def test_the_edit_changes_the_image():
    unet, noise = tiny_unet(), torch.randn(2, 3, 8, 8, generator=seeded(1))
    silence = lambda features, t: features._replace(h=torch.zeros_like(features.h))  # noqa: E731
    masked = sample(unet, noise, 4, 0.0, seeded(2), "fp32", silence)
    assert not torch.equal(masked, sample(unet, noise, 4, 0.0, seeded(2), "fp32"))
