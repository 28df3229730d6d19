"""Images as bytes and as numbers: every conversion, once."""

from typing import NamedTuple

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # lightness of RGB (ITU-R 601)


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each of a data set's three channels, in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def to_float(images: Tensor) -> Tensor:
    """uint8 `(B, H, W, 3)` to fp32 `(B, 3, H, W)` in [0, 1]."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def to_diffusion_range(images: Tensor) -> Tensor:
    """uint8 `(B, H, W, 3)` to fp32 `(B, 3, H, W)` in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """`(B, 3, H, W)` in [-1, 1] to uint8 `(B, H, W, 3)`, rounded; what is outside is clipped."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def normalise(x: Tensor, statistics: ChannelStatistics) -> Tensor:
    """Subtracts the data set's mean and divides by its standard deviation, channel by channel.

    A channel that varies by less than a grey level is not divided: there is nothing to scale.

    Args:
        x: `(B, 3, H, W)` in [0, 1].
        statistics: those of the training images.
    """
    mean, std = (torch.tensor(s, device=x.device).view(1, 3, 1, 1) for s in statistics)
    return (x - mean).div_(torch.where(std < 1 / 255, 1, std))


def grey(x: Tensor) -> Tensor:
    """Luma `(B, 1, H, W)` of RGB `(B, 3, H, W)` (ITU-R 601, as torchvision)."""
    r, g, b = x.unbind(1)
    return (LUMA[0] * r).add_(LUMA[1] * g).add_(LUMA[2] * b).unsqueeze(1)
