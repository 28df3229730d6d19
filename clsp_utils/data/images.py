"""A split of a data set as arrays, and what every reader of images shares."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        groups: int64 `(N,)`; images that share a group share their content (the same stroke) and
            must never be on both sides of a split.
        class_names: one name per class.
        background: float32 `(N, H, W, 3)` in [0, 1], what lies behind the content, or None where
            the data set does not know it.
        factors: what the background was drawn from, name -> array of length N (digits only).
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    background: np.ndarray | None = None
    factors: dict[str, np.ndarray] | None = None

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
        )

    @property
    def labelled(self) -> "Images":
        """The part that has labels, or a DataError if there is none."""
        has_label = self.labels >= 0
        if not has_label.any():
            raise DataError("None of these images has a label, so there is nothing to score.")
        return self if has_label.all() else self[has_label]

    @property
    def background_or_image(self) -> np.ndarray:
        """What backgrounds are compared with: the true ones, or the images if nobody knows them."""
        return self.images if self.background is None else self.background

    @property
    def statistics(self) -> ChannelStatistics:
        """Mean and standard deviation of each channel; exact, from sums of integers."""
        n, total, squares = self.images[..., 0].size, np.zeros(3, np.int64), np.zeros(3, np.int64)
        for start in range(0, len(self), 256):  # a large data set as int64 does not fit into memory
            x = self.images[start : start + 256].reshape(-1, 3).astype(np.int64)
            total += x.sum(0)
            squares += (x**2).sum(0)
        sums = zip(total.tolist(), squares.tolist())  # n * squares is too large for int64
        moments = ((t / n / 255, (n * s - t**2) ** 0.5 / n / 255) for t, s in sums)
        mean, std = zip(*moments)
        return ChannelStatistics(mean, std)


def each_its_own_group(
    train: Split, test: Split | None, class_names: tuple[str, ...]
) -> tuple[Images, Images | None]:
    """Two splits in which every image is a group of its own (None: there is no test split)."""
    first = Images(*train, np.arange(len(train[1])), class_names)
    if test is None:
        return first, None
    return first, Images(*test, len(first) + np.arange(len(test[1])), class_names)


def split_by_group(data: Images, fraction: float, seed: int = 0) -> tuple[Images, Images]:
    """Splits so that no group is on both sides; classes are kept in proportion.

    A group has one class; images without a label count as one.

    Args:
        fraction: share of the groups that goes to the second part.

    Raises:
        DataError: there are too few groups for every class to be on both sides.
    """
    groups, first = np.unique(data.groups, return_index=True)
    labels = data.labels[first]
    try:
        kept, held = train_test_split(
            groups, test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError:
        n_classes = len(np.unique(labels))
        raise DataError(
            f"{len(groups)} images of {n_classes} class(es) are too few to hold out "
            f"{fraction:.0%} of every class."
        ) from None
    return data[np.isin(data.groups, kept)], data[np.isin(data.groups, held)]
