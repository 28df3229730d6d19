"""Images as bytes and as numbers: every conversion, once."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from clsp_utils.runtime import upload

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


def to_uint8(x: Tensor, rounded: bool = True) -> Tensor:
    """`(B, 3, H, W)` in [-1, 1] to uint8 `(B, H, W, 3)`; what is outside is clipped.

    Grey levels are rounded. If not, their fraction is dropped, as a mere cast does, which makes
    images half a level darker.
    """
    levels = (x.clamp(-1, 1) + 1) * 127.5
    return (levels.round() if rounded else levels).to(torch.uint8).permute(0, 2, 3, 1)


def normalise(x: Tensor, statistics: ChannelStatistics) -> Tensor:
    """Subtracts the data set's mean and divides by its standard deviation, channel by channel.

    A channel that varies by less than a grey level is not divided: there is nothing to scale.

    Args:
        x: `(B, 3, H, W)` in [0, 1].
        statistics: those of the training images.
    """
    mean, std = (upload(torch.tensor(s), x.device).view(1, 3, 1, 1) for s in statistics)
    return (x - mean).div_(torch.where(std < 1 / 255, 1, std))


def grey(x: Tensor) -> Tensor:
    """Luma `(B, 1, H, W)` of RGB `(B, 3, H, W)` (ITU-R 601, as torchvision)."""
    r, g, b = x.unbind(1)
    return (LUMA[0] * r).add_(LUMA[1] * g).add_(LUMA[2] * b).unsqueeze(1)


def shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of RGB in [0, 1] through HSV.

    Args:
        x: `(B, 3, H, W)`.
        shift: `(B,)` turns; 0.5 is the complement.
    """
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = chroma.clamp(min=1e-8)
    r, g, b = x.unbind(1)
    # The largest channel decides; a lerp by 0 or 1 is torch.where, but ten times as fast.
    hue = (r - g).div_(safe).add_(4)
    hue.lerp_((b - r).div_(safe).add_(2), (value == g).float())
    hue.lerp_((g - b).div_(safe), (value == r).float()).add_(6 * shift.view(-1, 1, 1))
    channel = upload(torch.tensor([5.0, 3.0, 1.0]), x.device).view(1, 3, 1, 1)
    k = channel + hue.unsqueeze(1)
    k.sub_((k / 6).floor_().mul_(6))  # this is k modulo 6; torch's own takes ten times as long
    return value.unsqueeze(1) - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma.unsqueeze(1))


def recolour(images: Tensor, g: Generator) -> Tensor:
    """Other colours, the same shapes: a random turn of the hue, and the negative of every other.

    Args:
        images: uint8 `(B, H, W, 3)`.
        g: on the CPU, so that the draws are the same on every device; it draws the turn, uniform,
            and whether to take the negative, with probability 1/2.

    Returns:
        uint8 `(B, H, W, 3)`.
    """
    turn = upload(torch.rand(len(images), generator=g), images.device)
    negative = upload(torch.rand(len(images), generator=g) < 0.5, images.device)
    x = shift_hue(to_float(images), turn)
    x = torch.where(negative.view(-1, 1, 1, 1), 1 - x, x)
    return to_uint8(2 * x - 1)
