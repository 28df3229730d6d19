"""Samples of a conditional model: of the anchor's class, its cluster, or its representation."""

import numpy as np
import torch
from diffusers import UNet2DModel

from clsp_utils.diffusion import sample
from clsp_utils.runtime import generator


def conditional_samples(
    unet: UNet2DModel,
    condition: np.ndarray,
    k: int,
    steps: int,
    eta: float | None,
    guidance: float,
    seed: int,
    precision: str,
) -> np.ndarray:
    """k samples of each condition, from pure noise.

    Args:
        condition: classes `(B,)`, where -1 gives any class; or vectors, fp32 `(B, D)`.
        steps, eta, guidance: see `diffusion.sample`.

    Returns:
        uint8 `(B, k, H, W, 3)`.
    """
    g = generator(seed, "class samples")
    side = unet.config.sample_size
    noise = torch.randn(len(condition) * k, 3, side, side, generator=g)
    given = torch.from_numpy(condition).repeat_interleave(k, 0)
    out = sample(unet, noise, steps, eta, g, precision, condition=given, guidance=guidance)
    return out.numpy().reshape(len(condition), k, side, side, 3)
