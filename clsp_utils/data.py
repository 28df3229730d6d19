"""Data sets as uint8 arrays: images `(N, H, W, 3)`, labels `(N,)`, class names, statistics.

The default data set, `digits`, needs no download. Handwritten digits that scikit-learn bundles are
drawn in a random ink on a gradient between two random colours. The digit is the *content*, the rest
is the *background*. Both are known exactly, which no photograph offers. The sets of other people are
read by `sources` and `folders`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from clsp_utils import sources
from clsp_utils.config import Data, as_dict
from clsp_utils.folders import DataError

LUMA = (0.299, 0.587, 0.114)  # lightness of RGB (ITU-R 601)
CONTRAST = 0.3  # least difference in lightness between ink and background, of 1


@dataclass(frozen=True)
class Images:
    """A split of a data set.

    Attributes:
        images: uint8 `(N, H, W, 3)`, 0..255, RGB.
        labels: int64 `(N,)`; -1 where an image has none.
        groups: int64 `(N,)`; images that share a group share their content (the same stroke) and
            must never be on both sides of a split.
        background: float32 `(N, H, W, 3)` in [0, 1], what lies behind the content, or None where
            the data set does not know it.
        factors: what the background was drawn from, name -> array of length N (digits only).
        class_names: one name a class.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    background: np.ndarray | None = None
    factors: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> "Images":
        """The images at `index` (a slice or an integer array), as a smaller split."""
        pick = lambda x: None if x is None else x[index]  # noqa: E731
        factors = self.factors and {name: x[index] for name, x in self.factors.items()}
        return replace(
            self, images=self.images[index], labels=self.labels[index], groups=self.groups[index],
            background=pick(self.background), factors=factors,
        )

    @property
    def labelled(self) -> "Images":
        """The part that has labels, or a DataError if there is none."""
        has_label = self.labels >= 0
        if not has_label.any():
            raise DataError("None of these images has a label, so there is nothing to score.")
        return self if has_label.all() else self[has_label]

    @property
    def behind(self) -> np.ndarray:
        """What backgrounds are compared with: the true ones, or the images where nobody knows them."""
        return self.images if self.background is None else self.background

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, in [0, 1]; exact, from sums of integers."""
        n, total, squares = self.images[..., 0].size, np.zeros(3, np.int64), np.zeros(3, np.int64)
        for start in range(0, len(self), 256):  # a large data set does not fit into memory as int64
            x = self.images[start : start + 256].reshape(-1, 3).astype(np.int64)
            total += x.sum(0)
            squares += (x**2).sum(0)
        pairs = list(zip(total.tolist(), squares.tolist()))  # n * squares is too large for int64
        return tuple(t / n / 255 for t, _ in pairs), tuple((n * s - t**2) ** 0.5 / n / 255 for t, s in pairs)


def split_by_group(data: Images, fraction: float, seed: int = 0) -> tuple[Images, Images]:
    """Splits so that no group is on both sides; `fraction` of the groups go to the second part.

    Classes are kept in proportion, since a group has one class; images without a label count as one.

    Raises:
        DataError: there are too few groups for every class to be on both sides.
    """
    groups, first = np.unique(data.groups, return_index=True)
    labels = data.labels[first]
    try:
        kept, held = train_test_split(groups, test_size=fraction, random_state=seed, stratify=labels)
    except ValueError:
        n_classes = len(np.unique(labels))
        raise DataError(
            f"{len(groups)} images of {n_classes} class(es) are too few to hold out {fraction:.0%} of every class."
        ) from None
    return data[np.isin(data.groups, kept)], data[np.isin(data.groups, held)]


def draw_factors(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws what makes `n` backgrounds, and the ink of the content on each.

    A background runs from one colour to another along a direction. All colours are uniform in RGB,
    given that the ink is lighter than both of the background's colours, or darker than both, by
    `CONTRAST`: a digit can be read wherever it lies, and no lightness says what is ink.

    Returns:
        `angle` in [0, 2 pi); `colour_a`, `colour_b` and `ink` as `(n, 3)` in [0, 1].
    """
    angle = rng.uniform(0, 2 * np.pi, n)
    colours = rng.random((3, n, 3))
    while True:
        a, b, ink = colours @ LUMA
        near = np.minimum(np.abs(ink - a), np.abs(ink - b)) < CONTRAST
        redo = near | ((ink > a) != (ink > b))
        if not redo.any():
            return {"angle": angle} | dict(zip(("colour_a", "colour_b", "ink"), colours))
        colours[:, redo] = rng.random((3, redo.sum(), 3))


def draw_background(factors: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Gradients `(N, size, size, 3)` in [0, 1] from their factors (see `draw_factors`)."""
    grid = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    angle = factors["angle"][:, None, None]
    position = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(0.5)  # corner to corner: -1 .. 1
    a, b = factors["colour_a"][:, None, None], factors["colour_b"][:, None, None]
    return a + (b - a) * (0.5 + 0.5 * position[..., None])


def draw_digits(strokes: np.ndarray, draws: int, size: int, rng: np.random.Generator):
    """Draws each stroke `draws` times, each time with its own background and ink.

    Args:
        strokes: `(N, 8, 8)` ink coverage in [0, 1].

    Returns:
        images uint8 `(N * draws, size, size, 3)`, backgrounds in [0, 1], and the factors.
    """
    cover = ndimage.zoom(strokes, (1, size / 8, size / 8), order=1, grid_mode=True, mode="nearest")
    cover = np.repeat(cover, draws, axis=0).clip(0, 1)[..., None]
    factors = draw_factors(len(cover), rng)
    background = draw_background(factors, size)
    image = cover * factors["ink"][:, None, None] + (1 - cover) * background
    return np.rint(image * 255).astype(np.uint8), background.astype(np.float32), factors


def _digits(cfg: Data) -> tuple[Images, Images]:
    bunch = load_digits()
    strokes, labels = bunch.images / 16.0, bunch.target.astype(np.int64)
    parts = train_test_split(np.arange(len(labels)), test_size=500, random_state=0, stratify=labels)
    names = tuple(str(name) for name in bunch.target_names)
    splits = []
    for part, draws, seed in zip(parts, (cfg.draws, 2), (1, 2)):
        images, background, factors = draw_digits(
            strokes[part], draws, cfg.size, np.random.default_rng(seed)
        )
        splits.append(Images(
            images, np.repeat(labels[part], draws), np.repeat(part, draws), names, background, factors
        ))
    return splits[0], splits[1]


def _foreign(cfg: Data) -> tuple[Images, Images]:
    """Every image is a group of its own; a fifth is held out where there is no test split."""
    (images, labels), test, names = sources.read(cfg)
    train = Images(images, labels, np.arange(len(labels)), names)
    if test is None:
        return split_by_group(train, 0.2)
    return train, Images(*test, len(train) + np.arange(len(test[1])), names)


def load(cfg: Data) -> tuple[Images, Images]:
    """Training split and the split to evaluate on.

    The second is the test split, or, with `cfg.evaluate_on="validation"`, a fifth of the training
    groups; those are then missing from the first. `cfg.limit` keeps the first so many of each.
    STL-10's training split is its 5,000 labelled images and then its 100,000 unlabelled ones, whose
    label is -1 (see `Images.labelled`).

    Raises:
        DataError: the images that `cfg` names cannot be used; one sentence says why.
    """
    train, test = _digits(cfg) if cfg.name == "digits" else _foreign(cfg)
    if cfg.evaluate_on == "validation":
        train, test = split_by_group(train, 0.2)
    limit = slice(cfg.limit or None)
    return train[limit], test[limit]


def fingerprint(cfg: Data, splits: Callable[[], tuple[Images, Images]]) -> dict:
    """What a result made from these data depends on, for its key.

    The digits follow from their settings. Of all else only the content counts, wherever it lies:
    `splits()` gives what was loaded.
    """
    settings = as_dict(cfg)
    del settings["path"], settings["wnids"]
    if cfg.name != "digits":
        train, test = splits()
        digest = hashlib.sha256()
        for array in (train.images, train.labels, test.images, test.labels):
            digest.update(np.ascontiguousarray(array))
        settings |= {"class_names": train.class_names, "sha256": digest.hexdigest()}
    return settings
