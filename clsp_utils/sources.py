"""Data sets of other people: from archives, arrays and folders to uint8 arrays.

Nothing in foreign files is trusted: they can be used, or there is a `DataError` of one sentence.
Python pickles are opened only if their checksum is the published one. Nothing is written outside
the project's `data/`.
"""

import os
import pickle
import posixpath
import re
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_url
from tqdm import tqdm

from clsp_utils.config import Data, home
from clsp_utils.folders import DataError, Split, few, read_folder, shown, square

RawSplit = tuple[list[np.ndarray], np.ndarray]  # images in parts, each (n, H, W, 3), and all labels

ARRAYS = ("train_x", "train_y", "test_x", "test_y")

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
STL10 = "airplane bird car cat deer dog horse monkey ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


def read(cfg: Data) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Training split, test split (None: there is none), and class names of any data but the digits.

    Images are brought to `cfg.size`: the shorter side resized with antialiasing, then the middle.

    Raises:
        DataError: there is nothing there, or it is not what was expected.
    """
    path, wnids = (home() / os.path.expanduser(name) if name else None for name in (cfg.path, cfg.wnids))
    try:
        if cfg.name == "folder":
            return read_folder(path, cfg.size)
        if cfg.name == "imagenet100":
            return read_folder(path, cfg.size, ("val",), _wnids(wnids))
        return _published(PUBLISHED[cfg.name], path, cfg.size)
    except OSError as error:  # no permission, the disk is full or broken
        where = error.filename or path or home("data")
        raise DataError(f"{shown(str(where))}: {error.strerror or type(error).__name__}.") from None
    except MemoryError:
        raise DataError(f"size={cfg.size}: the images do not fit into memory; use a smaller size.") from None


# Published data sets ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A data set that has one original, of which torchvision knows address, files and checksums."""

    title: str
    original: type[datasets.VisionDataset]
    mebibytes: int
    classes: tuple[str, ...]
    read: Callable[[type, Path], tuple[RawSplit, RawSplit]]  # from a folder that was verified

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name and md5 of every file."""
        return [*self.original.train_list, *self.original.test_list]

    @property
    def folder(self) -> Path:
        return home("data", self.original.base_folder)


def _published(source: Published, path: Path | None, size: int) -> tuple[Split, Split | None, tuple[str, ...]]:
    """From an .npz file, the original archive, its unpacked folder, or class folders of images."""
    if path is None or os.path.isfile(path) and path.suffix != ".npz":
        splits = source.read(source.original, _unpacked(source, path))
    elif os.path.isfile(path):
        splits = _npz(path, len(source.classes))
    else:
        folders = (path, path / source.original.base_folder)
        unpacked = [f for f in folders if any(os.path.isfile(f / name) for name, _ in source.files)]
        if not unpacked:
            train, test, classes = read_folder(path, size)
            if len(classes) != len(source.classes):
                raise DataError(
                    f"{shown(path)}: this is not {source.title}, with {len(classes)} class folders "
                    f"in place of {len(source.classes)}."
                )
            return train, test, classes
        splits = source.read(source.original, _verified(source, unpacked[0]))
    train, test = ((fit(parts, size), labels.astype(np.int64)) for parts, labels in splits)
    return train, test, source.classes


def _verified(source: Published, folder: Path) -> Path:
    """`folder`, if every file in it is the published one."""
    wrong = [name for name, md5 in source.files if not check_integrity(folder / name, md5)]
    if wrong:
        raise DataError(
            f"{shown(folder)}: {', '.join(wrong)} missing or not as published with {source.title} (md5), "
            f"and other files are not opened."
        )
    return folder


def _unpacked(source: Published, archive: Path | None) -> Path:
    """The verified files of the archive (None: the project's own), unpacked into data/ if need be."""
    original = source.original
    if archive and not check_integrity(archive, original.tgz_md5):
        raise DataError(
            f"{shown(archive)}: this is neither an .npz file nor the archive {original.filename} of "
            f"{source.title}, whose md5 is {original.tgz_md5}."
        )
    try:
        return _verified(source, source.folder)
    except DataError:
        pass  # not there yet, or an earlier unpacking was cut off
    if source.folder.is_symlink():
        raise DataError(f"{shown(source.folder)}: this link leads to incomplete files, which are not touched; remove it.")
    archive = archive or _downloaded(source)
    source.folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{original.base_folder}/{name}": source.folder / name for name, _ in source.files}
    part = source.folder / ".part"
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:  # one pass; of what else there is in the archive nothing is written
            target = wanted.get(posixpath.normpath(member.name))
            if target and member.isreg():
                with tar.extractfile(member) as packed, open(part, "wb") as file:
                    shutil.copyfileobj(packed, file)
                part.replace(target)
    return _verified(source, source.folder)


def _downloaded(source: Published) -> Path:
    """The archive in the project's data/, after a download if it is not there."""
    folder, original = home("data"), source.original
    if not check_integrity(folder / original.filename, original.tgz_md5):
        print(
            f"{source.title}: downloading {source.mebibytes} MiB from {original.url} to {shown(folder)}; "
            f"where the host is slow this takes an hour.", flush=True,
        )
        try:
            download_url(original.url, folder, original.filename, original.tgz_md5)
        except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: the checksum is wrong
            reason = getattr(error, "reason", None) or type(error).__name__
            raise DataError(
                f"{source.title} could not be downloaded ({shown(str(reason))}): bring {original.filename} "
                f"from elsewhere and name it with data.path."
            ) from None
    return folder / original.filename


def _read_cifar(original: type, folder: Path) -> tuple[RawSplit, RawSplit]:
    splits = []
    for files in (original.train_list, original.test_list):
        batches = [pickle.loads((folder / name).read_bytes(), encoding="latin1") for name, _ in files]
        images = [batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches]
        labels = [batch["fine_labels" if "fine_labels" in batch else "labels"] for batch in batches]
        splits.append((images, np.concatenate(labels)))
    return splits[0], splits[1]


def _read_stl10(original: type, folder: Path) -> tuple[RawSplit, RawSplit]:
    """The labelled training images, then the unlabelled ones with labels -1; and the test images."""

    def images(name: str) -> np.ndarray:  # 2.6 GiB are unlabelled: left on the disk until resized
        return np.memmap(folder / name, np.uint8, "r").reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)

    def labels(name: str) -> np.ndarray:
        return np.fromfile(folder / name, np.uint8).astype(np.int64) - 1  # 1..10 in the file

    parts = [images("train_X.bin"), images("unlabeled_X.bin")]
    train = parts, np.append(labels("train_y.bin"), np.full(len(parts[1]), -1))
    return train, ([images("test_X.bin")], labels("test_y.bin"))


PUBLISHED = {
    "cifar10": Published("CIFAR-10", datasets.CIFAR10, 163, tuple(CIFAR10.split()), _read_cifar),
    "cifar100": Published("CIFAR-100", datasets.CIFAR100, 161, tuple(CIFAR100.split()), _read_cifar),
    "stl10": Published("STL-10", datasets.STL10, 2518, tuple(STL10.split()), _read_stl10),
}


def _npz(path: Path, n_classes: int) -> tuple[RawSplit, RawSplit]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ARRAYS if name not in file.files]
            arrays = {name: file[name] for name in ARRAYS if not missing}
    except Exception:  # of zipfile, zlib, numpy and others, each with errors of its own
        raise DataError(
            f"{shown(path)}: this is no .npz file, or damaged, or it holds Python objects, which are not loaded."
        ) from None
    if missing:
        raise DataError(f"{shown(path)}: {', '.join(missing)} missing; the arrays must be {', '.join(ARRAYS)}.")
    splits = []
    for part in ("train", "test"):
        x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or not x.size:
            raise DataError(f"{shown(path)}: {part}_x is {x.dtype} {x.shape}; it must be uint8 (N, H, W, 3), RGB.")
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise DataError(f"{shown(path)}: {part}_y is {y.dtype} {y.shape}; it must be {len(x)} integers.")
        if y.min() < -1 or y.max() >= n_classes:
            raise DataError(
                f"{shown(path)}: the labels {part}_y run from {y.min()} to {y.max()}; they must be "
                f"0 to {n_classes - 1}, or -1 for none."
            )
        splits.append(([x], y))
    return splits[0], splits[1]


def fit(parts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Images in parts, each uint8 `(n, H, W, 3)`, as one array `(N, size, size, 3)`."""
    out = np.empty((sum(map(len, parts)), size, size, 3), np.uint8)
    if all(part.shape[1:3] == (size, size) for part in parts):
        return np.concatenate(parts, out=out)
    for i, image in enumerate(tqdm(chain.from_iterable(parts), "resizing", len(out), leave=False)):
        out[i] = square(Image.fromarray(np.asarray(image)), size)
    return out


def _wnids(path: Path) -> tuple[str, ...]:
    """The classes of ImageNet-100, sorted, from a text file with one wnid at the start of each line."""
    if not os.path.isfile(path):
        raise DataError(f"{shown(path)}: there is no such file.")
    wnids = {line.split()[0] for line in path.read_text(errors="replace").splitlines() if line.strip()}
    wrong = sorted(wnid for wnid in wnids if not re.fullmatch(r"n\d{8}", wnid))
    if wrong:
        raise DataError(f"{shown(path)}: each line must start with a wnid such as n02869837, not with {few(wrong)}.")
    if len(wnids) != 100:
        raise DataError(f"{shown(path)}: there are {len(wnids)} different wnids in this list; ImageNet-100 has 100.")
    return tuple(sorted(wnids))
