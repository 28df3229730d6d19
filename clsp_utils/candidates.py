"""Synthetic positives: sampling with an anchor's features, and the bank of candidates."""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Generator, Tensor
from tqdm import tqdm

from clsp_utils import training
from clsp_utils.bottleneck import Features, encode, mix
from clsp_utils.diffusion import NOISE, Edit, sample, to_diffusion_range


def follow_anchor(unet: UNet2DModel, anchors: Tensor, mix_weight: float, k: int, g: Generator) -> Edit:
    """The edit that mixes the anchor's mid-block features into the noise branch (method step 4).

    At each step t the anchors are noised to t with fresh noise and encoded; the k samples of an
    anchor share that encoding. Skip connections and time embedding stay the noise branch's.

    Args:
        anchors: `(B, 3, H, W)` in [-1, 1], on any device; the noise branch holds `B * k` images, k in a row.
        mix_weight: share of the noise branch, in [0, 1].
    """
    schedule, anchors = DDPMScheduler(**NOISE), anchors.to(unet.device)

    def edit(features: Features, t: Tensor) -> Features:
        fresh = torch.randn(anchors.shape, generator=g).to(anchors.device)
        noised = schedule.add_noise(anchors, fresh, t.expand(len(anchors)))
        h_anchor = encode(unet, noised, t).h.repeat_interleave(k, 0)
        return features._replace(h=mix(features.h, h_anchor, mix_weight))

    return edit


def interpolate(
    unet: UNet2DModel,
    anchors: np.ndarray,
    mix_weight: float,
    k: int,
    steps: int,
    eta: float | None,
    seed: int,
    precision: str,
) -> np.ndarray:
    """k candidates of each anchor.

    Args:
        anchors: uint8 `(B, H, W, 3)`.

    Returns:
        uint8 `(B, k, H, W, 3)`. With mix_weight 1 they are plain samples, bit for bit.
    """
    x = to_diffusion_range(torch.tensor(anchors))
    g = training.generator(seed, "noise branch")
    noise = torch.randn(len(x) * k, *x.shape[1:], generator=g)
    edit = None
    if mix_weight < 1:
        edit = follow_anchor(unet, x, mix_weight, k, training.generator(seed, "anchor noise"))
    out = sample(unet, noise, steps, eta, g, precision, edit)
    return out.numpy().reshape(len(anchors), k, *anchors.shape[1:])


def class_samples(
    unet: UNet2DModel, labels: np.ndarray, k: int, steps: int, eta: float | None, guidance: float, seed: int, precision: str
) -> np.ndarray:
    """k samples of each label's class from a class-conditional model: the rival of interpolation.

    Args:
        labels: `(B,)`; -1 gives any class.

    Returns:
        uint8 `(B, k, H, W, 3)`.
    """
    labels = np.where(labels < 0, unet.config.num_class_embeds - 1, labels)
    g = training.generator(seed, "class samples")
    side = unet.config.sample_size
    noise = torch.randn(len(labels) * k, 3, side, side, generator=g)
    classes = torch.from_numpy(labels).repeat_interleave(k)
    out = sample(unet, noise, steps, eta, g, precision, labels=classes, guidance=guidance)
    return out.numpy().reshape(len(labels), k, side, side, 3)


def open_bank(folder: Path, n: int, k: int, batch: int, image_shape: tuple[int, ...]) -> None:
    """Makes `bank.npy`, uint8 `(n, k, H, W, 3)`, and `done.npy`, a digest a batch, unless they are there.

    Both are memory maps, so that a bank needs no memory, and several processes can fill it.
    """
    shapes = {"bank.npy": (n, k, *image_shape), "done.npy": (-(-n // batch), 32)}
    if not all(_is_there(folder / name, shape) for name, shape in shapes.items()):
        for name, shape in shapes.items():
            _write_zeros(folder / name, shape)


def _is_there(path: Path, shape: tuple[int, ...]) -> bool:
    if not path.exists():
        return False
    try:
        found = np.lib.format.open_memmap(path, "r")
        if (found.shape, found.dtype) != (shape, np.uint8):
            raise ValueError("another array")
    except Exception as error:  # numpy's reading of a damaged header ends in many ways
        os.replace(path, path.with_suffix(".damaged"))
        print(f"{path} is damaged ({error}): set aside, the bank starts anew.")
        return False
    return True


def _write_zeros(path: Path, shape: tuple[int, ...]) -> None:
    """A uint8 array of zeros, every byte of it on the disk.

    A memory map over a file with holes would end the process where the disk is full.
    """
    new = path.with_suffix(".new")
    with open(new, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(shape[0]):
            file.write(bytes(math.prod(shape[1:])))
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _digest_of(images: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(images.tobytes()).digest(), np.uint8)


def fill_bank(
    folder: Path, make: Callable[[slice, int], np.ndarray], batch: int, seed: int, rank: int = 0, world: int = 1
) -> None:
    """Fills those batches of the bank that are not done: every `world`-th, from `rank` on.

    A batch is done when its digest is that of its images: one that was damaged since is made anew.
    Each batch has a seed of its own: a bank does not depend on where an earlier run was cut off, nor
    on how many processes filled it.

    Args:
        make: `(rows, seed) -> candidates` of the anchors in `rows`, uint8 `(B, k, H, W, 3)`.
    """
    bank, done = (np.load(folder / name, mmap_mode="r+") for name in ("bank.npy", "done.npy"))
    batches = {i: slice(i * batch, (i + 1) * batch) for i in range(rank, len(done), world)}
    begun = [i for i in batches if done[i].any()]  # only these are read: a bank may be large
    damaged = [i for i in begun if not np.array_equal(done[i], _digest_of(bank[batches[i]]))]
    for i in damaged:
        print(f"Batch {i} of {folder / 'bank.npy'} is damaged: made anew.")
    todo = {i: rows for i, rows in batches.items() if i in damaged or i not in begun}
    for i, rows in tqdm(todo.items(), "candidates", leave=False, disable=rank > 0):
        bank[rows] = make(rows, training.seed_for(seed, "bank", i))
        bank.flush()  # the digest follows the images
        done[i] = _digest_of(bank[rows])
        done.flush()
