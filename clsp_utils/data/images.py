"""A split of a data set as arrays, and what every reader of images shares."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from clsp_utils.config import ConfigError
from clsp_utils.data.pixels import ChannelStatistics

Split = tuple[np.ndarray, np.ndarray]  # images uint8 (N, H, W, 3), labels int64 (N,), -1 = none


class DataError(ConfigError):
    """Images that cannot be used; one sentence says which and what is expected."""


def printable(name: str | Path) -> str:
    """A name as it can be printed on one line, whatever characters it has."""
    name = os.fspath(name)
    return name if name.isprintable() else ascii(name)[1:-1]


def unusable(path: str | Path, reason: str) -> DataError:
    """The error of one sentence that says why what lies at `path` cannot be used."""
    return DataError(f"{printable(path)}: {reason}.")


def first_three(names: Sequence[str]) -> str:
    """The first three of some names, printable."""
    return ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")


@dataclass(frozen=True)
class Images:
    """A split of a data set.

    Attributes:
        images: uint8 `(N, H, W, 3)`, 0..255, RGB.
        labels: int64 `(N,)`; -1 where an image has none.
        groups: int64 `(N,)`; images that share a group share their content (the same stroke, the
            same pixels) and must never be on both sides of a split.
        class_names: one name per class.
        background: float32 `(N, H, W, 3)` in [0, 1], what lies behind the content, or None where
            the data set does not know it.
        factors: what the background was drawn from, name -> array of length N (digits only).
        full: the same images larger, uint8 `(N, F, F, 3)`, which views are cut from; None: there
            are none. N F F 3 bytes of memory: 2.9 GB of STL-10's 105,000 images of 96 pixels.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    background: np.ndarray | None = None
    factors: dict[str, np.ndarray] | None = None
    full: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | np.ndarray) -> "Images":
        """The images at `index` (a slice, integers or booleans), as a smaller split."""
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            groups=self.groups[index],
            background=None if self.background is None else self.background[index],
            factors=self.factors and {name: x[index] for name, x in self.factors.items()},
            full=None if self.full is None else self.full[index],
        )

    @property
    def labelled(self) -> "Images":
        """The part that has labels, or a DataError if there is none."""
        has_label = self.labels >= 0
        if not has_label.any():
            raise DataError(
                "None of these images has a label, so there is nothing to score: a label is the "
                "class folder that an image lies in, or a number from 0 on in an .npz."
            )
        return self if has_label.all() else self[has_label]

    @property
    def n_classes_present(self) -> int:
        """How many classes have an image here: an archive may hold two of CIFAR's ten."""
        return len(np.unique(self.labels[self.labels >= 0]))

    @property
    def chance(self) -> float:
        """Accuracy of guessing among the classes that are present, in (0, 1]."""
        return 1 / max(1, self.n_classes_present)

    @property
    def background_or_image(self) -> np.ndarray:
        """What backgrounds are compared with: the true ones, or the images if nobody knows them."""
        return self.images if self.background is None else self.background

    @property
    def to_cut(self) -> np.ndarray:
        """What views are cut from: the larger images, or the images if there are none."""
        return self.images if self.full is None else self.full

    @property
    def statistics(self) -> ChannelStatistics:
        """Mean and standard deviation of each channel; exact, from sums of integers."""
        n, total, squares = self.images[..., 0].size, np.zeros(3, np.int64), np.zeros(3, np.int64)
        for start in range(0, len(self), 256):  # a large data set as int64 does not fit into memory
            x = self.images[start : start + 256].reshape(-1, 3).astype(np.int64)
            total += x.sum(0)
            squares += (x**2).sum(0)
        # As Python's integers, since n * squares is too large for int64.
        sums = zip(total.tolist(), squares.tolist(), strict=True)
        moments = ((t / n / 255, (n * s - t**2) ** 0.5 / n / 255) for t, s in sums)
        mean, std = zip(*moments, strict=True)
        return ChannelStatistics(mean, std)


def grouped_by_pixels(
    train: Split, test: Split | None, class_names: tuple[str, ...]
) -> tuple[Images, Images | None]:
    """Two splits in which images of the same pixels are one group (None: there is no test split).

    A mirrored image is the same. How many test images are in the training split too is printed;
    they stay where they are.
    """
    groups = pixel_groups(chain(train[0], test[0] if test else ()))
    n = len(train[1])
    first = Images(*train, groups[:n], class_names)
    if test is None:
        return first, None
    second = Images(*test, groups[n:], class_names)
    if shared := np.isin(second.groups, first.groups).sum():
        print(f"{shared} of {len(second)} test images are in the training split too.")
    return first, second


def pixel_groups(images: Iterable[np.ndarray]) -> np.ndarray:
    """For each image the number of the first of the same pixels, mirrored or not: `(N,)`.

    Args:
        images: uint8 `(H, W, 3)` each.
    """
    first_seen: dict[bytes, int] = {}
    either = (min(image.tobytes(), image[:, ::-1].tobytes()) for image in images)
    digests = (hashlib.blake2b(pixels).digest() for pixels in either)
    return np.array([first_seen.setdefault(x, i) for i, x in enumerate(digests)], np.int64)


def split_rows(data: Images, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two parts that `split_by_group` makes."""
    groups, first = np.unique(data.groups, return_index=True)
    labels = data.labels[first]
    try:
        kept, held = train_test_split(
            groups, test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError:
        sizes = np.unique(labels, return_counts=True)[1]
        copies = f" ({len(data)} with copies)" if len(data) > len(groups) else ""
        raise DataError(
            f"{len(groups)} images{copies} of {len(sizes)} class(es), where the smallest has "
            f"{sizes.min()} and 10 are enough, are too few to hold out {fraction:.0%} of every "
            f"class."
        ) from None
    return np.flatnonzero(np.isin(data.groups, kept)), np.flatnonzero(np.isin(data.groups, held))


def split_by_group(data: Images, fraction: float, seed: int = 0) -> tuple[Images, Images]:
    """Splits so that no group is on both sides; classes are kept in proportion.

    A group counts for the class of its first image; images without a label count as one class.

    Args:
        fraction: share of the groups that goes to the second part.

    Raises:
        DataError: there are too few groups for every class to be on both sides.
    """
    kept, held = split_rows(data, fraction, seed)
    return data[kept], data[held]


def by_class(labels: np.ndarray) -> np.ndarray:
    """Rows in an order in which classes take turns: the first of each, then the second of each.

    Args:
        labels: `(N,)`; images without a label (-1) count as one class.

    Returns:
        `(N,)`, each row once.
    """
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = labels == label
        turn[of_class] = np.arange(of_class.sum())
    return np.lexsort((labels, turn))


def classes_in_turn(data: Images, n: int) -> Images:
    """The n images that come first if classes take turns, in the order of `data`.

    Files are often sorted by class, and their first n images would be of one class.
    """
    return data[np.sort(by_class(data.labels)[:n])]
