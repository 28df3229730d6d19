"""Sampling: from noise to images, with an optional change of the features at every step."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Generator, Tensor

from clsp_utils import runtime
from clsp_utils.data import to_uint8
from clsp_utils.diffusion.unet import BETAS, Features, decode, encode

Edit = Callable[[Features, Tensor], Features]


@torch.inference_mode()
def sample(
    unet: UNet2DModel,
    noise: Tensor,
    steps: int,
    eta: float | None,
    g: Generator,
    precision: str,
    edit: Edit | None = None,
    labels: Tensor | None = None,
    guidance: float = 0.0,
) -> Tensor:
    """Samples by the stochastic DPM-Solver++, or by DDIM.

    DPM-Solver++ of second order (arXiv 2211.01095, 2M, SDE) goes in equal steps of the logarithm of
    the signal-to-noise ratio; DDIM (arXiv 2010.02502) needs several times as many steps, equal in
    t. Both clip the predicted clean image to [-1, 1] at each step: at large t a small error of the
    predicted noise is a large one of the image, most of all with features from elsewhere. DDIM
    leaves the predicted noise itself as it is.

    Args:
        noise: `(B, 3, H, W)` standard normal. The UNet decides the device.
        steps: a divisor of 1000.
        eta: DDIM's; 0 is deterministic, 1 as noisy as DDPM. None takes DPM-Solver++.
        g: draws the noise that is added at each step; one of the CPU gives the same images on any
            device.
        edit: `(features, t) -> features`, applied between encoder and decoder half.
        labels: classes `(B,)` for a conditional model, which is then guided without a classifier
            (arXiv 2207.12598): `eps = (1 + guidance) * eps(class) - guidance * eps(no class)`.

    Returns:
        uint8 `(B, H, W, 3)`, on the CPU.
    """
    if eta is None:  # prediction_type "sample": step() takes x0, clipped
        scheduler = DPMSolverMultistepScheduler(
            **BETAS,
            use_lu_lambdas=True,
            prediction_type="sample",
            algorithm_type="sde-dpmsolver++",
            final_sigmas_type="zero",
        )
    else:
        scheduler = DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=True)
    scheduler.set_timesteps(steps)
    x = noise.to(unet.device)
    if labels is not None:
        none = torch.full_like(labels, unet.config.num_class_embeds - 1)
        labels = torch.cat([labels, none]).to(x.device)
    with runtime.autocast(x.device, precision):  # around all steps: weights are rounded once
        for i, t in enumerate(scheduler.timesteps):
            features = encode(unet, x if labels is None else torch.cat([x, x]), t, labels)
            if edit is not None:
                features = edit(features, t)
            eps = decode(unet, *features).float()
            if labels is not None:
                with_class, without = eps.chunk(2)
                eps = with_class + guidance * (with_class - without)
            if eta is None:
                s = scheduler.sigmas[i]  # noise over signal: x = (x0 + s eps) / sqrt(1 + s^2)
                clean = (x * (1 + s**2).sqrt() - s * eps).clamp(-1, 1)
                x = scheduler.step(clean, t, x, generator=g).prev_sample
            else:
                x = scheduler.step(eps, t, x, eta=eta, generator=g).prev_sample
    return to_uint8(x).cpu()
