"""Data sets that torchvision reads, from tiny ones in the layout that it expects."""

import json
import pickle
import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import flowers102

from clsp_utils.config import Transfer, TransferName
from clsp_utils.data import DataError, load_transfer, scored_per_class
from clsp_utils.data.transfer_sets import CALTECH_TRAIN, DRAWN, ORIGINALS

SIZE = 8


def load(name, folder):
    return load_transfer(name, Transfer(path=str(folder)), SIZE)


def picture(path, label, i):
    """A file whose colour says its class and number; the first is grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (40 * label, 3 * i, 200)
    image = Image.new("RGB", (20, 12), colour) if i else Image.new("L", (12, 20), 40 * label)
    image.save(path, quality=95)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def cifar10(root, monkeypatch, n=20):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        labels = [i % 10 for i in range(n)]
        batch = {"data": rng.integers(0, 256, (n, 3072), np.uint8), "labels": labels}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, md5: True)


def pets(root, monkeypatch):
    for split, n in (("trainval", 10), ("test", 4)):
        lines = []
        for label in (0, 1, 2):
            for i in range(n):
                name = f"{['cat', 'dog', 'fox'][label]}_{split}{i}"
                picture(root / f"oxford-iiit-pet/images/{name}.jpg", label, i)
                lines.append(f"{name} {label + 1} 1 1")
        write_lines(root / f"oxford-iiit-pet/annotations/{split}.txt", lines)


def flowers(root, monkeypatch):
    base = root / "flowers-102"
    labels = [1 + i % 4 for i in range(60)]
    for i, label in enumerate(labels):
        picture(base / f"jpg/image_{i + 1:05d}.jpg", label, i)
    savemat(base / "imagelabels.mat", {"labels": np.array([labels])})
    ids = np.arange(1, 61)[None]
    split = {"trnid": ids[:, :20], "valid": ids[:, 20:32], "tstid": ids[:, 32:]}
    savemat(base / "setid.mat", split)
    monkeypatch.setattr(flowers102, "check_integrity", lambda path, md5: True)


def dtd(root, monkeypatch):
    base = root / "dtd" / "dtd"
    for split, n in (("train", 5), ("val", 4), ("test", 3)):
        names = [f"{kind}/{split}_{i}.jpg" for kind in ("dotted", "woven") for i in range(n)]
        for i, name in enumerate(names):
            picture(base / "images" / name, i // n, i)
        write_lines(base / f"labels/{split}1.txt", names)


def caltech101(root, monkeypatch):
    base = root / "caltech101" / "101_ObjectCategories"
    for label, name in enumerate(("ant", "bass", "BACKGROUND_Google")):
        for i in range(CALTECH_TRAIN + 3 + label):
            picture(base / name / f"image_{i + 1:04d}.jpg", label, i)
    (root / "caltech101" / "Annotations").mkdir()


def food101(root, monkeypatch):
    for split, n in (("train", 10), ("test", 5)):
        lists = {kind: [f"{kind}/{split}{i}" for i in range(n)] for kind in ("pie", "soup")}
        for label, names in enumerate(lists.values()):
            for i, name in enumerate(names):
                picture(root / f"food-101/images/{name}.jpg", label, i)
        path = root / f"food-101/meta/{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(lists))


def aircraft(root, monkeypatch):
    base = root / "fgvc-aircraft-2013b" / "data"
    kinds = ["707-320", "A 380"]
    for split, n in (("train", 4), ("val", 3), ("test", 5)):
        lines = []
        for i in range(2 * n):
            picture(base / f"images/{split}{i}.jpg", i % 2, i)
            lines.append(f"{split}{i} {kinds[i % 2]}")
        write_lines(base / f"images_variant_{split}.txt", lines)
    write_lines(base / "variants.txt", kinds)


# Of each: how it is written, and how many images there are to train, validate and test.
TINY = {
    "cifar10": (cifar10, (80, 20, 20)),
    "pets": (pets, (24, 6, 12)),
    "flowers": (flowers, (20, 12, 28)),
    "dtd": (dtd, (10, 8, 6)),
    "caltech101": (caltech101, (48, 12, 7)),
    "food101": (food101, (16, 4, 10)),
    "aircraft": (aircraft, (8, 6, 10)),
}


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_one_in_the_layout_that_torchvision_expects(tmp_path, monkeypatch, name):
    write, sizes = TINY[name]
    write(tmp_path, monkeypatch)
    splits = load(name, tmp_path)
    assert tuple(map(len, splits)) == sizes
    for part in splits:
        assert part.images.shape == (len(part), SIZE, SIZE, 3) and part.images.dtype == np.uint8
        assert set(part.labels.tolist()) <= set(range(len(part.class_names)))
    assert {*splits.train.labels} == {*splits.test.labels}
    if name != "cifar10":  # whose images are noise
        red = [part.images[:, SIZE // 2, SIZE // 2, 0].astype(int) for part in splits]
        offset = 40 if name == "flowers" else 0  # whose labels count from 1 in the file
        for seen, part in zip(red, splits):
            assert np.abs(seen - 40 * part.labels - offset).max() <= 6, "each has its own label"
    again = load(name, tmp_path)
    assert all(np.array_equal(a.images, b.images) for a, b in zip(splits, again))


def test_what_is_held_out_of_training_images_is_a_fifth_of_every_class(tmp_path, monkeypatch):
    pets(tmp_path, monkeypatch)
    train, validation, _ = load("pets", tmp_path)
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]
    assert not set(train.groups) & set(validation.groups)


def test_caltech_trains_on_thirty_of_every_class_and_leaves_its_background_out(
    tmp_path, monkeypatch
):
    caltech101(tmp_path, monkeypatch)
    train, validation, test = load("caltech101", tmp_path)
    both = np.append(train.labels, validation.labels)
    assert np.bincount(both).tolist() == [CALTECH_TRAIN] * 2
    assert np.bincount(test.labels).tolist() == [3, 4]


@pytest.mark.parametrize("name", ORIGINALS)
@pytest.mark.parametrize("there", [True, False], ids=["empty", "no folder"])
def test_a_missing_one_is_told_in_one_sentence(tmp_path, name, there):
    folder = tmp_path / "sets"
    if there:
        folder.mkdir()
    with pytest.raises(DataError) as error:
        load(name, folder)
    message = str(error.value)
    assert re.fullmatch(r"[^\n]+\.", message) and str(folder) in message
    assert ORIGINALS[name].dataset.__name__ in message and "transfer.path" in message
    expected = {
        "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "dtd": "dtd/dtd",
        "pets": "oxford-iiit-pet", "flowers": "flowers-102", "caltech101": "caltech101",
        "food101": "food-101", "aircraft": "fgvc-aircraft-2013b", "cars": "stanford_cars",
    }  # fmt: skip
    assert expected[name] in message
    assert not list(tmp_path.rglob("*.tar*")), "nothing is downloaded"


def test_a_broken_picture_is_told_in_one_sentence(tmp_path, monkeypatch):
    dtd(tmp_path, monkeypatch)
    (tmp_path / "dtd/dtd/images/dotted/val_1.jpg").write_bytes(b"no JPEG")
    with pytest.raises(DataError, match="torchvision's DTD does not find all that it expects"):
        load("dtd", tmp_path)


def test_without_a_path_the_data_folder_of_the_project_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    dtd(tmp_path / "data", monkeypatch)
    assert len(load("dtd", "").train) == 10


def test_every_name_is_drawn_or_read_and_the_field_counts_four_per_class():
    assert {*DRAWN, *ORIGINALS} == set(TransferName.__args__)
    per_class = {name for name in TransferName.__args__ if scored_per_class(name)}
    assert per_class == {"pets", "flowers", "caltech101", "aircraft"}
