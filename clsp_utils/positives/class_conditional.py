"""Samples of the anchor's class from a class-conditional model: a baseline for interpolation."""

import numpy as np
import torch
from diffusers import UNet2DModel

from clsp_utils.diffusion import sample
from clsp_utils.runtime import generator


def class_samples(
    unet: UNet2DModel,
    labels: np.ndarray,
    k: int,
    steps: int,
    eta: float | None,
    guidance: float,
    seed: int,
    precision: str,
) -> np.ndarray:
    """k samples of each label's class.

    Args:
        labels: `(B,)`; -1 gives any class.
        steps, eta, guidance: see `diffusion.sample`.

    Returns:
        uint8 `(B, k, H, W, 3)`.
    """
    labels = np.where(labels < 0, unet.config.num_class_embeds - 1, labels)
    g = generator(seed, "class samples")
    side = unet.config.sample_size
    noise = torch.randn(len(labels) * k, 3, side, side, generator=g)
    classes = torch.from_numpy(labels).repeat_interleave(k)
    out = sample(unet, noise, steps, eta, g, precision, labels=classes, guidance=guidance)
    return out.numpy().reshape(len(labels), k, side, side, 3)
