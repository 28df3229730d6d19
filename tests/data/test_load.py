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


# Larger images for views ------------------------------------------------------------------------


def photographs(tmp_path):
    """Five pictures of 24 pixels in each of two classes, in two splits."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(5):
                image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
                image.save(tmp_path / split / name / f"{i}.png")
    return Data(name="folder", size=16, path=str(tmp_path))


def test_a_larger_copy_is_kept_of_the_images_that_are_trained_on(tmp_path):
    cfg = photographs(tmp_path)
    small, whole = load(cfg), load(change(cfg, size=24))
    train, test = load(change(cfg, full_size=24))
    for found, expected in ((train, small[0]), (test, small[1])):  # as without it
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)
    assert train.full.dtype == np.uint8 and np.array_equal(train.full, whole[0].images)
    assert train.to_cut is train.full and test.full is None and test.to_cut is test.images
    some = train[np.array([3, 1])]
    assert np.array_equal(some.full, whole[0].images[[3, 1]]) and len(some.images) == 2
    kept, held = load(change(cfg, full_size=24, evaluate_on="validation"))
    for part in (kept, held):  # rows of both sizes stay together
        rows = [np.flatnonzero((whole[0].images == x).all((1, 2, 3)))[0] for x in part.full]
        assert np.array_equal(part.images, small[0].images[rows])


def test_a_larger_copy_counts_for_the_key(tmp_path):
    cfg = change(photographs(tmp_path), full_size=24)
    train, test = load(cfg)
    first = fingerprint(train, test)
    assert first != fingerprint(*load(change(cfg, full_size=0)))
    train.full[0, 0, 0, 0] ^= 1
    assert fingerprint(train, test) != first


@pytest.mark.parametrize(
    "given", [{"full_size": 15, "name": "folder", "path": "x"}, {"full_size": 32}]
)
def test_a_larger_copy_is_larger_and_not_of_the_digits(given):
    with pytest.raises(ValueError, match="full_size=.*must be 0 or at least size=16, and 0 for"):
        Data(**given)


# What people bring --------------------------------------------------------------------------------


def colours(n, seed=0):
    """Images of one random colour each, `(n, 8, 8, 3)`."""
    x = np.random.default_rng(seed).integers(0, 256, (n, 1, 1, 3), np.uint8)
    return np.broadcast_to(x, (n, 8, 8, 3))


def archive(path, train_y, test_y):
    x = colours(len(train_y)), colours(len(test_y), seed=1)
    np.savez(path, train_x=x[0], train_y=train_y, test_x=x[1], test_y=test_y)
    return Data(name="cifar10", size=8, path=str(path))


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_a_limit_keeps_every_class_of_a_file_that_is_sorted_by_class(tmp_path, evaluate_on):
    cfg = archive(tmp_path / "a.npz", np.arange(10).repeat(100), np.arange(10).repeat(50))
    train, test = load(change(cfg, limit=200, evaluate_on=evaluate_on))
    assert np.bincount(train.labels).tolist() == np.bincount(test.labels).tolist() == [20] * 10


def test_a_limit_keeps_every_class_of_folders(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 130), ("test", 110)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
                image.save(tmp_path / split / name / f"{i}.png")
    train, test = load(Data(name="folder", size=8, path=str(tmp_path), limit=200))
    assert np.bincount(train.labels).tolist() == np.bincount(test.labels).tolist() == [100, 100]


def test_a_limit_keeps_the_first_digits():
    whole, some = load(Data(size=8, draws=1)), load(Data(size=8, draws=1, limit=250))
    for a, b in zip(whole, some):
        assert len(b) == 250 and np.array_equal(a.images[:250], b.images)
        assert np.array_equal(a.groups[:250], b.groups)


def test_a_limit_above_the_number_of_images_keeps_all(tmp_path):
    cfg = archive(tmp_path / "a.npz", np.arange(300) % 10, np.arange(250) % 10)
    train, test = load(change(cfg, limit=280))
    assert len(train) == 280 and len(test) == 250


def test_chance_in_an_archive_with_two_of_ten_labels(tmp_path):
    train, test = load(archive(tmp_path / "a.npz", np.arange(300) % 2 * 5, np.arange(200) % 2 * 5))
    assert train.chance == test.chance == 1 / 2 and len(train.class_names) == 10


def test_images_of_both_splits_of_an_archive_are_counted(tmp_path, capsys):
    x, y = colours(300), np.arange(300) % 10
    x = np.unique(x, axis=0)[:250]
    parts = {"train_x": x[:200], "train_y": y[:200], "test_x": x[190:], "test_y": y[190:250]}
    np.savez(tmp_path / "a.npz", **parts)
    train, test = load(Data(name="cifar10", size=8, path=str(tmp_path / "a.npz")))
    assert "10 of 60 test images are in the training split too" in capsys.readouterr().out
    assert len(train) == 200 and len(test) == 60  # they stay where they are
    assert len(groups(train) & groups(test)) == 10


@pytest.mark.parametrize("evaluate_on", ["test", "validation"])
def test_copies_in_a_folder_are_on_one_side(tmp_path, evaluate_on):
    cfg = folder_of_images(tmp_path, "cat", "dog", n=20)
    for name in ("cat", "dog"):
        for j in range(0, 20, 2):
            Image.open(tmp_path / name / f"{j}.png").save(tmp_path / name / f"{j} (1).bmp")
    train, test = load(change(cfg, evaluate_on=evaluate_on))
    assert not set(map(bytes, train.images)) & set(map(bytes, test.images))
    assert not groups(train) & groups(test)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_images_of_a_class_are_told_how_many_are_enough(tmp_path, n):
    with pytest.raises(DataError, match=f"the smallest has {n} and 10 are enough"):
        load(folder_of_images(tmp_path, *"abcdef", n=n))


def test_other_images_in_the_same_place_have_another_fingerprint(tmp_path):
    cfg = folder_of_images(tmp_path, "cat", "dog", n=20)
    before = fingerprint(*load(cfg))
    Image.new("RGB", (16, 16), (9, 9, 9)).save(tmp_path / "cat" / "0.png")
    assert fingerprint(*load(cfg)) != before
