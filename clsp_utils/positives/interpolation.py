"""Interpolation: sampling with an anchor's features (paper, eq. 4; method step 4)."""

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Generator, Tensor

from clsp_utils.data import to_diffusion_range
from clsp_utils.diffusion import Edit, Features, encode_noised, mix, sample
from clsp_utils.runtime import generator


def mix_in_anchor(
    unet: UNet2DModel, anchors: Tensor, mix_weight: float, mix_below: int, k: int, g: Generator
) -> Edit:
    """The edit that mixes the anchor's mid-block features into the noise branch.

    At each step t < `mix_below` the anchors are noised to t with fresh noise and encoded; the k
    samples of an anchor share that encoding. Skip connections and time embedding stay the noise
    branch's.

    Args:
        anchors: `(B, 3, H, W)` in [-1, 1], on any device; the noise branch holds `B * k` images,
            those of an anchor in a row.
        mix_weight: share of the noise branch, in [0, 1].
        mix_below: in 1..1000; 1000 mixes at all steps, fewer leave the first ones (with the largest
            t) to the noise branch.
        g: draws the anchors' noise.
    """
    anchors = anchors.to(unet.device)

    def edit(features: Features, t: Tensor) -> Features:
        if t >= mix_below:
            return features
        h_anchor = encode_noised(unet, anchors, t, g).h.repeat_interleave(k, 0)
        return features._replace(h=mix(features.h, h_anchor, mix_weight))

    return edit


def interpolate(
    unet: UNet2DModel,
    anchors: np.ndarray,
    mix_weight: float,
    mix_below: int,
    k: int,
    steps: int,
    eta: float | None,
    seed: int,
    precision: str,
) -> np.ndarray:
    """k candidates of each anchor.

    Args:
        anchors: uint8 `(B, H, W, 3)`.
        mix_weight, mix_below: see `mix_in_anchor`.
        steps, eta: see `diffusion.sample`.

    Returns:
        uint8 `(B, k, H, W, 3)`. With mix_weight 1 they are plain samples, bit for bit.
    """
    x = to_diffusion_range(torch.tensor(anchors))
    g = generator(seed, "noise branch")
    noise = torch.randn(len(x) * k, *x.shape[1:], generator=g)
    edit = None
    if mix_weight < 1:
        edit = mix_in_anchor(unet, x, mix_weight, mix_below, k, generator(seed, "anchor noise"))
    out = sample(unet, noise, steps, eta, g, precision, edit)
    return out.numpy().reshape(len(anchors), k, *anchors.shape[1:])
