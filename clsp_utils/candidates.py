"""Synthetic positives: sampling with an anchor's features, and the bank of candidates."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Generator, Tensor
from tqdm import tqdm

from clsp_utils import training
from clsp_utils.bottleneck import Features, encode, mix
from clsp_utils.config import Candidates
from clsp_utils.diffusion import NOISE, Edit, sample, to_diffusion_range


def follow_anchor(unet: UNet2DModel, anchors: Tensor, mix_weight: float, k: int, g: Generator) -> Edit:
    """The edit that mixes the anchor's mid-block features into the noise branch (method step 4).

    At each step t the anchors are noised to t with fresh noise and encoded; the k samples of an
    anchor share that encoding. Skip connections and time embedding stay the noise branch's.

    Args:
        anchors: `(B, 3, H, W)` in [-1, 1]; the noise branch holds `B * k` images, k in a row.
        mix_weight: share of the noise branch, in [0, 1].
    """
    schedule = DDPMScheduler(**NOISE)

    def edit(features: Features, t: Tensor) -> Features:
        fresh = torch.randn(anchors.shape, generator=g, device=g.device)
        noised = schedule.add_noise(anchors, fresh, t.expand(len(anchors)).to(anchors.device))
        h_anchor = encode(unet, noised, t).h.repeat_interleave(k, 0)
        return features._replace(h=mix(features.h, h_anchor, mix_weight))

    return edit


def interpolate(
    unet: UNet2DModel,
    anchors: np.ndarray,
    mix_weight: float,
    k: int,
    steps: int,
    eta: float,
    seed: int,
    precision: str,
) -> np.ndarray:
    """k candidates of each anchor.

    Args:
        anchors: uint8 `(B, H, W, 3)`.

    Returns:
        uint8 `(B, k, H, W, 3)`. With mix_weight 1 they are plain samples, bit for bit.
    """
    device = training.device()
    unet = unet.to(device)
    x = to_diffusion_range(torch.tensor(anchors)).to(device)
    g = training.generator(seed, "noise branch", device=device)
    noise = torch.randn(len(x) * k, *x.shape[1:], generator=g, device=device)
    edit = None
    if mix_weight < 1:
        anchor_noise = training.generator(seed, "anchor noise", device=device)
        edit = follow_anchor(unet, x, mix_weight, k, anchor_noise)
    out = sample(unet, noise, steps, eta, g, precision, edit)
    return out.cpu().numpy().reshape(len(anchors), k, *anchors.shape[1:])


def write_bank(
    path: Path, progress: Path, unet: UNet2DModel, images: np.ndarray, cfg: Candidates, seed: int, precision: str
) -> None:
    """Candidates of all anchors, streamed to a memory-mapped `.npy`, uint8 `(N, k, H, W, 3)`.

    Anchors are done `cfg.batch` at a time; each batch has a seed of its own, so that a bank does
    not depend on where an earlier run was cut off. `progress` counts the batches that are done.
    """
    done = int(progress.read_text()) if progress.exists() and path.exists() else 0
    shape = (len(images), cfg.k, *images.shape[1:])
    bank = np.lib.format.open_memmap(path, "r+" if done else "w+", np.uint8, shape)
    n_batches = -(-len(images) // cfg.batch)
    for i in tqdm(range(done, n_batches), "candidates", initial=done, total=n_batches, leave=False):
        rows = slice(i * cfg.batch, (i + 1) * cfg.batch)
        batch_seed = training.seed_for(seed, "bank", i)
        bank[rows] = interpolate(
            unet, images[rows], cfg.mix_weight, cfg.k, cfg.steps, cfg.eta, batch_seed, precision
        )
        bank.flush()
        progress.with_suffix(".new").write_text(str(i + 1))
        progress.with_suffix(".new").replace(progress)
