"""Data sets in an .npz file: what is read, and what is refused with which sentence."""

import zipfile
from io import BytesIO

import numpy as np
import pytest
from reading import Evil, read, refusal, write

from clsp_utils.data import DataError, npz


def arrays(n=8, side=32, **more):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, n, side, side, 3), dtype=np.uint8)
    return {
        "train_x": images[0],
        "train_y": np.arange(n) % 10,
        "test_x": images[1],
        "test_y": np.arange(n)[::-1] % 10,
    } | more


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_npz(user, no_download, save, dtype):
    given = arrays()
    given["train_y"] = given["train_y"].astype(dtype)
    save(user / "x.npz", **given, more=np.zeros(3))
    train, test, classes = read("cifar10", user / "x.npz")
    for (images, labels), part in ((train, "train"), (test, "test")):
        assert np.array_equal(images, given[f"{part}_x"]) and np.array_equal(
            labels, given[f"{part}_y"]
        )
        assert labels.dtype == np.int64
    assert classes[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("shape", [(8, 16, 16, 3), (8, 64, 40, 3)])
def test_npz_of_other_sizes_is_resized(user, shape):
    np.savez(user / "x.npz", **arrays(train_x=np.full(shape, 9, np.uint8)))
    (images, _), _, _ = read("cifar10", user / "x.npz")
    assert images.shape == (8, 32, 32, 3) and (images == 9).all()


X = np.zeros((8, 32, 32, 3), np.uint8)
with BytesIO() as one_array:
    np.save(one_array, X)
    NPY = one_array.getvalue()
WRONG = {
    "float images": (
        {"train_x": X / 255},
        "train_x is float64 (8, 32, 32, 3); it must be uint8 (N, H, W, 3)",
    ),
    "channels first": ({"train_x": X.transpose(0, 3, 1, 2)}, "train_x is uint8 (8, 3, 32, 32)"),
    "grey": ({"test_x": X[..., 0]}, "test_x is uint8 (8, 32, 32)"),
    "one channel": ({"test_x": X[..., :1]}, "test_x is uint8 (8, 32, 32, 1)"),
    "alpha": ({"test_x": np.zeros((8, 32, 32, 4), np.uint8)}, "test_x is uint8 (8, 32, 32, 4)"),
    "no images": ({"train_x": X[:0], "train_y": np.arange(0)}, "train_x is uint8 (0, 32, 32, 3)"),
    "no pixels": ({"train_x": X[:, :0]}, "train_x is uint8 (8, 0, 32, 3)"),
    "too few labels": ({"train_y": np.arange(7)}, "train_y is int64 (7,); it must be 8 integers"),
    "labels in a column": ({"train_y": np.zeros((8, 1), int)}, "train_y is int64 (8, 1)"),
    "one label": ({"test_y": np.array(3)}, "test_y is int64 ()"),
    "float labels": ({"test_y": np.zeros(8)}, "test_y is float64 (8,)"),
    "text labels": ({"test_y": np.array(["cat"] * 8)}, "test_y is <U3 (8,)"),
    "labels too large": (
        {"test_y": np.full(8, 10)},
        "test_y run from 10 to 10; they must be 0 to 9",
    ),
    "labels too small": ({"train_y": np.arange(8) - 2}, "train_y run from -2 to 5"),
    "labels wrapped": (
        {"train_y": np.full(8, 2**64 - 1, np.uint64)},
        "train_y run from 18446744073709551615",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_npz_with_wrong_arrays_is_refused(user, case):
    changes, expected = WRONG[case]
    np.savez(user / "x.npz", **arrays(**changes))
    assert expected in refusal("cifar10", user / "x.npz")


def test_npz_without_labels_of_some(user):
    np.savez(user / "x.npz", **arrays(train_y=np.array([-1, 0, 1, 2, 3, 4, 5, -1])))
    assert read("cifar10", user / "x.npz")[0][1].tolist() == [-1, 0, 1, 2, 3, 4, 5, -1]


def test_npz_with_arrays_missing_is_refused(user):
    given = arrays()
    del given["train_y"], given["test_x"]
    np.savez(user / "x.npz", **given)
    assert (
        "train_y, test_x missing; the arrays must be train_x, train_y, test_x, test_y."
        in refusal("cifar10", user / "x.npz")
    )


def huge(path):
    """An .npz of a few hundred bytes whose header promises exabytes."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000, 32, 32, 3), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        for name in npz.ARRAYS:
            file.writestr(
                f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            )


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.touch(),
        lambda path: path.write_text("text"),
        lambda path: path.write_bytes(NPY),
        lambda path: zipfile.ZipFile(path, "w").writestr("train_x.npy", "text"),
        huge,
    ],
    ids=["empty", "text", "npy", "zip", "huge"],
)
def test_what_is_no_npz_is_refused(user, make):
    make(user / "x.npz")
    refusal("cifar10", user / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_to_an_npz_goes_unnoticed_or_raises(user, save):
    given = arrays(n=2, side=8)
    save(user / "x.npz", **given)
    whole, rng, refused = (user / "x.npz").read_bytes(), np.random.default_rng(0), 0
    for position in rng.integers(0, len(whole), 100):
        flipped = bytearray(whole)
        flipped[position] ^= rng.integers(1, 256)
        for damaged in (whole[:position], bytes(flipped)):
            (user / "x.npz").write_bytes(damaged)
            try:
                train, test, _ = read("cifar10", user / "x.npz", size=8)
            except DataError:
                refused += 1
            else:  # a byte that says nothing about the arrays, such as a date
                assert np.array_equal(train[0], given["train_x"]) and np.array_equal(
                    test[1], given["test_y"]
                )
    assert refused > 150


def test_a_pickle_called_npz_does_not_run(user, evil):
    assert "Python objects" in refusal("cifar10", write(user / "x.npz", evil[0]))


def test_a_pickle_in_an_npz_does_not_run(user, evil):
    mark = evil[1]
    np.savez(user / "x.npz", **arrays(train_y=np.array([Evil(mark)] * 8, object)))
    assert "Python objects" in refusal("cifar10", user / "x.npz")
