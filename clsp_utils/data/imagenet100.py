"""ImageNet-100: the folders of ImageNet that a list names."""

import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from clsp_utils.config import Data
from clsp_utils.data.image_folder import located, read_folder
from clsp_utils.data.images import Images, first_three, unusable

WNID = r"n\d{8}"
PUNCTUATION = "\"'`“”‘’[](){},;: \t"
SEPARATORS = rf"[{re.escape(PUNCTUATION)}]+"


def read_imagenet100(cfg: Data) -> tuple[Images, Images | None]:
    """Training split and validation split (`val`), of the classes that `cfg.wnids` lists."""
    return read_folder(located(cfg.path), cfg.size, ("val",), read_wnids(located(cfg.wnids)))


def read_wnids(path: Path) -> tuple[str, ...]:
    """The classes, sorted, from a text file of wnids.

    A line starts with a wnid; what follows are further wnids, or a description. Quotes, brackets
    and byte order marks are of no matter.
    """
    if not os.path.isfile(path):
        raise unusable(path, "there is no such file")
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    lines = content.decode(encoding, errors="replace").splitlines()
    split = (re.split(SEPARATORS, line.strip(PUNCTUATION)) for line in lines)
    listed = [words for words in split if words[0]]
    wrong = sorted({words[0] for words in listed if not re.fullmatch(WNID, words[0])})
    if wrong:
        expected = "each line must start with a wnid such as n02869837"
        raise unusable(path, f"{expected}, not with {first_three(wrong)}")
    wnids = sorted({word for words in listed for word in words if re.fullmatch(WNID, word)})
    if len(wnids) != 100:
        counted = f"there are {len(wnids)} different wnids in this list"
        raise unusable(path, f"{counted}; ImageNet-100 has 100")
    return tuple(wnids)
