"""DDPM's ancestral sampler against its equations, and plain samples in grey levels."""

import numpy as np
import pytest
import torch

from clsp_utils.config import PlainSampling, UNetShape
from clsp_utils.data import to_uint8
from clsp_utils.diffusion import ancestral, build_unet, plain_samples, sample
from clsp_utils.runtime import generator

ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def tiny_unet():
    torch.manual_seed(0)
    unet = build_unet(UNetShape(channels=(8, 16), groups=4), 8).eval()
    with torch.no_grad():
        unet.conv_out.weight.mul_(3)  # predictions about as large as noise, few pixels saturated
    return unet


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def ddpm(unet, noise, steps, variance, g):
    """Algorithm 2 of arXiv 2006.11239 with its equations 6 and 7, in fp64."""
    gap, x = 1000 // steps, noise.double()
    for t in range(999, -1, -gap):
        bar, last = ALPHA_BAR[t], t < gap
        bar_next = torch.tensor(1.0, dtype=torch.float64) if last else ALPHA_BAR[t - gap]
        beta = 1 - bar / bar_next
        eps = unet(x.float(), t).sample.double()
        x0 = ((x - (1 - bar).sqrt() * eps) / bar.sqrt()).clamp(-1, 1)
        x = (bar_next.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - bar_next) * x) / (1 - bar)
        small = (1 - bar_next) / (1 - bar) * beta
        z = torch.randn(noise.shape, generator=g).double()
        if not last:
            x = x + (beta if variance == "fixed_large" else small).sqrt() * z
    return x


@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_ancestral_against_the_equations(steps, variance):
    unet, noise = tiny_unet(), torch.randn(3, 3, 8, 8, generator=seeded(1))
    found = ancestral(unet, noise, steps, variance, seeded(2), "fp32")
    expected = ddpm(unet, noise, steps, variance, seeded(2))
    assert found.dtype == torch.float32 and found.shape == noise.shape
    assert found.abs().max() <= 1
    assert (found - expected).abs().max() < 1 / 127.5  # one grey level
    if steps > 1:
        assert (found.abs() < 1).float().mean() > 0.25  # or little is compared


def test_with_all_its_steps_and_a_perfect_model_it_ends_at_the_image(monkeypatch):
    """A network that knows the clean image is led there, whatever noise is added on the way."""
    import importlib

    module = importlib.import_module("clsp_utils.diffusion.sampling")
    clean = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    monkeypatch.setattr(module, "encode", lambda unet, x, t: (x, t))
    bar = ALPHA_BAR.float()
    monkeypatch.setattr(
        module,
        "decode",
        lambda unet, x, t: (x - bar[t].sqrt() * clean) / (1 - bar[t]).sqrt(),
    )
    for variance in ("fixed_large", "fixed_small"):
        noise = torch.randn(clean.shape, generator=seeded(1))
        found = ancestral(tiny_unet(), noise, 1000, variance, seeded(2), "fp32")
        torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


def test_plain_samples_are_those_of_the_sampler_that_is_asked_for():
    unet = tiny_unet()

    def drawn(function, *how):
        g = generator(7, "plain samples")
        return function(unet, torch.randn(4, 3, 8, 8, generator=g), 5, *how, g, "fp32")

    for eta in (None, 0.5):
        found = plain_samples(unet, 4, PlainSampling(steps=5, eta=eta), 7, "fp32")
        assert found.shape == (4, 1, 8, 8, 3) and found.dtype == np.uint8
        assert np.array_equal(found[:, 0], drawn(sample, eta).numpy())
    found = plain_samples(unet, 4, PlainSampling(steps=5, variance="fixed_small"), 7, "fp32")
    x = drawn(ancestral, "fixed_small")
    assert found.shape == (4, 2, 8, 8, 3)
    assert np.array_equal(found[:, 0], to_uint8(x).numpy())
    assert np.array_equal(found[:, 1], to_uint8(x, rounded=False).numpy())
    assert set(np.unique(found[:, 0].astype(int) - found[:, 1])) == {0, 1}
