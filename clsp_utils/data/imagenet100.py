"""ImageNet-100: the folders of ImageNet that a list names."""

import os
import re
from pathlib import Path

from clsp_utils.config import Data
from clsp_utils.data.image_folder import located, read_folder
from clsp_utils.data.images import Images, first_three, unusable


def read_imagenet100(cfg: Data) -> tuple[Images, Images | None]:
    """Training split and validation split (`val`), of the classes that `cfg.wnids` lists."""
    return read_folder(located(cfg.path), cfg.size, ("val",), _wnids(located(cfg.wnids)))


def _wnids(path: Path) -> tuple[str, ...]:
    """The classes, sorted, from a text file with one wnid at the start of each line."""
    if not os.path.isfile(path):
        raise unusable(path, "there is no such file")
    lines = path.read_text(errors="replace").splitlines()
    wnids = sorted({line.split()[0] for line in lines if line.strip()})
    wrong = [wnid for wnid in wnids if not re.fullmatch(r"n\d{8}", wnid)]
    if wrong:
        expected = "each line must start with a wnid such as n02869837"
        raise unusable(path, f"{expected}, not with {first_three(wrong)}")
    if len(wnids) != 100:
        counted = f"there are {len(wnids)} different wnids in this list"
        raise unusable(path, f"{counted}; ImageNet-100 has 100")
    return tuple(wnids)
