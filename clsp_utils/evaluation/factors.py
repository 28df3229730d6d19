"""What of an image comes from where: background, strokes, and images that it may be a copy of."""

import numpy as np
import torch
from torch import Tensor

MARGIN = [0, 1, -2, -1]  # columns of pixels left and right, which content seldom reaches


def background_match(images: np.ndarray, background: np.ndarray) -> float:
    """How far the margins of images follow given backgrounds: mean correlation, in [-1, 1].

    For each pixel and channel of the two outer columns left and right, the correlation over the
    images. 1 = same background, 0 = chance.

    Args:
        images: uint8 `(N, H, W, 3)`; background: `(N, H, W, 3)`, any linear scale.
    """
    a, b = (x[:, :, MARGIN].reshape(len(x), -1).astype(np.float64) for x in (images, background))
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(((a * b).sum(0) / np.where(norm > 0, norm, 1)).mean())


def edges(images: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels: strokes have sharp edges, waves soft ones.

    Args:
        images: `(N, H, W, 3)`, in grey levels of 255.

    Returns:
        Grey levels of 255; mean of the differences downwards and to the right.
    """
    x = images.astype(float)
    return float(np.abs(np.diff(x, axis=1)).mean() / 2 + np.abs(np.diff(x, axis=2)).mean() / 2)


def margin(images: np.ndarray) -> tuple[float, float]:
    """Colour of the two outer columns on each side, and how much it varies.

    Args:
        images: `(N, H, W, 3)`, in grey levels of 255.

    Returns:
        Mean, and the standard deviation over the images, averaged over pixels and channels; both
        in grey levels of 255.
    """
    x = images[:, :, MARGIN].astype(float)
    return float(x.mean()), float(x.std(axis=0).mean())


def nearest_images(images: np.ndarray, others: np.ndarray) -> tuple[Tensor, Tensor]:
    """For each image, how far the nearest of the others is, and which one it is.

    Args:
        images: uint8 `(N, H, W, 3)`; others: uint8 `(M, H, W, 3)`.

    Returns:
        Distance, fp32 `(N,)`: mean absolute difference of pixels, in grey levels of 255; and the
        index among the others, `(N,)`.
    """
    x, y = (torch.from_numpy(a).flatten(1).float() for a in (images, others))
    distances = torch.cdist(x, y, p=1) / y.shape[1]
    distance, index = distances.min(1)
    return distance, index
