"""Every data set by its name: splits, limits, and what the key of a result takes from it."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from reading import read, save_images

from clsp_utils.config import Data, change
from clsp_utils.data import DataError, fingerprint, load


def groups(part):
    return set(part.groups.tolist())


@pytest.fixture
def npz(tmp_path):
    """100 training and 50 test images of 32 x 32, each of another colour; and their setting."""
    codes = np.arange(150)
    colours = np.stack([codes, 255 - codes, codes // 2], 1).astype(np.uint8)
    images = np.broadcast_to(colours[:, None, None], (150, 32, 32, 3))
    labels = codes % 10
    arrays = {
        "train_x": images[:100],
        "train_y": labels[:100],
        "test_x": images[100:],
        "test_y": labels[100:],
    }
    np.savez(tmp_path / "a.npz", **arrays)
    return arrays, Data(name="cifar10", size=32, path=str(tmp_path / "a.npz"))


def codes(part):
    return part.images[:, 0, 0, 0].tolist()


def test_other_data_have_a_group_an_image_and_no_background(npz):
    arrays, cfg = npz
    train, test = load(cfg)
    assert codes(train) == [*range(100)] and codes(test) == [*range(100, 150)]
    assert np.array_equal(train.labels, arrays["train_y"]) and np.array_equal(
        test.labels, arrays["test_y"]
    )
    assert len(groups(train) | groups(test)) == 150
    assert train.groups.dtype == np.int64
    assert train.background is None and train.factors is None and train.class_names[9] == "truck"


def test_other_data_are_split_and_limited_like_the_digits(npz):
    cfg = npz[1]
    kept, held = load(change(cfg, evaluate_on="validation"))
    assert sorted(codes(kept) + codes(held)) == [*range(100)]
    assert np.bincount(held.labels).tolist() == [2] * 10
    np.savez(cfg.path, **{name: np.repeat(x, 5, 0) for name, x in npz[0].items()})
    train, test = load(change(cfg, limit=200))
    assert len(train) == len(test) == 200 and codes(train)[-1] == 39


def folder_of_images(path, *names, n=10):
    for i, name in enumerate(names):
        (path / name).mkdir(parents=True, exist_ok=True)
        for j in range(n):
            Image.new("RGB", (16, 16), (i, j, 0)).save(path / name / f"{j}.png")
    return Data(name="folder", path=str(path))


def test_a_folder_without_a_test_split_is_split_in_proportion(tmp_path):
    cfg = folder_of_images(tmp_path, "cat", "dog")
    train, test = load(cfg)
    assert len(train) == 16 and np.bincount(test.labels).tolist() == [2, 2]
    assert not groups(train) & groups(test)
    assert train.class_names == ("cat", "dog") and np.array_equal(
        train.images[:, 0, 0, 0], train.labels
    )
    assert np.array_equal(load(cfg)[0].images, train.images)


def test_a_folder_without_labels_is_split(tmp_path):
    train, test = load(folder_of_images(tmp_path, ""))
    assert (
        len(train) == 8 and len(test) == 2 and set(train.labels) == {-1} and train.class_names == ()
    )
    with pytest.raises(DataError, match="None of these images has a label"):
        _ = test.labelled


@pytest.mark.parametrize(
    "names, n", [(("",), 1), (("cat", "dog"), 2), (("cat",), 1), (tuple("abcdef"), 3)]
)
def test_too_few_images_to_split_are_refused(tmp_path, names, n):
    found = f"{n * len(names)} images of {len(names)} class.*"
    with pytest.raises(DataError, match=f"^{found} are too few to hold out 20% of every class.$"):
        load(folder_of_images(tmp_path, *names, n=n))


def test_folder_is_read_at_any_size(user):
    save_images(user / "a", 3)
    assert read("folder", user, size=24)[0][0].shape == (3, 24, 24, 3)


# What the key of a result holds -----------------------------------------------------------------


def test_fingerprint_of_the_digits_is_their_content():
    train, test = load(Data(size=24, draws=1))
    content = [x.tobytes() for part in (train, test) for x in (part.images, part.labels)]
    assert fingerprint(train, test) == {
        "class_names": tuple("0123456789"),
        "sha256": hashlib.sha256(b"".join(content)).hexdigest(),
    }
    assert fingerprint(*load(Data(size=24, draws=1))) == fingerprint(train, test)


def test_fingerprint_is_the_content_wherever_it_lies(npz, tmp_path):
    arrays, cfg = npz

    def changed_fingerprint(cfg, **changes):
        np.savez(cfg.path, **arrays | changes)
        return fingerprint(*load(cfg))

    original = changed_fingerprint(cfg)
    assert original == changed_fingerprint(change(cfg, path=str(tmp_path / "b.npz")))
    for name, x in arrays.items():
        changed = x.copy()
        changed[-1] = changed[-1] // 2  # one image, or one label
        assert changed_fingerprint(cfg, **{name: changed}) != original, name
    assert changed_fingerprint(change(cfg, size=16)) != original
    assert changed_fingerprint(change(cfg, evaluate_on="validation")) != original
