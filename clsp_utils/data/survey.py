"""What lies in a folder of pictures, file by file, before anything is computed from it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from clsp_utils.data.image_folder import (
    FORMATS,
    Skipped,
    arrangement,
    centre_crop,
    list_files,
    located,
    read_image,
)
from clsp_utils.data.images import Images, pixel_groups, unusable


class Survey(NamedTuple):
    """What lies in a folder.

    Attributes:
        root: where the pictures begin.
        files: a row per file that `read_folder` comes to. Columns: file (its path below root),
            split (name of its folder; empty if there is no test split), class (empty: no label),
            width and height (pixels of the file; 0 if it does not open), skipped (why it is not
            used; empty: it is), copy_of (the first file of the same pixels, mirrored or not; empty:
            there is none).
    """

    root: Path
    files: pd.DataFrame

    @property
    def used(self) -> pd.DataFrame:
        """The files that are used."""
        return self.files[self.files.skipped == ""]


def survey(folder: str | Path, size: int = 0) -> Survey:
    """Looks at every file that `read_folder` comes to.

    Args:
        folder: as of `read_folder`; a relative path starts in the project's folder.
        size: pixels a side at which the pictures will be read. With 0 only the heads of the files
            are read: what is damaged further on, too small, or a copy does not show yet.

    Raises:
        DataError: none of the files can be used, or they are not arranged as `read_folder` needs.
    """
    root, folders, classes, _ = arrangement(located(str(folder)))
    rows = []
    for place in folders:
        skipped, split = Skipped(root), place.name if len(folders) > 1 else ""
        for path, label in list_files(place, classes, False, skipped):
            name = str(path.relative_to(root))
            rows.append((name, split, classes[label] if label >= 0 else "", ""))
        rows += [(name, split, "", why) for why, names in skipped.names.items() for name in names]
    files = pd.DataFrame(rows, columns=["file", "split", "class", "skipped"], dtype=object)
    sides = [_sides(root / name) for name in tqdm(files.file, "looking at files", leave=False)]
    files["width"], files["height"] = np.array(sides, int).reshape(-1, 2).T
    files.loc[(files.skipped == "") & (files.width == 0), "skipped"] = "unreadable"
    files["copy_of"] = ""
    if size:
        _read(root, files, size)
    found = Survey(root, files)
    if found.used.empty:
        reasons = files.skipped.value_counts()
        told = ", ".join(f"{n} {why}" for why, n in reasons.items()) or "it has no files"
        raise unusable(root, f"there is no image in it that can be used ({told})")
    return found


def _sides(path: Path) -> tuple[int, int]:
    """Width and height as the head of a file tells them; 0 where it does not open."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except Exception:  # PIL's readers let errors of many kinds through
        return 0, 0


def _read(root: Path, files: pd.DataFrame, size: int) -> None:
    """Fills in what shows only when pictures are decoded."""
    rows, images = [], []
    for row in tqdm(files.index[files.skipped.isin(["", "unreadable"])], "reading", leave=False):
        image = read_image(root / files.file[row], size)
        files.loc[row, "skipped"] = image if isinstance(image, str) else ""
        if not isinstance(image, str):
            rows.append(row)
            images.append(image)
    for row, group in zip(rows, pixel_groups(images), strict=True):
        if rows[group] != row:
            files.loc[row, "copy_of"] = files.file[rows[group]]


def thumbnail(path: str | Path, size: int) -> np.ndarray:
    """The middle of a picture, uint8 `(size, size, 3)`; a grey cross where it does not open."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return centre_crop(image.convert("RGB"), size)
    except Exception:  # PIL's readers let errors of many kinds through
        cross = np.eye(size, dtype=bool) | np.eye(size, dtype=bool)[::-1]
        return np.where(cross[..., None], 160, 235).repeat(3, 2).astype(np.uint8)


# A folder for those who have none ----------------------------------------------------------------

N_CLASSES, PER_CLASS = 4, 200  # of the folder that is written, at most
SCALES = (1, 1.5, 2)  # of its pictures, in turn


def write_folder(images: Images, folder: Path) -> None:
    """Writes a folder such as people have: pictures of several sizes, copies, files that are none.

    A sub-folder per class, of the classes that are most frequent; without labels the pictures lie
    side by side. Of a group only the first picture is taken.

    Args:
        images: what the pictures are drawn from.
        folder: where they go; it is made.
    """
    once = images[np.sort(np.unique(images.groups, return_index=True)[1])]
    counts = np.bincount(once.labels[once.labels >= 0])
    frequent = np.argsort(-counts, kind="stable")[:N_CLASSES]
    classes = [(i, once.class_names[i]) for i in frequent if counts[i]] or [(-1, "")]
    size = images.images.shape[1]
    for label, name in classes:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(once.images[once.labels == label][:PER_CLASS]):
            side = round(size * SCALES[i % len(SCALES)])
            picture = Image.fromarray(pixels)
            picture.resize((side, side), Image.Resampling.BICUBIC).save(place / f"{i:03}.png")
        first = Image.open(place / "000.png")
        first.save(place / "copy of 000.bmp")
        first.resize((3, 3)).save(place / "too small.png")
        (place / "broken.png").write_bytes((place / "001.png").read_bytes()[:60])
        (place / "notes.txt").write_text("Not a picture.\n")
