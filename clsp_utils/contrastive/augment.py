"""Random views of whole batches, on the device, from uint8 tensors.

The transforms are those of SimCLR, each image with random numbers of its own: random resized crop,
flip, colour jitter, grey, solarize. One `grid_sample` crops the whole batch; colours change by
broadcasting. Nothing runs once per image. Steps after the first change fresh tensors in place,
since new memory costs more than the arithmetic.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from clsp_utils.config import Views
from clsp_utils.data import ChannelStatistics, grey, normalise, shift_hue, to_float
from clsp_utils.runtime import ALONE, Share, generator


class Draws:
    """Random numbers for one process's rows: those that the whole batch would draw for them."""

    def __init__(self, g: Generator, share: Share = ALONE):
        self.g, self.share = g, share

    def uniform(self, low: float, high: float, n: int, *columns: int) -> Tensor:
        """`(n, *columns)` in [low, high)."""
        whole = torch.rand(n * self.share.world, *columns, generator=self.g, device=self.g.device)
        return self.share.rows(whole) * (high - low) + low

    def order(self, n: int) -> list[int]:
        """0 to n - 1 in random order, the same for all processes."""
        g = self.g
        if g.device.type == "cuda":  # where the answer would come after all that the GPU has to do
            g = generator("order", g.get_state().tolist())
        return torch.randperm(n, generator=g, device=g.device).tolist()


def _column(x: Tensor) -> Tensor:
    return x.view(-1, 1, 1, 1)


def crop_boxes(n: int, cfg: Views, draws: Draws) -> tuple[Tensor, ...]:
    """Boxes of random resized crops as (centre x, centre y, width, height), in [0, 1] of the image.

    As in torchvision: the area is uniform in `cfg.crop_area`, the log of the aspect ratio in
    [log 3/4, log 4/3]; of ten such draws the first that fits is taken, else the whole image.

    Returns:
        Four tensors `(n,)`.
    """
    area = draws.uniform(*cfg.crop_area, n, 10)
    root = draws.uniform(math.log(3 / 4), math.log(4 / 3), n, 10).exp().sqrt()
    width, height = area.sqrt() * root, area.sqrt() / root
    fits = (width <= 1) & (height <= 1)
    first, none = fits.float().argmax(1, keepdim=True), ~fits.any(1)
    width, height = (side.gather(1, first)[:, 0].masked_fill(none, 1) for side in (width, height))
    x = width / 2 + draws.uniform(0, 1, n) * (1 - width)
    y = height / 2 + draws.uniform(0, 1, n) * (1 - height)
    return x, y, width, height


def crop_and_shrink(x: Tensor, boxes: tuple[Tensor, ...], flipped: Tensor, size: int) -> Tensor:
    """Cuts `boxes` out of `(B, 3, H, W)`, scales them to `size`, mirrors where `flipped`.

    One resampling, bilinear and with antialiasing where a box shrinks, as PIL resamples a box:
    a pixel of the view is the mean of those around it, by a triangle as wide as the larger of the
    two pixels on either side.
    """
    cx, cy, width, height = boxes
    rows = _triangles(cy, height, x.shape[2], size)
    columns = _triangles(cx, width, x.shape[3], size)
    columns = torch.where(flipped.view(-1, 1, 1), columns.flip(1), columns)
    return rows.unsqueeze(1) @ x @ columns.mT.unsqueeze(1)


def _triangles(centre: Tensor, extent: Tensor, n: int, size: int) -> Tensor:
    """Weights `(B, size, n)` of n pixels in each of the `size` that an extent becomes.

    Args:
        centre, extent: `(B,)`, in [0, 1] of the n pixels.
    """
    step = (n * extent / size).view(-1, 1, 1)  # from one pixel of the view to the next, in pixels
    to = torch.arange(size, device=centre.device).view(-1, 1) + 0.5 - size / 2
    at = n * centre.view(-1, 1, 1) + step * to
    distance = (torch.arange(n, device=centre.device) + 0.5 - at).abs()
    weights = (1 - distance / step.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def crop_and_flip(x: Tensor, boxes: tuple[Tensor, ...], flipped: Tensor) -> Tensor:
    """Cuts `boxes` out of `(B, 3, H, W)`, scales them back to H x W, mirrors where `flipped`.

    No box shrinks, and this is the fastest way.
    """
    cx, cy, width, height = boxes
    theta = x.new_zeros(len(x), 2, 3)
    theta[:, 0, 0] = torch.where(flipped, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * cx - 1, 2 * cy - 1
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def jitter(x: Tensor, cfg: Views, draws: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue, each image with its own factors, with `p_jitter`.

    As in torchvision, except that the order of the four is drawn once per batch, not per image.
    """
    n = len(x)
    keep = draws.uniform(0, 1, n) >= cfg.p_jitter
    strengths = (cfg.brightness, cfg.contrast, cfg.saturation)
    factors = [
        _column(draws.uniform(max(0.0, 1 - s), 1 + s, n).masked_fill(keep, 1.0)) for s in strengths
    ]
    turn = draws.uniform(-cfg.hue, cfg.hue, n).masked_fill(keep, 0.0)
    changes = (
        lambda y: (y * factors[0]).clamp_(0, 1),
        lambda y: torch.lerp(grey(y).mean((1, 2, 3), keepdim=True), y, factors[1]).clamp_(0, 1),
        lambda y: torch.lerp(grey(y), y, factors[2]).clamp_(0, 1),
        lambda y: shift_hue(y, turn),
    )
    for i in draws.order(4):
        x = changes[i](x)
    return x


def augment(
    images: Tensor,
    cfg: Views,
    statistics: ChannelStatistics,
    g: Generator,
    share: Share = ALONE,
    size: int | None = None,
) -> Tensor:
    """One random view of each image.

    Args:
        images: uint8 `(B, H, W, 3)` on the generator's device: this process's rows of a batch.
        statistics: of the data set; the view is normalised by them.
        share: says which rows of the batch these are.
        size: pixels a side of the view; None = H.

    Returns:
        float32 `(B, 3, size, size)`.
    """
    n, draws = len(images), Draws(g, share)
    flipped = draws.uniform(0, 1, n) < cfg.p_flip
    x, boxes = to_float(images), crop_boxes(n, cfg, draws)
    if size in (None, x.shape[2]):
        x = crop_and_flip(x, boxes, flipped)
    else:
        x = crop_and_shrink(x, boxes, flipped, size)
    x = jitter(x, cfg, draws)
    x.lerp_(grey(x), _column(draws.uniform(0, 1, n) < cfg.p_grey).float())
    solarized = _column(draws.uniform(0, 1, n) < cfg.p_solarize)
    if cfg.p_solarize:
        x = torch.where(solarized & (x >= 0.5), 1 - x, x)
    return normalise(x, statistics)
