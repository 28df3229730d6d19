"""Folders of image files as arrays.

A file that cannot be used is skipped, counted and named; a folder that cannot be used is a
`DataError`.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from clsp_utils.config import home
from clsp_utils.data.images import (
    Images,
    Split,
    each_its_own_group,
    first_three,
    printable,
    unusable,
)

# PIL starts other programs for some of the formats that are not listed.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass
class Skipped:
    """Files below `root` that cannot be used, by reason."""

    root: Path
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, path: Path) -> None:
        self.names[reason].append(str(path.relative_to(self.root)))

    def __str__(self) -> str:
        found = [f"{len(names)} {why}: {first_three(names)}" for why, names in self.names.items()]
        total = sum(map(len, self.names.values()))
        return f"{total} skipped" + (f" ({'; '.join(found)})" if found else "")


def located(name: str) -> Path:
    """The path that a setting names; a relative one starts in the project's folder."""
    return home() / os.path.expanduser(name)


def read_folder(
    root: Path,
    size: int,
    held_out: Sequence[str] = ("test", "val"),
    wanted: tuple[str, ...] = (),
) -> tuple[Images, Images | None]:
    """Training split and test split (None: there is none) of the images below `root`.

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
        raise unusable(root, "there is no such file or folder")
    root = root.resolve()
    found = _sub_folders(root)
    held_out_there = [name for name in held_out if name in found]
    folders = [root]
    if "train" in found and held_out_there:
        folders = [root / "train", root / held_out_there[0]]
    elif wanted or found == ["train"]:
        needed = f"train and {' or '.join(held_out)}"
        raise unusable(root, f"there must be two folders in it, {needed}")
    classes = wanted or tuple(_sub_folders(folders[0]))
    skipped = Skipped(root)
    splits = []
    for folder in folders:
        files = _list_files(folder, classes, bool(wanted), skipped)
        images, labels = _read_files(files, size, skipped)
        empty = [x for i, x in enumerate(classes) if i not in labels and (folder / x).is_dir()]
        if empty or not len(labels):
            where = first_three(empty) if empty else "it"
            raise unusable(folder, f"there is no image in {where}, {skipped}")
        splits.append((images, labels))
    n_read = sum(len(labels) for _, labels in splits)
    print(f"{printable(root)}: {n_read} images read, {skipped}.")
    test = splits[1] if len(splits) == 2 else None
    return each_its_own_group(splits[0], test, tuple(map(printable, classes)))


def _sub_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in folders if not name.startswith("."))


def _list_files(
    folder: Path, classes: tuple[str, ...], only: bool, skipped: Skipped
) -> list[tuple[Path, int]]:
    """Files of a split with their labels; `only`: folders that are no `classes` are ignored."""
    found = [name for name in _sub_folders(folder) if not only or name in classes]
    missing, unknown = (sorted(set(a) - set(b)) for a, b in ((classes, found), (found, classes)))
    if only and missing:
        count = f"{len(missing)} of {len(classes)} classes have no folder"
        raise unusable(folder, f"{count}: {first_three(missing)}")
    if unknown:
        strange = "these folders are no classes of the training split"
        raise unusable(folder, f"{strange}: {first_three(unknown)}")
    if not found:
        return [(path, -1) for path in _walk(folder, skipped)]
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith(".") and (entry.is_symlink() or not entry.is_dir()):
            skipped.add("beside the class folders", entry)
    return [(path, classes.index(name)) for name in found for path in _walk(folder / name, skipped)]


def _walk(folder: Path, skipped: Skipped) -> Iterator[Path]:
    """Regular files below `folder`, in order; links are followed to files below the root only."""
    pending = [folder]  # not by recursion, since folders may be nested deeper than Python recurses
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
    images = np.empty((len(files), size, size, 3), np.uint8)
    labels = np.empty(len(files), np.int64)
    n = 0
    # Class after class, the first so many images would be all of one class.
    order = np.random.default_rng(0).permutation(len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of whatever is odd about a file it can read
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
            # A JPEG is decoded at a fraction of its size: no need for all pixels of a photograph.
            image.draft("RGB", (2 * size, 2 * size))
            return centre_crop(_to_rgb(ImageOps.exif_transpose(image)), size)
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


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an RGB image, resized with antialiasing: uint8 `(size, size, 3)`."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def resize_all(parts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Images in parts, each uint8 `(n, H, W, 3)`, as one array `(N, size, size, 3)`.

    The shorter side is resized with antialiasing, and the middle kept.
    """
    out = np.empty((sum(map(len, parts)), size, size, 3), np.uint8)
    if all(part.shape[1:3] == (size, size) for part in parts):
        return np.concatenate(parts, out=out)
    for i, image in enumerate(tqdm(chain.from_iterable(parts), "resizing", len(out), leave=False)):
        out[i] = centre_crop(Image.fromarray(np.asarray(image)), size)
    return out
