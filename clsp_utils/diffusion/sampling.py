"""Sampling: from noise to images, with an optional change of the features at every step."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DModel,
)
from torch import Generator, Tensor

from clsp_utils import runtime
from clsp_utils.config import PlainSampling
from clsp_utils.data import to_uint8
from clsp_utils.diffusion.unet import Features, betas_of, decode, encode, hide, noise_for

Edit = Callable[[Features, Tensor], Features]
Variance = Literal["fixed_small", "fixed_large"]


@torch.inference_mode()
def sample(
    unet: UNet2DModel,
    noise: Tensor,
    steps: int,
    eta: float | None,
    g: Generator,
    precision: str,
    edit: Edit | None = None,
    condition: Tensor | None = None,
    guidance: float = 0.0,
) -> Tensor:
    """Samples by the stochastic DPM-Solver++, or by DDIM.

    DPM-Solver++ of second order (arXiv 2211.01095, 2M, SDE) goes in equal steps of the logarithm of
    the signal-to-noise ratio; DDIM (arXiv 2010.02502) needs several times as many steps, equal in
    t. Both clip the predicted clean image to [-1, 1] at each step: at large t a small error of the
    predicted noise is a large one of the image, most of all with features from elsewhere. DDIM
    leaves the predicted noise itself as it is.

    Args:
        noise: `(B, 3, H, W)` standard normal. The UNet decides device and noise schedule.
        steps: a divisor of 1000.
        eta: DDIM's; 0 is deterministic, 1 as noisy as DDPM. None takes DPM-Solver++.
        g: draws the noise that is added at each step; one of the CPU gives the same images on any
            device.
        edit: `(features, t) -> features`, applied between encoder and decoder half.
        condition: for a conditional model, classes `(B,)`, where -1 is "no class", or vectors
            `(B, D)`. It is guided without a classifier (arXiv 2207.12598):
            `eps = (1 + guidance) * eps(condition) - guidance * eps(no condition)`; at guidance 0
            the second term is not computed.

    Returns:
        uint8 `(B, H, W, 3)`, on the CPU.
    """
    if eta is None:  # prediction_type "sample": step() takes x0, clipped
        scheduler = DPMSolverMultistepScheduler(
            **betas_of(unet),
            use_lu_lambdas=True,
            prediction_type="sample",
            algorithm_type="sde-dpmsolver++",
            final_sigmas_type="zero",
        )
    else:
        scheduler = DDIMScheduler(**betas_of(unet), timestep_spacing="trailing", clip_sample=True)
    scheduler.set_timesteps(steps)
    x = noise.to(unet.device)
    guided = condition is not None and guidance > 0
    if condition is not None:
        nowhere = torch.zeros(len(x), dtype=torch.bool)
        shown = hide(unet, condition, nowhere)
        both = [shown, hide(unet, condition, ~nowhere)] if guided else [shown]
        condition = torch.cat(both).to(x.device)
    with runtime.autocast(x.device, precision):  # around all steps: weights are rounded once
        for i, t in enumerate(scheduler.timesteps):
            features = encode(unet, torch.cat([x, x]) if guided else x, t, condition)
            if edit is not None:
                features = edit(features, t)
            eps = decode(unet, *features).float()
            if guided:
                with_condition, without = eps.chunk(2)
                eps = with_condition + guidance * (with_condition - without)
            if eta is None:
                s = scheduler.sigmas[i]  # noise over signal: x = (x0 + s eps) / sqrt(1 + s^2)
                clean = (x * (1 + s**2).sqrt() - s * eps).clamp(-1, 1)
                fresh = noise_for(x, g)
                x = scheduler.step(clean, t, x, variance_noise=fresh).prev_sample
            else:
                fresh = noise_for(x, g) if eta else None
                x = scheduler.step(eps, t, x, eta=eta, variance_noise=fresh).prev_sample
    return to_uint8(x).cpu()


@torch.inference_mode()
def ancestral(
    unet: UNet2DModel, noise: Tensor, steps: int, variance: Variance, g: Generator, precision: str
) -> Tensor:
    """Samples as DDPM does, by which FID is usually reported (arXiv 2006.11239, algorithm 2).

    With `alpha_t = alpha_bar_t / alpha_bar_s` from one step t to the next, s, and x0 predicted and
    clipped to [-1, 1]:
    `x_s = (sqrt(alpha_bar_s) (1 - alpha_t) x0 + sqrt(alpha_t) (1 - alpha_bar_s) x_t)
    / (1 - alpha_bar_t) + sigma_t z`. The last step adds no noise: it gives x0.

    Args:
        noise: `(B, 3, H, W)` standard normal. The UNet decides the device.
        steps: a divisor of 1000, equal in t.
        variance: sigma_t^2 is 1 - alpha_t for "fixed_large", and for "fixed_small" this times
            (1 - alpha_bar_s) / (1 - alpha_bar_t).
        g: draws z, on the CPU.

    Returns:
        fp32 `(B, 3, H, W)` in [-1, 1], on the CPU.
    """
    scheduler = DDPMScheduler(**betas_of(unet), variance_type=variance, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    x = noise.to(unet.device)
    with runtime.autocast(x.device, precision):
        for t in scheduler.timesteps:
            eps = decode(unet, *encode(unet, x, t)).float()
            step = scheduler.step(eps, t, x, generator=g)
            x = step.prev_sample
    return step.pred_original_sample.cpu()


def plain_samples(
    unet: UNet2DModel, n: int, how: PlainSampling, seed: int, precision: str
) -> np.ndarray:
    """n samples of an unconditional model.

    Returns:
        uint8 `(n, k, H, W, 3)`. By `sample` k is 1; by `ancestral`, which `how.variance` asks for,
        it is 2: each image rounded to grey levels, and truncated.
    """
    g, side = runtime.generator(seed, "plain samples"), unet.config.sample_size
    noise = torch.randn(n, 3, side, side, generator=g)
    if how.variance is None:
        return sample(unet, noise, how.steps, how.eta, g, precision).unsqueeze(1).numpy()
    x = ancestral(unet, noise, how.steps, how.variance, g, precision)
    return torch.stack([to_uint8(x), to_uint8(x, rounded=False)], 1).numpy()
