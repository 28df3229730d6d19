"""The middle of the UNet: read it, silence it, mix it (paper, section 3; method steps 2 to 4).

A UNet is cut in two at its middle: `encode` runs the encoder half and the mid-block, `decode` the
decoder half. Between the two, the features can be changed; that is all that CLSP does to a
diffusion model. `decode(unet, *encode(unet, x, t))` equals `unet(x, t)` bit for bit.
"""

from typing import NamedTuple

import torch
from diffusers import UNet2DModel
from torch import Tensor
from torch.nn import functional as F

from clsp_utils.training import compiled_on_cuda


class Features(NamedTuple):
    """What the encoder half hands to the decoder half.

    Attributes:
        h: mid-block output `(B, C, h, w)`.
        skips: skip connections in the order in which the encoder made them, `(B, C_i, h_i, w_i)`.
        temb: time embedding `(B, D)`.
    """

    h: Tensor
    skips: tuple[Tensor, ...]
    temb: Tensor


@compiled_on_cuda
def encode(unet: UNet2DModel, x: Tensor, t: Tensor | int, labels: Tensor | None = None) -> Features:
    """Runs the encoder half and the mid-block.

    Args:
        x: noised images `(B, 3, H, W)`, in the diffusion range [-1, 1] before noising.
        t: time step(s) in 0..T-1, a number or `(B,)`.
        labels: classes `(B,)` for a class-conditional model.
    """
    t = torch.as_tensor(t, device=x.device).expand(len(x))
    temb = unet.time_embedding(unet.time_proj(t).to(unet.dtype))
    if labels is not None:
        temb = temb + unet.class_embedding(labels)
    x = unet.conv_in(x)
    skips = [x]
    for block in unet.down_blocks:
        x, new = block(hidden_states=x, temb=temb)
        skips += new
    return Features(unet.mid_block(x, temb), tuple(skips), temb)


@compiled_on_cuda
def decode(unet: UNet2DModel, h: Tensor, skips: tuple[Tensor, ...], temb: Tensor) -> Tensor:
    """Runs the decoder half; returns the predicted noise `(B, 3, H, W)`."""
    for block in unet.up_blocks:
        n = len(block.resnets)
        skips, own = skips[:-n], skips[-n:]
        h = block(h, own, temb)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


def mix(h: Tensor, h_anchor: Tensor, mix_weight: float) -> Tensor:
    """`w * h + (1 - w) * h_anchor` (paper, eq. 4): w = 1 keeps the noise branch, w = 0 the anchor."""
    return torch.lerp(h_anchor, h, mix_weight)


def pool(h: Tensor, size: int) -> Tensor:
    """Averages `(B, C, h, w)` to `size x size` and flattens: `(B, C * size * size)`, fp32."""
    return F.adaptive_avg_pool2d(h.float(), size).flatten(1)
