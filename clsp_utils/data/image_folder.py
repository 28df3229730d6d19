"""Folders of image files as arrays.

A file that cannot be used is skipped, counted and named; a folder that cannot be used is a
`DataError`.
"""

import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps
from tqdm import tqdm

from clsp_utils.config import home
from clsp_utils.data.images import (
    Images,
    Split,
    first_three,
    grouped_by_pixels,
    printable,
    unusable,
)

# PIL starts other programs for some of the formats that are not listed.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = {end for end, name in Image.registered_extensions().items() if name in FORMATS}
# The first bytes of other formats that photographs come in.
NOT_READ = {
    "HEIC": rb".{4}ftyp(hei|hev)", "HEIF": rb".{4}ftyp(mif|msf)", "AVIF": rb".{4}ftypavi",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL", "JPEG 2000": rb"\0\0\0\x0cjP",
}  # fmt: skip
DARK = 4096  # the brightest of 16 bits in which a camera or scanner of 12 bits would look black
# What EXIF says of how a camera was held, and how the image is turned back.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip

# What the folder of a split may be called, in any case.
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev"),
}
# What systems, network drives and archives leave in folders, besides names that start with a dot.
OF_SYSTEMS = {
    "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "__macosx",
    "$recycle.bin", "recycler", "system volume information", "found.000", "thumbs.db",
    "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__",
}  # fmt: skip


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

    If there are folders `train` and one of `held_out` (or by another of their names, see `SPLITS`),
    they are the splits. The sub-folders of a split are its classes, in the order of their names;
    without any, its images have no label. A test split without labels is left out if the training
    split has some, since nothing could be scored on it. If there is nothing but one folder of
    folders, as in an unpacked archive, that is taken in the place of `root`. Names that start with
    a dot, and what systems leave behind (`OF_SYSTEMS`), are ignored. Images come in an order that
    is drawn once and for all.

    Args:
        size: pixels a side of what is returned, see `read_image`.
        held_out: kinds of a test split; the first that is there is taken.
        wanted: the only classes to read; all must be there, in both splits.

    Raises:
        DataError: there are no images, or they are not arranged like this.
    """
    root, folders, classes, notes = arrangement(root, held_out, wanted)
    skipped = Skipped(root)
    splits = []
    for folder in folders:
        files = list_files(folder, classes, bool(wanted), skipped)
        images, labels = _read_files(files, size, skipped)
        there = _sub_folders(folder)
        empty = [name for i, name in enumerate(classes) if i not in labels and name in there]
        if empty or not len(labels):
            where = first_three(empty) if empty else "it"
            raise unusable(folder, f"there is no image in {where}, {skipped}")
        splits.append((images, labels))
    n_read = sum(len(labels) for _, labels in splits)
    print(f"{printable(root)}: {'; '.join([f'{n_read} images read, {skipped}', *notes])}.")
    test = splits[1] if len(splits) == 2 else None
    return grouped_by_pixels(splits[0], test, tuple(map(printable, classes)))


class Arrangement(NamedTuple):
    """How images lie in a folder.

    Attributes:
        root: where they begin.
        folders: one per split.
        classes: names of the folders inside these; none where images have no label.
        notes: what was not taken as it may have been meant.
    """

    root: Path
    folders: list[Path]
    classes: tuple[str, ...]
    notes: list[str]


def arrangement(
    given: Path, held_out: Sequence[str] = ("test", "val"), wanted: tuple[str, ...] = ()
) -> Arrangement:
    """Splits and classes of a folder; arguments and errors as of `read_folder`."""
    if os.path.isfile(given):
        raise unusable(given, "this is a file; unpack it if it is an archive, and name the folder")
    if not os.path.isdir(given):
        raise unusable(given, "there is no such file or folder")
    given = given.resolve()
    root = _unwrapped(given, *SPLITS["train"])
    notes = [f"this is all that lies in {printable(given)}"] if root != given else []
    folders = _find_splits(root, held_out, wanted, notes)
    within = _sub_folders(folders[0])
    if nested := [name for name, path in within.items() if len(_sub_folders(path)) > 1]:
        notes.append(f"folders inside {first_three(nested)} are no classes of their own")
    return Arrangement(root, folders, wanted or tuple(within), notes)


def _unwrapped(folder: Path, *kept: str) -> Path:
    """The folder of folders that is all there is in `folder`, or itself; none called `kept`."""
    while len(found := _sub_folders(folder)) == 1 and not _has_images(folder):
        [(name, inner)] = found.items()
        if name.casefold() in kept or not _sub_folders(inner) or _has_images(inner):
            break  # a split, or a class
        folder = inner
    return folder


def _find_splits(
    root: Path, held_out: Sequence[str], wanted: tuple[str, ...], notes: list[str]
) -> list[Path]:
    """The folders of the splits, or `root` itself; `notes` gets what was not taken."""
    found = _sub_folders(root)
    of_kind = {
        kind: [name for name in found if name.casefold() in SPLITS[kind]]
        for kind in ("train", *held_out)
    }

    def the_only(kind: str) -> Path:
        if len(of_kind[kind]) > 1:
            either = " and ".join(map(printable, of_kind[kind]))
            raise unusable(root, f"{either} could both be the split {kind!r}; keep one of them")
        return _unwrapped(found[of_kind[kind][0]])

    there = [kind for kind in held_out if of_kind[kind]]
    if not of_kind["train"] or not there:
        trained = [found[name] for name in of_kind["train"]]
        if wanted or (trained and (len(found) == 1 or any(map(_sub_folders, trained)))):
            needed = f"train and {' or '.join(held_out)}"
            raise unusable(root, f"there must be two folders in it, {needed}")
        if like_splits := [*of_kind["train"], *(name for kind in there for name in of_kind[kind])]:
            notes.append(f"{first_three(like_splits)} taken for a class, not for a split")
        return [root]
    train = the_only("train")
    classes = _sub_folders(train)
    for kind in there:
        folder = the_only(kind)
        own = _sub_folders(folder)
        # Without folders, or in a single one that is no class, as in Tiny ImageNet.
        unlabelled = not own or (len(own) == 1 and not own.keys() & classes.keys())
        if wanted or not (classes and unlabelled):
            return [train, folder]
        [name] = of_kind[kind]
        notes.append(f"{printable(name)} not used, since it has no folders of classes")
    return [train]


def _of_system(name: str) -> bool:
    return name.startswith(".") or name.casefold() in OF_SYSTEMS


def _has_images(folder: Path) -> bool:
    names = (name for name in os.listdir(folder) if not _of_system(name))
    return any(os.path.splitext(name)[1].lower() in SUFFIXES for name in names)


def _sub_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder, in the order of their names.

    Systems write an accented letter as one character or as two; here it is one.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    folders: dict[str, Path] = {}
    for name in filter(lambda name: not _of_system(name), names):
        key = unicodedata.normalize("NFC", name)
        if key in folders:
            twice = f"two folders in it are called {printable(key)}, in two forms of Unicode"
            raise unusable(folder, f"{twice}; make them one")
        folders[key] = folder / name
    return dict(sorted(folders.items()))


def list_files(
    folder: Path, classes: tuple[str, ...], only: bool, skipped: Skipped
) -> list[tuple[Path, int]]:
    """Files of a split with their labels; `only`: folders that are no `classes` are ignored."""
    found = {
        name: path for name, path in _sub_folders(folder).items() if not only or name in classes
    }
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
        if not _of_system(entry.name) and (entry.is_symlink() or not entry.is_dir()):
            skipped.add("beside the class folders", entry)
    return [
        (file, classes.index(name)) for name, path in found.items() for file in _walk(path, skipped)
    ]


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
            if _of_system(entry.name):
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
            image.load()
            if image.mode.startswith("I") and np.asarray(image).max() < DARK:
                return "using few of their 16 bits (stretch them)"
            return centre_crop(_to_rgb(_turned(image)), size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too large"
    except Exception:  # PIL's readers let errors of many kinds through
        return _why_unreadable(path)


def _why_unreadable(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return "unreadable"
    for name, pattern in NOT_READ.items():
        if re.match(pattern, start, re.DOTALL):
            return f"in {name}, which is not read (convert to JPEG)"
    return "unreadable"


def _turned(image: Image.Image) -> Image.Image:
    """The image as the camera was held; as it lies, if its EXIF is broken."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # PIL's reader of EXIF lets errors of many kinds through
        turn = None
    return image if turn is None else image.transpose(turn)


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
