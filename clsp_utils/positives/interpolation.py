"""Interpolation: sampling with an anchor's features (paper, eq. 4; method step 4)."""

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Generator, Tensor

from clsp_utils.config import ConfigError
from clsp_utils.data import to_diffusion_range
from clsp_utils.diffusion import Edit, Features, encode_noised, mix, sample
from clsp_utils.runtime import generator


def mix_in_anchor(
    unet: UNet2DModel,
    anchors: Tensor,
    mix_weight: float,
    mix_below: int,
    k: int,
    g: Generator,
    mix_skips: int = 0,
) -> Edit:
    """The edit that mixes the anchor's mid-block features into the noise branch.

    At each step t < `mix_below` the anchors are noised to t with fresh noise and encoded; the k
    samples of an anchor share that encoding. The other skip connections and the time embedding stay
    the noise branch's.

    Args:
        anchors: `(B, 3, H, W)` in [-1, 1], on any device; the noise branch holds `B * k` images,
            those of an anchor in a row.
        mix_weight: share of the noise branch, in [0, 1].
        mix_below: in 1..1000; 1000 mixes at all steps, fewer leave the first ones (with the largest
            t) to the noise branch.
        g: draws the anchors' noise.
        mix_skips: how many skip connections are mixed, too, from the innermost outwards; 0 = none,
            as in the paper, whose authors mix 3 on STL-10.
    """
    anchors = anchors.to(unet.device)

    def edit(features: Features, t: Tensor) -> Features:
        if t >= mix_below:
            return features
        of_anchors = encode_noised(unet, anchors, t, g)
        n_own = len(features.skips) - mix_skips
        if n_own < 0:
            raise ConfigError(
                f"mix_skips={mix_skips}: this UNet has {len(features.skips)} skip connections."
            )

        def mixed(own: Tensor, anchor: Tensor) -> Tensor:
            return mix(own, anchor.repeat_interleave(k, 0), mix_weight)

        inner = map(mixed, features.skips[n_own:], of_anchors.skips[n_own:])
        skips = (*features.skips[:n_own], *inner)
        return features._replace(h=mixed(features.h, of_anchors.h), skips=skips)

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
    mix_skips: int = 0,
) -> np.ndarray:
    """k candidates of each anchor.

    Args:
        anchors: uint8 `(B, H, W, 3)`.
        mix_weight, mix_below, mix_skips: see `mix_in_anchor`.
        steps, eta: see `diffusion.sample`.

    Returns:
        uint8 `(B, k, H, W, 3)`. With mix_weight 1 they are plain samples, bit for bit.
    """
    x = to_diffusion_range(torch.tensor(anchors))
    g = generator(seed, "noise branch")
    noise = torch.randn(len(x) * k, *x.shape[1:], generator=g)
    edit = None
    if mix_weight < 1:
        g_anchor = generator(seed, "anchor noise")
        edit = mix_in_anchor(unet, x, mix_weight, mix_below, k, g_anchor, mix_skips)
    out = sample(unet, noise, steps, eta, g, precision, edit)
    return out.numpy().reshape(len(anchors), k, *anchors.shape[1:])
