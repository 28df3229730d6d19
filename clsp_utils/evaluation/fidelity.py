"""How close sets of images are to each other, seen through a network."""

import io
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import sqrtm

from clsp_utils.config import ConfigError
from clsp_utils.runtime import WeightsError, device, read_tensors


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2)` of two sets of features (arXiv 1706.08500).

    Args:
        a: features `(N, D)`; b: `(M, D)`. With few more than D rows the distance comes out too
            large; compare sets of the same size.

    Returns:
        Squared units of the features, >= 0 up to rounding; 0 for equal mean and covariance.
    """
    c_a, c_b = np.cov(a.T), np.cov(b.T)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b).real))


def inception_features(images: np.ndarray, weights: str | Path, batch: int = 100) -> np.ndarray:
    """The features that make a Frechet distance an FID: pool3 of the Inception of that paper.

    By torch-fidelity, which resizes images and computes as the original program does.

    Args:
        images: uint8 `(N, H, W, 3)`.
        weights: file of `weights-inception-2015-12-05-6726825d.pth`, which torch-fidelity
            publishes; nothing is downloaded. It is read as data alone, since a `.pth` can hold
            programs and torch-fidelity would run them.
        batch: images per pass.

    Returns:
        fp64 `(N, 2048)`.

    Raises:
        ConfigError: torch-fidelity is not installed, or these are not the weights.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise ConfigError(
            "FID needs a library: pip install -e '.[fid]'; without it there is the Frechet "
            "distance of our own features, which is not FID."
        ) from None
    buffer = io.BytesIO()
    torch.save(read_tensors(weights), buffer)
    buffer.seek(0)
    try:
        net = FeatureExtractorInceptionV3("inception", ["2048"], buffer).to(device())
    except RuntimeError:
        raise WeightsError(f"{str(weights)!r} holds no weights of FID's Inception.") from None
    found = []
    for i in range(0, len(images), batch):
        x = torch.tensor(images[i : i + batch]).permute(0, 3, 1, 2).to(device())
        with torch.inference_mode():
            found.append(net(x)[0].double().cpu())
    return torch.cat(found).numpy()
