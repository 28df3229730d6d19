"""Every data set by the name that the settings give it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from clsp_utils.config import Data, change, home
from clsp_utils.data.digits import read_digits
from clsp_utils.data.image_folder import arrangement, located, read_folder, resize_all
from clsp_utils.data.imagenet100 import read_imagenet100, read_wnids
from clsp_utils.data.images import (
    DataError,
    Images,
    classes_in_turn,
    split_by_group,
    unusable,
)
from clsp_utils.data.published import PUBLISHED, read_published

# A reader gives training and test split (None: there is none), at `cfg.size`.
READERS: dict[str, Callable[[Data], tuple[Images, Images | None]]] = {
    "digits": read_digits,
    "folder": lambda cfg: read_folder(located(cfg.path), cfg.size),
    "imagenet100": read_imagenet100,
    **dict.fromkeys(PUBLISHED, read_published),
}


def load(cfg: Data) -> tuple[Images, Images]:
    """Training split and the split to evaluate on.

    The second is the test split, or, where there is none, a fifth of the training groups; those are
    then missing from the first. With `cfg.evaluate_on="validation"` it is a fifth of the training
    groups in any case. `cfg.limit` keeps so many of each: the first of the digits, which are in
    random order; of other images the first of every class, since files may be sorted by class.
    STL-10's training split is its 5,000 labelled images and then its 100,000 unlabelled ones, whose
    label is -1 (see `Images.labelled`).

    Raises:
        DataError: the images that `cfg` names cannot be used; one sentence says why.
    """
    train, test = read(cfg)
    if test is None:
        train, test = split_by_group(train, 0.2)
    if cfg.evaluate_on == "validation":
        train, test = split_by_group(train, 0.2)
    if cfg.limit and cfg.name == "digits":
        return train[: cfg.limit], test[: cfg.limit]
    if cfg.limit:
        return classes_in_turn(train, cfg.limit), classes_in_turn(test, cfg.limit)
    return train, test


def read(cfg: Data) -> tuple[Images, Images | None]:
    """The splits as the data set has them (see `READERS`).

    With `cfg.full_size` they are read at that size, and resized once more: what is cut are the
    images of the training split as they were read. Those of the test split are not kept.

    Raises:
        DataError: the images that `cfg` names cannot be used; one sentence says why.
    """
    try:
        if not cfg.full_size:
            return READERS[cfg.name](cfg)
        train, test = READERS[cfg.name](change(cfg, size=cfg.full_size))
        return _resized(train, cfg.size, keep=True), test and _resized(test, cfg.size, keep=False)
    except OSError as error:  # no permission, or the disk is full or broken
        where = error.filename or (located(cfg.path) if cfg.path else home("data"))
        reason = error.strerror or type(error).__name__
        raise unusable(str(where), reason) from None
    except MemoryError:
        largest = f"full_size={cfg.full_size}" if cfg.full_size else f"size={cfg.size}"
        raise DataError(
            f"{largest}: the images do not fit into memory; use a smaller size."
        ) from None


def check_place(cfg: Data) -> None:
    """Refuses what `read` would refuse of a path, as far as that is seen without reading images.

    Raises:
        DataError: there is nothing, or the folders are not arranged as they must be.
    """
    if cfg.name == "folder":
        arrangement(located(cfg.path))
    elif cfg.name == "imagenet100":
        arrangement(located(cfg.path), ("val",), read_wnids(located(cfg.wnids)))
    elif not located(cfg.path).exists():
        raise unusable(cfg.path, "there is no such file or folder")


def _resized(split: Images, size: int, keep: bool) -> Images:
    small = resize_all([split.images], size)
    return replace(split, images=small, full=split.images if keep else None)


def fingerprint(*splits: Images) -> dict:
    """What a result takes from these splits, for its key, wherever they lie."""
    digest = hashlib.sha256()
    for array in (array for one in splits for array in (one.images, one.labels, one.full)):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return {"class_names": splits[0].class_names, "sha256": digest.hexdigest()}
