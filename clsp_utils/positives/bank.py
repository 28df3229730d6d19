"""The bank of candidates: a memory map that survives a kill and that several processes can fill."""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from clsp_utils.data import unusable
from clsp_utils.runtime import ALONE, Share, seed_for


def open_bank(folder: Path, n: int, k: int, batch: int, image_shape: tuple[int, ...]) -> None:
    """Makes `bank.npy` and `done.npy` in a folder, unless both are there.

    `bank.npy`, uint8 `(n, k, H, W, 3)`, holds the candidates, `done.npy`, uint8 `(batches, 32)`,
    the digest of each batch that is done. Both are read and written as memory maps.

    Args:
        n: anchors; k: candidates of each; batch: anchors per batch.
        image_shape: `(H, W, 3)`.

    Raises:
        OSError: there is no room for them.
    """
    shapes = {"bank.npy": (n, k, *image_shape), "done.npy": (-(-n // batch), 32)}
    if not all(_is_there(folder / name, shape) for name, shape in shapes.items()):
        for name, shape in shapes.items():
            _write_zeros(folder / name, shape)


def _is_there(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the file holds such an array; another or a damaged one is named and set aside."""
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
    """Writes a uint8 array of zeros, every byte of it.

    A memory map over a file with holes would end the process where the disk is full. The zeros are
    written since `posix_fallocate` is not there on every system.
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


def fill_bank(
    folder: Path,
    make: Callable[[slice, int], np.ndarray],
    batch: int,
    seed: int,
    share: Share = ALONE,
) -> None:
    """Makes the candidates of this share of a bank's batches, as far as they are not done.

    A batch is done when its digest is that of its images: one that was damaged since is made anew.
    Each batch has a seed of its own: a bank does not depend on where an earlier run was cut off,
    nor on how many processes filled it.

    Args:
        make: `(rows, seed) -> candidates` of the anchors in `rows`, uint8 `(B, k, H, W, 3)`.
        batch: anchors per batch, as of `open_bank`.
    """
    bank, done = (np.load(folder / name, mmap_mode="r+") for name in ("bank.npy", "done.npy"))
    todo = []
    for i in share.rows(range(len(done))):
        rows = slice(i * batch, (i + 1) * batch)
        if done[i].any():  # only then are its images read: a bank may be large
            if np.array_equal(done[i], _digest(bank[rows])):
                continue
            print(f"Batch {i} of {folder / 'bank.npy'} is damaged: made anew.")
        todo.append((i, rows))
    for i, rows in tqdm(todo, "candidates", leave=False, disable=share.rank > 0):
        bank[rows] = make(rows, seed_for(seed, "bank", i))
        bank.flush()  # the digest follows the images
        done[i] = _digest(bank[rows])
        done.flush()


def _digest(images: np.ndarray) -> np.ndarray:
    """sha256 of the images, uint8 `(32,)`."""
    return np.frombuffer(hashlib.sha256(images.tobytes()).digest(), np.uint8)


def read_bank(source: str, n: int, k: int, size: int) -> np.ndarray:
    """The first k candidates of each anchor in a file, such as the paper's authors release.

    The file is an .npy, uint8 `(n, K, size, size, 3)` with K >= k, RGB. Row i holds the candidates
    of the i-th anchor, in the order of `Dataset.train`: of CIFAR-10 and -100 that is the order of
    the original files, as torchvision has it.

    Args:
        n: anchors.
        size: pixels a side.

    Returns:
        uint8 `(n, k, size, size, 3)`, memory-mapped.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    try:
        bank = np.lib.format.open_memmap(source, "r")
    except OSError as error:
        raise unusable(source, error.strerror or "it cannot be read") from None
    except Exception:  # numpy's reading of another file ends in many ways
        raise unusable(source, "this is no .npy file of numbers that can be read") from None
    found, (_, n_candidates) = bank.shape, (*bank.shape, 0, 0)[:2]
    if bank.dtype != np.uint8 or found != (n, n_candidates, size, size, 3) or n_candidates < k:
        raise unusable(
            source,
            f"it holds {bank.dtype} {found}; {k} candidates of each of these anchors are uint8 "
            f"({n}, {k} or more, {size}, {size}, 3)",
        )
    return bank[:, :k]


def bank_digest(source: str) -> str:
    """SHA-256 of a file of candidates, or a DataError if it cannot be read."""
    try:
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unusable(source, error.strerror or "it cannot be read") from None


def draw_candidates(
    bank: np.ndarray,
    anchors: Tensor,
    g: Generator,
    share: Share = ALONE,
    turn: int | None = None,
) -> Tensor:
    """One candidate of each anchor of this share.

    Args:
        bank: uint8 `(n, k, H, W, 3)`; may be a memory map.
        anchors: rows of the bank `(B,)`, the whole batch.
        turn: which of the k it is, the same for all anchors; None draws one at random for each.

    Returns:
        uint8 `(B / share.world, H, W, 3)`.
    """
    if turn is None:
        picks = torch.randint(bank.shape[1], (len(anchors),), generator=g)
    else:
        picks = torch.full((len(anchors),), turn)
    return torch.from_numpy(bank[share.rows(anchors).numpy(), share.rows(picks).numpy()])


def inflate(
    images: np.ndarray, labels: np.ndarray, bank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The anchors and, as further anchors, all their candidates (inflation, as in AdaInf).

    Args:
        images: anchors, uint8 `(N, H, W, 3)`; labels: `(N,)`.
        bank: their candidates, uint8 `(N, k, H, W, 3)`; is read into memory.

    Returns:
        uint8 `(N + N k, H, W, 3)` and `(N + N k,)`: the anchors first; a candidate has the label of
        its anchor.
    """
    further = np.repeat(labels, bank.shape[1])
    return np.concatenate([images, bank.reshape(-1, *images.shape[1:])]), np.append(labels, further)
