"""Folders of other people's image files, to uint8 arrays.

A file that cannot be used is skipped, counted and named; a folder that cannot be used is a `DataError`.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from clsp_utils.config import ConfigError

Split = tuple[np.ndarray, np.ndarray]  # images uint8 (N, size, size, 3), labels int64 (N,), -1 = none

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # of the rest, some start other programs


class DataError(ConfigError):
    """Images that cannot be used; one sentence says which and what is expected."""


def shown(name: str | Path) -> str:
    """A name as it can be printed on one line, whatever characters it has."""
    name = os.fspath(name)
    return name if name.isprintable() else ascii(name)[1:-1]


def few(names: Sequence[str]) -> str:
    """The first three of some names."""
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")


@dataclass
class Skipped:
    """Files below `root` that cannot be used, by reason."""

    root: Path
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, path: Path) -> None:
        self.names[reason].append(str(path.relative_to(self.root)))

    def __str__(self) -> str:
        reasons = "; ".join(f"{len(names)} {reason}: {few(names)}" for reason, names in self.names.items())
        return f"{sum(map(len, self.names.values()))} skipped" + (f" ({reasons})" if reasons else "")


def read_folder(
    root: Path, size: int, held_out: Sequence[str] = ("test", "val"), wanted: tuple[str, ...] = ()
) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Training split, test split (None: there is none) and class names of the images below `root`.

    If there are folders `train` and one of `held_out`, they are the splits. The sub-folders of a
    split are its classes, in the order of their names; without any, its images have no label. Names
    that start with a dot are ignored. Images come in an order that is drawn once and for all.

    Args:
        size: pixels a side of what is returned, see `read_image`.
        held_out: names of a test split; the first that is there is taken.
        wanted: the only classes to read; all must be there, in both splits.

    Raises:
        DataError: there are no images, or they are not arranged like this.
    """
    if not os.path.isdir(root):
        raise DataError(f"{shown(root)}: there is no such file or folder.")
    root = root.resolve()
    found = _sub_folders(root)
    test = next((name for name in held_out if name in found), None)
    if "train" in found and test:
        folders = [root / "train", root / test]
    elif wanted or found == ["train"]:
        raise DataError(f"{shown(root)}: there must be two folders in it, train and {' or '.join(held_out)}.")
    else:
        folders = [root]
    classes = wanted or tuple(_sub_folders(folders[0]))
    skipped = Skipped(root)
    splits = []
    for folder in folders:
        images, labels = _read_files(_list_files(folder, classes, bool(wanted), skipped), size, skipped)
        empty = [name for i, name in enumerate(classes) if i not in labels and (folder / name).is_dir()]
        if empty or not len(labels):
            where = few(empty) if empty else "it"
            raise DataError(f"{shown(folder)}: there is no image in {where}, {skipped}.")
        splits.append((images, labels))
    print(f"{shown(root)}: {sum(len(labels) for _, labels in splits)} images read, {skipped}.")
    return splits[0], splits[1] if len(splits) == 2 else None, tuple(map(shown, classes))


def _sub_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != ".")


def _list_files(folder: Path, classes: tuple[str, ...], only: bool, skipped: Skipped) -> list[tuple[Path, int]]:
    """Files of a split with their labels; `only`: other folders than those of `classes` are ignored."""
    found = [name for name in _sub_folders(folder) if not only or name in classes]
    missing, unknown = (sorted(set(a) - set(b)) for a, b in ((classes, found), (found, classes)))
    if only and missing:
        raise DataError(f"{shown(folder)}: {len(missing)} of {len(classes)} classes have no folder: {few(missing)}.")
    if unknown:
        raise DataError(f"{shown(folder)}: these folders are no classes of the training split: {few(unknown)}.")
    if not found:
        return [(path, -1) for path in _walk(folder, skipped)]
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith(".") and (entry.is_symlink() or not entry.is_dir()):
            skipped.add("beside the class folders", entry)
    return [(path, classes.index(name)) for name in found for path in _walk(folder / name, skipped)]


def _walk(folder: Path, skipped: Skipped) -> Iterator[Path]:
    """Regular files below `folder`, in order; links are followed to regular files of the root only."""
    pending = [folder]
    while pending:
        place = pending.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            skipped.add("unreadable", place)
            continue
        for entry in entries:
            path = place / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_symlink() and skipped.root not in Path(os.path.realpath(path)).parents:
                skipped.add("links leading outside", path)
            elif not os.path.isfile(path):  # a pipe would be waited for
                skipped.add("no regular files", path)
            else:
                yield path


def _read_files(files: list[tuple[Path, int]], size: int, skipped: Skipped) -> Split:
    images, labels = np.empty((len(files), size, size, 3), np.uint8), np.empty(len(files), np.int64)
    n = 0
    # Class after class, the first so many images would be all of one class.
    order = np.random.default_rng(0).permutation(len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of whatever is odd about a file that can be read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for i in tqdm(order, "reading images", leave=False):
            path, labels[n] = files[i]
            image = read_image(path, size)
            if isinstance(image, str):
                skipped.add(image, path)
            else:
                images[n] = image
                n += 1
    return images[:n], labels[:n]


def read_image(path: Path, size: int) -> np.ndarray | str:
    """A file as RGB, uint8 `(size, size, 3)`, or the reason why it cannot be used.

    Too small is an image whose shorter side is below half of `size`; too large one that PIL takes
    for an attack, of more than 89 million pixels. Of an animation the first frame is taken.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if 2 * min(image.size) < size:
                return "too small"
            image.draft("RGB", (2 * size, 2 * size))  # JPEG: no need to decode all pixels of a photograph
            return square(_to_rgb(ImageOps.exif_transpose(image)), size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too large"
    except Exception:  # PIL's readers let errors of many kinds through
        return "unreadable"


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any kind of image: 16 bits become 8, and what is transparent lies on white."""
    if image.mode.startswith("I"):  # 16 bits, or 32 of which such files use 16
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating point numbers have no range that everybody uses")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an RGB image, resized with antialiasing: uint8 `(size, size, 3)`."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
