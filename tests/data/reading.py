"""Shorthands for the tests of readers."""

import os
import re
from contextlib import suppress

import pytest
from PIL import Image

from clsp_utils.config import Data
from clsp_utils.data import DataError, check_place
from clsp_utils.data.load import read as read_splits


def settings(name, path, more):
    return Data(name=name, path=str(path), **{"size": 32} | more)


def read(name, path="", **more):
    """Images and labels of both splits (None: there is no test split), and the class names."""
    cfg = settings(name, path, more)
    train, test = read_splits(cfg)
    check_place(cfg)
    held_out = test and (test.images, test.labels)
    return (train.images, train.labels), held_out, train.class_names


def refusal(name, path="", **more):
    with pytest.raises(DataError) as error:
        read(name, path, **more)
    message = str(error.value)
    assert re.fullmatch(r"[^\n]+\.", message), "one sentence"
    early = message
    with suppress(OSError):  # which only reading turns into a sentence
        try:
            check_place(settings(name, path, more))
        except DataError as refused:
            early = str(refused)
    assert early == message
    return message


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def save_images(folder, n=1, size=32):
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (size, size), (i, i, i)).save(folder / f"{i}.png")


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)
