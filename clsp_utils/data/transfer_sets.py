"""Other data sets that features travel to, each as training, validation and test split.

Those of `drawn_sets` need nothing. The others are read by torchvision's own classes from a folder
in the layout that these expect; nothing is downloaded. Where a data set has no validation split of
its own, a fifth of the training images is held out.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torchvision import datasets
from tqdm import tqdm

from clsp_utils.config import Transfer, home
from clsp_utils.data.drawn_sets import Splits, draw_glyphs, draw_textures, draw_waves
from clsp_utils.data.image_folder import centre_crop, located
from clsp_utils.data.images import (
    Split,
    grouped_by_pixels,
    split_by_group,
    unusable,
)

DRAWN: dict[str, Callable[[Transfer, int], Splits]] = {
    **{name: partial(draw_glyphs, name) for name in ("printed", "letters", "scripts")},
    "textures": draw_textures,
    "waves": draw_waves,
}


class Original(NamedTuple):
    """A data set that torchvision reads.

    Attributes:
        dataset: its class.
        layout: what that expects in its folder.
        train, validation, test: its arguments for each split. None: the data set has no such split.
        per_class: whether the field reports the mean accuracy of the classes, else top-1.
    """

    dataset: type
    layout: str
    train: dict[str, Any]
    validation: dict[str, Any] | None
    test: dict[str, Any] | None
    per_class: bool = False


def _splits(train: str, validation: str | None, test: str) -> dict[str, Any]:
    """The arguments of a class that takes the name of a split."""
    named = {"train": train, "validation": validation, "test": test}
    return {which: name and {"split": name} for which, name in named.items()}


ORIGINALS = {
    "cifar10": Original(
        datasets.CIFAR10, "cifar-10-batches-py/ with data_batch_1 to 5, test_batch, batches.meta",
        {"train": True}, None, {"train": False},
    ),
    "cifar100": Original(
        datasets.CIFAR100, "cifar-100-python/ with train, test and meta",
        {"train": True}, None, {"train": False},
    ),
    "pets": Original(
        datasets.OxfordIIITPet, "oxford-iiit-pet/ with images/ and annotations/",
        **_splits("trainval", None, "test"), per_class=True,
    ),
    "flowers": Original(
        datasets.Flowers102, "flowers-102/ with jpg/, imagelabels.mat and setid.mat",
        **_splits("train", "val", "test"), per_class=True,
    ),
    "dtd": Original(
        datasets.DTD, "dtd/dtd/ with images/ and labels/", **_splits("train", "val", "test"),
    ),
    "caltech101": Original(
        datasets.Caltech101, "caltech101/ with 101_ObjectCategories/ and Annotations/",
        {}, None, None, per_class=True,
    ),
    "food101": Original(
        datasets.Food101, "food-101/ with images/ and meta/", **_splits("train", None, "test"),
    ),
    "aircraft": Original(
        datasets.FGVCAircraft, "fgvc-aircraft-2013b/data/ with images/ and the lists of images",
        **_splits("train", "val", "test"), per_class=True,
    ),
    "cars": Original(
        datasets.StanfordCars,
        "stanford_cars/ with devkit/, cars_train/, cars_test/ and cars_test_annos_withlabels.mat",
        **_splits("train", None, "test"),
    ),
}  # fmt: skip
CALTECH_TRAIN = 30  # training images of each class of Caltech101, as the field takes them


def load_transfer(name: str, cfg: Transfer, size: int) -> Splits:
    """The splits of a data set, of which no two share content.

    Args:
        name: one of `config.TransferName`.
        size: pixels a side of what is returned: that which the encoders were trained on.

    Raises:
        DataError: torchvision does not find what it expects; one sentence says what and where.
    """
    if name in DRAWN:
        return DRAWN[name](cfg, size)
    return _read_original(ORIGINALS[name], located(cfg.path) if cfg.path else home("data"), size)


def scored_per_class(name: str) -> bool:
    """Whether the field reports the mean accuracy of this data set's classes, else top-1."""
    return name in ORIGINALS and ORIGINALS[name].per_class


def _read_original(source: Original, folder: Path, size: int) -> Splits:
    named = (source.train, source.validation, source.test)
    try:
        train, validation, test = (
            None if arguments is None else _read_split(source.dataset, folder, size, arguments)
            for arguments in named
        )
    except (OSError, RuntimeError, ValueError, KeyError, IndexError):  # each class has its own
        raise unusable(
            folder,
            f"torchvision's {source.dataset.__name__} does not find all that it expects in this "
            f"folder: {source.layout} (name another folder with transfer.path)",
        ) from None
    assert train is not None
    if test is None:
        train, test = _first_of_each_class(train, CALTECH_TRAIN)
    n_own = len(train[1])
    if validation is not None:
        train = (np.concatenate([train[0], validation[0]]), np.append(train[1], validation[1]))
    names = tuple(str(i) for i in range(1 + int(max(train[1].max(), test[1].max()))))
    known, held = grouped_by_pixels(train, test, names)
    assert held is not None
    if validation is not None:
        return Splits(known[:n_own], known[slice(n_own, None)], held)
    return Splits(*split_by_group(known, 0.2), held)


def _read_split(dataset: type, folder: Path, size: int, arguments: dict[str, Any]) -> Split:
    def crop(image: Image.Image) -> np.ndarray:
        return centre_crop(image.convert("RGB"), size)

    images = dataset(folder, transform=crop, download=False, **arguments)
    pixels = np.empty((len(images), size, size, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    for i in tqdm(range(len(images)), dataset.__name__, leave=False):
        pixels[i], labels[i] = images[i]
    return pixels, labels


def _first_of_each_class(data: Split, n: int) -> tuple[Split, Split]:
    """n images of every class, drawn once and for all, and the rest."""
    images, labels = data
    order = np.random.default_rng(0).permutation(len(labels))
    first = np.concatenate([order[labels[order] == one][:n] for one in np.unique(labels)])
    taken = np.isin(np.arange(len(labels)), first)
    return (images[taken], labels[taken]), (images[~taken], labels[~taken])
