"""Pictures and weights that people bring: they work, or one sentence says early why not."""

import json
import re

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from clsp_utils import __main__ as cli
from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet
from clsp_utils.pipeline import Companion, DiffusionModel

pytestmark = pytest.mark.item("11 what people bring", "pictures and weights")

SIZE = 8
TINY = [
    f"data.size={SIZE}", "data.limit=0", "diffusion.steps=2", "candidates.steps=2",
    "candidates.k=1", "simclr.epochs=1", "simclr.batch=16", "simclr.watch_every=1",
    "probe.epochs=1", "probe.neighbours=(1,5)",
]  # fmt: skip


def stage(name, data, *more, method="SimCLR"):
    """Exit status of the command line."""
    settings = [*TINY, f"data={data}", *more]
    if not any(setting.startswith("data.name") for setting in more):
        settings += ["data.name=cifar10" if str(data).endswith(".npz") else "data.name=folder"]
    options = ["--method", method] if name in ("pretrain", "scores") else []
    words = [word for setting in settings for word in ("-p", setting)]
    return cli.main(["stage", name, *options, "--profile", "smoke", *words])


def made(home, kind):
    return sorted((home / "artifacts" / kind).glob("[0-9a-f]*[0-9a-f]"))


def refused(home, capsys, *arguments, **more):
    """The one sentence that a stage is refused with, before anything is made."""
    assert stage(*arguments, **more) == 2
    message = capsys.readouterr().err.split("\r")[-1]  # after the bar of what was read
    assert re.fullmatch(r"error: [^\n]+\.\n", message), message
    assert not any(path.is_dir() for kind in ("diffusion", "pretrain") for path in made(home, kind))
    return message


def pixels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def save_images(folder, n, seed=0, end="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels(n, seed)):
        Image.fromarray(image).save(folder / f"{i}.{end}")


def save_classes(root, n=20, seed=0, names=("cat", "dog")):
    for i, name in enumerate(names):
        save_images(root / name, n, 10 * seed + i)


def archive(path, train_y, test_y, change=lambda x: x):
    """An .npz of random pixels with these labels."""
    train_y, test_y = np.asarray(train_y), np.asarray(test_y)
    x = change(pixels(len(train_y))), change(pixels(len(test_y), seed=1))
    np.savez(path, train_x=x[0], train_y=train_y, test_x=x[1], test_y=test_y)
    return path


# Layouts ------------------------------------------------------------------------------------------


def two_splits(train, test):
    def make(root):
        save_classes(root / train, seed=1)
        save_classes(root / test, 10, seed=2)

    return make


def wrapped(root):
    save_classes(root / "archive" / "Animals")
    (root / "README.txt").touch()


def nas(root):
    save_classes(root)
    for name in ("cat", "dog"):
        save_images(root / name / "@eaDir" / "0.png", 2, end="jpg")
    save_images(root / "#recycle", 3)
    for name in ("Thumbs.db", "cat/.DS_Store", "dog/._0.png"):
        (root / name).write_bytes(b"system")


def imagenet_like(root):
    two_splits("train", "val")(root)
    save_images(root / "test", 10, seed=9)


def tiny_imagenet_like(root):
    for name in ("cat", "dog"):
        save_images(root / "train" / name / "images", 20, seed=ord(name[0]))
    save_images(root / "test" / "images", 10, seed=9)
    save_images(root / "val" / "images", 10, seed=10)


def copies(root):
    save_classes(root)
    for name in ("cat", "dog"):
        for i in range(0, 20, 3):
            Image.open(root / name / f"{i}.png").save(root / name / f"copy of {i}.bmp")


def odd_files(root):
    save_classes(root)
    (root / "cat" / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (root / "cat" / "empty.png").touch()
    (root / "dog" / "labels.csv").write_text("a,b")
    Image.new("CMYK", (SIZE, SIZE)).save(root / "dog" / "print.jpg")
    Image.new("I;16", (SIZE, SIZE), 30000).save(root / "dog" / "scan.png")


# name -> how it is made, what is printed, training and test images of each class
LAYOUTS = {
    **{
        f"{train} {test}": (two_splits(train, test), "60 images read", 20, 10)
        for train, test in (
            ("train", "valid"), ("Train", "Test"), ("train", "validation"), ("TRAIN", "eval"),
        )
    },
    "wrapper": (wrapped, "this is all that lies in", 16, 4),
    "NAS": (nas, "40 images read, 0 skipped", 16, 4),
    "ImageNet": (imagenet_like, "test not used", 20, 10),
    "Tiny ImageNet": (tiny_imagenet_like, "val not used", 16, 4),
    "copies": (copies, "54 images read, 0 skipped", None, None),
    "odd files": (odd_files, "1 in HEIC, which is not read", None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_is_read_split_and_scored(home, tmp_path, capsys, name):
    make, said, n_train, n_test = LAYOUTS[name]
    make(tmp_path / "images")
    overrides = {"data.name": "folder", "data.size": SIZE, "data.limit": 0}
    train, test = Companion("smoke", 0, overrides, str(tmp_path / "images")).data.labelled
    assert train.class_names == ("cat", "dog") and train.chance == test.chance == 1 / 2
    assert not set(train.groups) & set(test.groups)
    if n_train:
        assert np.bincount(train.labels).tolist() == [n_train] * 2
        assert np.bincount(test.labels).tolist() == [n_test] * 2
    assert said in capsys.readouterr().out
    assert stage("scores", tmp_path / "images") == 0
    [scores] = made(home, "scores")
    found = json.loads((scores / "scores.json").read_text())
    assert 0 <= found["linear"] <= 1 and 0 <= found["knn"] <= 1


# Labels -------------------------------------------------------------------------------------------


def one_class(root):
    save_classes(root, 40, names=("cat",))


def one_image_of_each_class(root):
    save_classes(root / "train", 1, names="abcdefghijklmnopqrst")
    save_classes(root / "test", 2, seed=5, names="abcdefghijklmnopqrst")


def flat(root):
    save_images(root, 40)


UNSCORABLE = {
    "one class": (one_class, "labels of at least two classes"),
    "one image of each class": (one_image_of_each_class, "the smallest has 1 and 10 are enough"),
    "no labels": (flat, "None of these images has a label"),
}


@pytest.mark.parametrize("method", ["SimCLR", "supervised"])
@pytest.mark.parametrize("case", UNSCORABLE)
def test_what_cannot_be_scored_is_refused_before_training(home, tmp_path, capsys, case, method):
    make, said = UNSCORABLE[case]
    make(tmp_path / "images")
    assert said in refused(home, capsys, "scores", tmp_path / "images", method=method)


@pytest.mark.parametrize(
    ("train_y", "test_y", "said"),
    [
        ([3] * 40, [3] * 20, "labels of at least two classes"),
        ([-1] * 40, [0, 1] * 10, "None of these images has a label"),
        ([0, 1] * 20, [-1] * 20, "None of these images has a label"),
        ([*range(10)] * 2, [*range(10)], "the smallest has 2 and 10 are enough"),
    ],
)
def test_an_archive_that_cannot_be_scored_is_refused(home, tmp_path, capsys, train_y, test_y, said):
    path = archive(tmp_path / "a.npz", train_y, test_y)
    assert said in refused(home, capsys, "scores", path)


def test_few_images_of_a_class_are_refused_before_knn_follows_a_training(home, tmp_path, capsys):
    one_image_of_each_class(tmp_path / "images")
    said = refused(home, capsys, "pretrain", tmp_path / "images")
    assert "the smallest has 1 and 10 are enough" in said
    assert stage("pretrain", tmp_path / "images", "simclr.watch_every=0") == 0


@pytest.mark.parametrize("case", ["one class", "no labels"])
def test_images_without_labels_train_all_the_same(home, tmp_path, case):
    UNSCORABLE[case][0](tmp_path / "images")
    assert stage("pretrain", tmp_path / "images", method="CLSP-SimCLR") == 0
    [encoder] = made(home, "pretrain")
    assert np.isfinite(np.load(encoder / "losses.npy")).all()


def test_two_labels_of_ten_in_order_with_a_limit(home, tmp_path):
    path = archive(tmp_path / "a.npz", np.repeat([2, 7], 300), np.repeat([2, 7], 150))
    assert stage("scores", path, "data.limit=200") == 0
    overrides = {"data.name": "cifar10", "data.size": SIZE, "data.limit": 200}
    train, test = Companion("smoke", 0, overrides, str(path)).data.labelled
    for part in (train, test):
        assert part.chance == 1 / 2 and np.bincount(part.labels)[[2, 7]].tolist() == [100, 100]


# Pixels -------------------------------------------------------------------------------------------

PIXELS = {
    "a black channel": lambda x: x * np.array([1, 0, 1], np.uint8),
    "a full channel": lambda x: x | np.array([0, 0, 255], np.uint8),
    "grey": lambda x: x[..., :1].repeat(3, 3),
    "black and white": lambda x: ((x[..., :1] > 127) * np.uint8(255)).repeat(3, 3),
    "nearly black": lambda x: x // 255,
    "black": lambda x: x * np.uint8(0),
}


@pytest.mark.parametrize("case", PIXELS)
def test_no_pixels_end_in_numbers_that_are_none(home, tmp_path, case):
    path = archive(tmp_path / "a.npz", [0, 1] * 20, [0, 1] * 10, PIXELS[case])
    assert stage("pretrain", path, "simclr.watch_every=0", method="CLSP-SimCLR") == 0
    for kind in ("diffusion", "pretrain"):
        [result] = made(home, kind)
        assert np.isfinite(np.load(result / "losses.npy")).all()


# Weights ------------------------------------------------------------------------------------------


def save_unet(folder, channels=(8, 16), size=SIZE, seed=0, **schedule):
    torch.manual_seed(seed)
    build_unet(UNetShape(channels=channels, groups=4), size).save_pretrained(folder / "unet")
    DDPMScheduler(**schedule).save_pretrained(folder / "scheduler")
    return folder


UNETS = {
    "another schedule": (dict(beta_schedule="squaredcos_cap_v2"), "squaredcos_cap_v2"),
    "another prediction": (dict(prediction_type="v_prediction"), "v_prediction"),
    "too deep": (dict(channels=(8,) * 4), "cannot be halved 3 time(s)"),
    "of other images": (dict(size=64), "trained on images of 64 pixels"),
}


@pytest.mark.parametrize("name", ["diffusion", "candidates", "scores"])
@pytest.mark.parametrize("case", UNETS)
def test_a_unet_of_no_use_is_refused_before_all_else(home, tmp_path, capsys, case, name):
    how, said = UNETS[case]
    save_classes(tmp_path / "images")
    source = save_unet(tmp_path / "source", **how)
    settings = (tmp_path / "images", f"diffusion.source={source}")
    assert said in refused(home, capsys, name, *settings, method="CLSP-SimCLR")


def test_weights_replaced_in_the_same_place_give_another_result(home, tmp_path):
    save_classes(tmp_path / "images")
    for seed in (0, 1):
        source = save_unet(tmp_path / "source", seed=seed)
        assert stage("diffusion", tmp_path / "images", f"diffusion.source={source}") == 0
    assert len(made(home, "diffusion")) == 2


def test_images_replaced_in_the_same_place_give_another_result(home, tmp_path):
    keys = set()
    for seed in (0, 1):
        save_classes(tmp_path / "images", seed=seed)
        overrides = {"data.name": "folder", "data.size": SIZE, "data.limit": 0}
        companion = Companion("smoke", 0, overrides, str(tmp_path / "images"))
        keys.add(companion.stage(DiffusionModel).request.key)
    assert len(keys) == 2
