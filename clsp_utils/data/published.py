"""Published data sets, each of which has one original: CIFAR-10, CIFAR-100 and STL-10.

torchvision knows their addresses, files and checksums. Its own classes are not used: they name no
file that is wrong, and hold all of STL-10 in memory. Nothing in a file is trusted: Python pickles
are opened only if their checksum is the published one. Nothing is written outside the project's
`data/`.
"""

import os
import pickle
import posixpath
import shutil
import tarfile
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_url

from clsp_utils.config import Data, home
from clsp_utils.data.image_folder import located, read_folder, resize_all
from clsp_utils.data.images import DataError, Images, grouped_by_pixels, printable, unusable
from clsp_utils.data.npz import read_npz
from clsp_utils.data.pixels import ChannelStatistics

Original = type[datasets.CIFAR10] | type[datasets.STL10]
Parts = tuple[list[np.ndarray], np.ndarray]  # images in parts, each (n, H, W, 3), and all labels

# What encoders are often trained with in place of the true statistics; the paper's authors do it.
NORMALISATION = {
    "cifar10": ChannelStatistics((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ChannelStatistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": ChannelStatistics((0.4914, 0.4823, 0.4466), (0.2470, 0.2430, 0.2610)),
}

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


class Published(NamedTuple):
    """A published data set and how the files of its original are read."""

    title: str
    original: Original
    mebibytes: int  # of the archive
    classes: tuple[str, ...]
    parts: Callable[["Published", Path], tuple[Parts, Parts]]  # of a folder that was verified

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name and md5 of every file."""
        return [*self.original.train_list, *self.original.test_list]


def read_published(cfg: Data) -> tuple[Images, Images | None]:
    """Both splits, from an .npz file, the original archive, its unpacked folder, or class folders.

    Without `cfg.path`, from the project's `data/`, after a download if they are not there.

    Raises:
        DataError: there is nothing there, or it is not what was expected.
    """
    source, path = PUBLISHED[cfg.name], located(cfg.path) if cfg.path else None
    splits: Sequence[Parts]
    if path is None or (os.path.isfile(path) and path.suffix != ".npz"):
        splits = source.parts(source, _unpacked(source, path))
    elif os.path.isfile(path):
        splits = [([x], y) for x, y in read_npz(path, len(source.classes))]
    else:
        places = (path, path / source.original.base_folder)
        unpacked = [p for p in places if any(os.path.isfile(p / name) for name, _ in source.files)]
        if not unpacked:
            found = read_folder(path, cfg.size)
            if len(found[0].class_names) != len(source.classes):
                other = (
                    f"{len(found[0].class_names)} class folders in place of {len(source.classes)}"
                )
                raise unusable(path, f"this is not {source.title}, with {other}")
            return found
        splits = source.parts(source, _verified(source, unpacked[0]))
    train, test = ((resize_all(parts, cfg.size), labels) for parts, labels in splits)
    return grouped_by_pixels(train, test, source.classes)


def _verified(source: Published, folder: Path) -> Path:
    """`folder`, if every file in it is the published one."""
    wrong = [name for name, md5 in source.files if not check_integrity(folder / name, md5)]
    if wrong:
        what = f"{', '.join(wrong)} missing or not as published with {source.title} (md5)"
        raise unusable(folder, f"{what}, and other files are not opened")
    return folder


def _unpacked(source: Published, archive: Path | None) -> Path:
    """The folder in data/ with the files of the archive (None: the project's own), verified."""
    original = source.original
    folder = home("data", original.base_folder)
    if archive and not check_integrity(archive, original.tgz_md5):
        one = f"the archive {original.filename} of {source.title}, whose md5 is {original.tgz_md5}"
        raise unusable(archive, f"this is neither an .npz file nor {one}")
    try:
        return _verified(source, folder)
    except DataError:
        pass  # not there yet, or an earlier unpacking was cut off
    if folder.is_symlink():
        raise unusable(
            folder, "this link leads to incomplete files, which are not touched; remove it"
        )
    archive = archive or _downloaded(source)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{original.base_folder}/{name}": folder / name for name, _ in source.files}
    part = folder / ".part"
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:  # one pass; of what else there is in the archive nothing is written
            target = wanted.get(posixpath.normpath(member.name))
            packed = tar.extractfile(member) if target and member.isreg() else None
            if target and packed:
                with packed, open(part, "wb") as file:
                    shutil.copyfileobj(packed, file)
                part.replace(target)
    return _verified(source, folder)


def _downloaded(source: Published) -> Path:
    """The archive in the project's data/, after a download if it is not there."""
    folder, original = home("data"), source.original
    if not check_integrity(folder / original.filename, original.tgz_md5):
        print(
            f"{source.title}: downloading {source.mebibytes} MiB from {original.url} to "
            f"{printable(folder)}; where the host is slow this takes an hour.",
            flush=True,
        )
        try:
            download_url(original.url, folder, original.filename, original.tgz_md5)
        except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: wrong checksum
            reason = getattr(error, "reason", None) or type(error).__name__
            raise DataError(
                f"{source.title} could not be downloaded ({printable(str(reason))}): bring "
                f"{original.filename} from elsewhere and name it with data.path."
            ) from None
    return folder / original.filename


def _cifar(source: Published, folder: Path) -> tuple[Parts, Parts]:
    def split(files: list) -> Parts:
        batches = [pickle.loads((folder / x).read_bytes(), encoding="latin1") for x, _ in files]
        images = [b["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for b in batches]
        labels = [b.get("fine_labels") or b["labels"] for b in batches]  # of CIFAR-100, or -10
        return images, np.concatenate(labels, dtype=np.int64)

    return split(source.original.train_list), split(source.original.test_list)


def _stl10(source: Published, folder: Path) -> tuple[Parts, Parts]:
    """The labelled training images, then the unlabelled ones with labels -1; the test images."""

    def images(name: str) -> np.ndarray:  # 2.6 GiB are unlabelled: left on the disk until resized
        pixels = np.memmap(folder / f"{name}_X.bin", np.uint8, "r")
        return pixels.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)

    def labels(name: str) -> np.ndarray:
        return np.fromfile(folder / f"{name}_y.bin", np.uint8).astype(np.int64) - 1  # 1..10 there

    parts = [images("train"), images("unlabeled")]
    train_labels = np.append(labels("train"), np.full(len(parts[1]), -1))
    return (parts, train_labels), ([images("test")], labels("test"))


PUBLISHED = {
    "cifar10": Published("CIFAR-10", datasets.CIFAR10, 163, tuple(CIFAR10.split()), _cifar),
    "cifar100": Published("CIFAR-100", datasets.CIFAR100, 161, tuple(CIFAR100.split()), _cifar),
    "stl10": Published("STL-10", datasets.STL10, 2518, tuple(STL10.split()), _stl10),
}
