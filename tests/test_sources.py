"""Other people's data sets: every way to name them, and that nothing in them is trusted.

Published data sets are replaced by a few made-up images; what torchvision says of names and
checksums is replaced with them.
"""

import hashlib
import io
import os
import pickle
import re
import tarfile
import urllib.error
import zipfile

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from clsp_utils import sources
from clsp_utils.config import Data
from clsp_utils.folders import DataError

LAYOUT = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Somebody's folder beside the project's, with the working directory in a third place."""
    monkeypatch.setenv("CLSP_HOME", str(tmp_path / "home"))
    for name in ("user", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "user"


def outside(user):
    """All files that are not the project's, with their content."""
    home = user.parent / "home"
    files = (p for p in user.parent.rglob("*") if home not in (p, *p.parents))
    return {p: p.read_bytes() if p.is_file() else None for p in files}


def read(name, path="", **more):
    return sources.read(Data(name=name, path=str(path), **{"size": 32} | more))


def refusal(name, path="", **more):
    with pytest.raises(DataError) as error:
        read(name, path, **more)
    message = str(error.value)
    assert re.fullmatch(r"[^\n]+\.", message), "one sentence"
    return message


def md5(data):
    return hashlib.md5(data).hexdigest()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Made-up originals ------------------------------------------------------------------------------


class Original:
    """A data set of made-up images in the place of a published one: `(images, labels)` twice."""

    def __init__(self, monkeypatch, kind, files, train, test):
        self.files, self.train, self.test = files, train, test
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in ({"readme.html": b"hello"} | files).items():
                member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        self.archive = buffer.getvalue()
        monkeypatch.setattr(kind, "tgz_md5", md5(self.archive))
        for which in ("train_list", "test_list"):
            own = [[name, md5(files[name])] for name, _ in getattr(kind, which) if name in files]
            monkeypatch.setattr(kind, which, own)

    def lay_out(self, folder):
        for name, data in self.files.items():
            write(folder / name, data)
        return folder

    def is_what_was_read(self, found):
        for (images, labels), (true_images, true_labels) in zip(found[:2], (self.train, self.test), strict=True):
            assert images.dtype == np.uint8 and labels.dtype == np.int64 and images.flags.c_contiguous
            assert np.array_equal(images, true_images) and labels.tolist() == true_labels.tolist()
        return True


def cifar(monkeypatch, kind, names, label):
    """`names`: the batches, the last one the test batch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(names), 10, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, (len(names), 10))
    files = {
        name: pickle.dumps({"data": x.transpose(0, 3, 1, 2).reshape(10, -1), label: y.tolist()})
        for name, x, y in zip(names, images, labels)
    }
    train = np.concatenate(images[:-1]), np.concatenate(labels[:-1])
    return Original(monkeypatch, kind, files, train, (images[-1], labels[-1]))


@pytest.fixture
def cifar10(monkeypatch):
    return cifar(monkeypatch, datasets.CIFAR10, ["data_batch_1", "data_batch_2", "test_batch"], "labels")


@pytest.fixture
def stl10(monkeypatch):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for name, n in
              (("train", 3), ("unlabeled", 4), ("test", 2))}
    labels = {"train": np.array([0, 9, 5]), "test": np.array([1, 2])}
    files = {f"{name}_X.bin": x.transpose(0, 3, 2, 1).tobytes() for name, x in images.items()}  # column by column
    files |= {f"{name}_y.bin": (y + 1).astype(np.uint8).tobytes() for name, y in labels.items()}
    train = np.concatenate([images["train"], images["unlabeled"]]), np.append(labels["train"], [-1] * 4)
    return Original(monkeypatch, datasets.STL10, files, train, (images["test"], labels["test"]))


@pytest.fixture
def no_download(monkeypatch):
    def refuse(*args):
        raise AssertionError("a download")

    monkeypatch.setattr(sources, "download_url", refuse)


@pytest.fixture
def host(monkeypatch, cifar10):
    """Stands for the host of CIFAR-10; says how often it was asked."""
    class Host:
        content, asked = cifar10.archive, 0

        def download(self, url, root, filename, checksum):
            self.asked += 1
            write(root / filename, self.content)
            if md5(self.content) != checksum:
                raise RuntimeError("File not found or corrupted.")

    host = Host()
    monkeypatch.setattr(sources, "download_url", host.download)
    return host


# Where published data are found -----------------------------------------------------------------


@pytest.mark.parametrize("below", [LAYOUT, "renamed", f"above/{LAYOUT}"])
def test_cifar10_from_its_unpacked_folder(user, cifar10, no_download, below):
    cifar10.lay_out(user / below)
    before = outside(user)
    found = read("cifar10", user / below.removesuffix(f"/{LAYOUT}"))
    assert cifar10.is_what_was_read(found) and found[2][3] == "cat"
    assert outside(user) == before and not (user.parent / "home").exists()


def test_cifar10_from_its_archive(user, cifar10, no_download):
    path = write(user / "any name", cifar10.archive)
    before = outside(user)
    assert cifar10.is_what_was_read(read("cifar10", path))
    assert outside(user) == before
    unpacked = user.parent / "home" / "data" / LAYOUT
    assert {p.name: p.read_bytes() for p in unpacked.iterdir()} == cifar10.files


def test_an_archive_is_unpacked_once_and_again_if_that_was_cut_off(user, cifar10, no_download, monkeypatch):
    path = write(user / "archive", cifar10.archive)
    read("cifar10", path)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert cifar10.is_what_was_read(read("cifar10", path))
        assert cifar10.is_what_was_read(read("cifar10"))  # without a path too
    unpacked = user.parent / "home" / "data" / LAYOUT
    (unpacked / "data_batch_1").write_bytes(cifar10.files["data_batch_1"][:100])
    (unpacked / "test_batch").unlink()
    assert cifar10.is_what_was_read(read("cifar10", path))


def test_cifar10_from_the_projects_data_folder(user, cifar10, no_download, capsys):
    write(user.parent / "home" / "data" / ARCHIVE, cifar10.archive)
    assert cifar10.is_what_was_read(read("cifar10"))
    assert capsys.readouterr().out == ""


def test_a_relative_path_starts_in_the_projects_folder(user, cifar10, monkeypatch):
    cifar10.lay_out(user)
    monkeypatch.setattr(sources, "home", lambda *parts: user.parent.joinpath(*parts))
    assert cifar10.is_what_was_read(read("cifar10", "user"))
    monkeypatch.setenv("HOME", str(user.parent))
    monkeypatch.setattr(sources, "home", lambda *parts: user.joinpath(*parts))
    assert cifar10.is_what_was_read(read("cifar10", "~/user"))


def test_a_download_says_first_how_large_it_is_and_happens_once(user, cifar10, host, capsys):
    before = outside(user)
    assert cifar10.is_what_was_read(read("cifar10"))
    printed = capsys.readouterr().out
    assert printed.startswith("CIFAR-10: downloading 163 MiB from https://www.cs.toronto.edu/")
    assert str(user.parent / "home" / "data") in printed and outside(user) == before
    assert cifar10.is_what_was_read(read("cifar10"))
    assert host.asked == 1 and capsys.readouterr().out == ""


def test_a_download_that_was_cut_off_is_made_again(user, cifar10, host):
    write(user.parent / "home" / "data" / ARCHIVE, cifar10.archive[:50])
    assert cifar10.is_what_was_read(read("cifar10")) and host.asked == 1


@pytest.mark.parametrize("error, reason", [
    (urllib.error.URLError(OSError(101, "Network is unreachable")), "Network is unreachable"),
    (urllib.error.HTTPError("http://x", 404, "Not Found", None, None), "Not Found"),
    (RuntimeError("File not found or corrupted."), "RuntimeError"),
    (TimeoutError(), "TimeoutError"),
])
def test_a_download_that_fails_says_what_to_do(user, cifar10, monkeypatch, error, reason):
    def fail(*args):
        raise error

    monkeypatch.setattr(sources, "download_url", fail)
    message = refusal("cifar10")
    assert reason in message and f"bring {ARCHIVE} from elsewhere and name it with data.path" in message


def test_a_download_of_something_else_is_not_opened(user, cifar10, host):
    host.content = b"<html>moved</html>"
    assert "could not be downloaded" in refusal("cifar10")


def test_a_data_folder_that_cannot_be_written_is_named(user, cifar10):
    write(user.parent / "home", b"a file")
    assert "home/data" in refusal("cifar10", write(user / "archive", cifar10.archive))


def test_a_full_disk_and_full_memory_are_named(user, cifar10, monkeypatch):
    path = write(user / "archive", cifar10.archive)

    def fail(error):
        def raise_it(*args):
            raise error
        return raise_it

    with monkeypatch.context() as patch:
        patch.setattr(sources.shutil, "copyfileobj", fail(OSError(28, "No space left on device")))
        assert refusal("cifar10", path) == f"{path}: No space left on device."
        own = write(user.parent / "home" / "data" / ARCHIVE, cifar10.archive)
        assert refusal("cifar10") == f"{own.parent}: No space left on device."
    monkeypatch.setattr(sources, "fit", fail(MemoryError()))
    assert "size=32: the images do not fit into memory" in refusal("cifar10", path)


def test_cifar100_has_fine_labels(user, monkeypatch):
    original = cifar(monkeypatch, datasets.CIFAR100, ["train", "test"], "fine_labels")
    found = read("cifar100", original.lay_out(user / "x"))
    assert original.is_what_was_read(found)
    assert len(set(found[2])) == 100 and list(found[2]) == sorted(found[2])


def test_stl10_is_labelled_images_then_unlabelled_ones(user, stl10):
    found = read("stl10", stl10.lay_out(user / "x"), size=96)
    assert stl10.is_what_was_read(found) and len(set(found[2])) == 10


def test_images_are_resized_as_pil_does_it(user, stl10):
    (images, labels), (test_images, _), _ = read("stl10", stl10.lay_out(user / "x"), size=64)
    assert images.shape == (7, 64, 64, 3) and test_images.shape == (2, 64, 64, 3) and len(labels) == 7
    for image, original in zip(images, stl10.train[0]):
        assert np.array_equal(image, Image.fromarray(original).resize((64, 64), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", sources.PUBLISHED)
def test_sizes_and_classes_of_published_sets(name):
    source = sources.PUBLISHED[name]
    assert len(source.classes) == {"cifar10": 10, "cifar100": 100, "stl10": 10}[name]
    assert all(len(digest) == 32 for _, digest in source.files)


# What is not opened -----------------------------------------------------------------------------


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def evil(tmp_path):
    """A pickle, and what it makes if it is opened."""
    mark = tmp_path / "user" / "mark"
    data = pickle.dumps(Evil(mark))
    yield data, mark
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists(), "the trap works"


@pytest.mark.parametrize("name, file", [("cifar10", "data_batch_3"), ("cifar100", "train")])
def test_a_pickle_without_the_published_checksum_does_not_run(user, evil, no_download, name, file):
    write(user / "x" / file, evil[0])
    message = refusal(name, user / "x")
    assert file in message and "not opened" in message


def test_one_changed_batch_is_named_and_none_is_opened(user, cifar10, evil):
    cifar10.lay_out(user / "x")
    write(user / "x" / "data_batch_2", evil[0])
    message = refusal("cifar10", user / "x")
    assert "data_batch_2 missing or not as published" in message and "data_batch_1" not in message


def test_a_pickle_called_npz_does_not_run(user, evil):
    assert "Python objects" in refusal("cifar10", write(user / "x.npz", evil[0]))


def test_a_pickle_in_an_npz_does_not_run(user, evil):
    mark = evil[1]
    np.savez(user / "x.npz", **arrays(train_y=np.array([Evil(mark)] * 8, object)))
    assert "Python objects" in refusal("cifar10", user / "x.npz")


@pytest.mark.parametrize("name", ["x", "x.tar.gz", "x.zip"])
def test_an_archive_without_the_published_checksum_is_not_opened(user, cifar10, name):
    changed = cifar10.archive + b"\0"
    before = {write(user / name, changed): changed}
    assert datasets.CIFAR10.tgz_md5 in refusal("cifar10", user / name)
    assert outside(user).items() >= before.items() and not (user.parent / "home").exists()


def test_no_member_of_an_archive_leads_outside(user, cifar10, monkeypatch):
    """Even if the checksum were right."""
    target = write(user / "target", b"mine")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("../evil", "../../evil", str(user / "evil"), f"{LAYOUT}/../../../evil", f"{LAYOUT}/evil"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        for name, kind in (("data_batch_1", tarfile.SYMTYPE), ("data_batch_2", tarfile.LNKTYPE), ("test_batch", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"{LAYOUT}/{name}")
            member.type, member.linkname = kind, str(target)
            tar.addfile(member)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    path = write(user / "archive", buffer.getvalue())
    before = outside(user)
    assert "data_batch_1, data_batch_2, test_batch missing" in refusal("cifar10", path)
    assert outside(user) == before
    assert not list((user.parent / "home").rglob("evil"))


def test_links_in_the_data_folder_are_not_written_through(user, cifar10):
    path = write(user / "archive", cifar10.archive)
    mine = write(user / "mine" / "data_batch_1", b"mine")
    data = user.parent / "home" / "data"
    data.mkdir(parents=True)
    (data / LAYOUT).symlink_to(mine.parent)
    before = outside(user)
    assert "link" in refusal("cifar10", path)
    (data / LAYOUT).unlink()
    (data / LAYOUT).mkdir()
    (data / LAYOUT / "data_batch_1").symlink_to(mine)
    assert cifar10.is_what_was_read(read("cifar10", path))
    assert outside(user) == before


@pytest.mark.parametrize("name", ["nothing", "pipe", "two\nlines", "zero\0byte", "x" * 5000])
def test_what_is_neither_file_nor_folder_is_refused(user, name):
    os.mkfifo(user / "pipe")
    assert "there is no such file or folder" in refusal("cifar10", user / name)


# Arrays -----------------------------------------------------------------------------------------


def arrays(n=8, side=32, **more):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, n, side, side, 3), dtype=np.uint8)
    return {
        "train_x": images[0], "train_y": np.arange(n) % 10, "test_x": images[1], "test_y": np.arange(n)[::-1] % 10
    } | more


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_npz(user, no_download, save, dtype):
    given = arrays()
    given["train_y"] = given["train_y"].astype(dtype)
    save(user / "x.npz", **given, more=np.zeros(3))
    train, test, classes = read("cifar10", user / "x.npz")
    for (images, labels), part in ((train, "train"), (test, "test")):
        assert np.array_equal(images, given[f"{part}_x"]) and np.array_equal(labels, given[f"{part}_y"])
        assert labels.dtype == np.int64
    assert classes[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("shape", [(8, 16, 16, 3), (8, 64, 40, 3)])
def test_npz_of_other_sizes_is_resized(user, shape):
    np.savez(user / "x.npz", **arrays(train_x=np.full(shape, 9, np.uint8)))
    (images, _), _, _ = read("cifar10", user / "x.npz")
    assert images.shape == (8, 32, 32, 3) and (images == 9).all()


X = np.zeros((8, 32, 32, 3), np.uint8)
WRONG = {
    "float images": ({"train_x": X / 255}, "train_x is float64 (8, 32, 32, 3); it must be uint8 (N, H, W, 3)"),
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
    "labels too large": ({"test_y": np.full(8, 10)}, "test_y run from 10 to 10; they must be 0 to 9"),
    "labels too small": ({"train_y": np.arange(8) - 2}, "train_y run from -2 to 5"),
    "labels wrapped": ({"train_y": np.full(8, 2**64 - 1, np.uint64)}, "train_y run from 18446744073709551615"),
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
    assert "train_y, test_x missing; the arrays must be train_x, train_y, test_x, test_y." in refusal("cifar10", user / "x.npz")


def huge(path):
    """An .npz of a few hundred bytes whose header promises exabytes."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000, 32, 32, 3), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        for name in sources.ARRAYS:
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


@pytest.mark.parametrize("make", [
    lambda path: path.touch(),
    lambda path: path.write_text("text"),
    lambda path: np.save(open(path, "wb"), X),
    lambda path: zipfile.ZipFile(path, "w").writestr("train_x.npy", "text"),
    huge,
], ids=["empty", "text", "npy", "zip", "huge"])
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
                assert np.array_equal(train[0], given["train_x"]) and np.array_equal(test[1], given["test_y"])
    assert refused > 150


# Folders of images ------------------------------------------------------------------------------


def images(folder, n=1, size=32):
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (size, size), (i, i, i)).save(folder / f"{i}.png")


def test_cifar10_from_class_folders(user, no_download):
    for name in sources.CIFAR10.split():
        images(user / "train" / name, 2)
        images(user / "test" / name)
    train, test, classes = read("cifar10", user)
    assert classes == tuple(sources.CIFAR10.split()) and sorted(train[1]) == sorted([*range(10)] * 2)
    assert len(test[0]) == 10


def test_class_folders_of_another_number_are_refused(user):
    for name in "abc":
        images(user / name)
    assert "this is not CIFAR-10, with 3 class folders in place of 10" in refusal("cifar10", user)


def test_folder_is_read_at_any_size(user):
    images(user / "a", 3)
    assert read("folder", user, size=24)[0][0].shape == (3, 24, 24, 3)


WNIDS = [f"n{10000000 + i}" for i in range(100)]


@pytest.fixture
def imagenet(user):
    for name in [*WNIDS, "n99999999"]:
        images(user / "imagenet" / "train" / name)
        images(user / "imagenet" / "val" / name)
    images(user / "imagenet" / "test")
    (user / "list.txt").write_text("\n".join([*WNIDS[50:], "", *(f"{w} a fish" for w in WNIDS[:50])]) + "\n")
    return user


def test_imagenet100_is_the_listed_classes(imagenet):
    train, test, classes = read("imagenet100", imagenet / "imagenet", wnids=str(imagenet / "list.txt"))
    assert list(classes) == WNIDS
    assert sorted(train[1]) == sorted(test[1]) == list(range(100))


def test_imagenet_without_a_listed_class_is_refused(imagenet):
    (imagenet / "imagenet" / "val" / WNIDS[3]).rename(imagenet / "elsewhere")
    message = refusal("imagenet100", imagenet / "imagenet", wnids=str(imagenet / "list.txt"))
    assert f"imagenet/val: 1 of 100 classes have no folder: {WNIDS[3]}." in message


@pytest.mark.parametrize("lines, expected", [
    (WNIDS[:99], "there are 99 different wnids"),
    (WNIDS + [WNIDS[0], "n12345678"], "there are 101 different wnids"),
    ([*WNIDS[:99], "../../secret"], "not with ../../secret"),
    ([*WNIDS[:99], WNIDS[99] + "/.."], f"not with {WNIDS[99]}/.."),
    ([*WNIDS[:99], "\x00\x1b"], "not with \\x00\\x1b"),
    ([], "there are 0 different wnids"),
])
def test_a_wrong_list_of_classes_is_refused(user, lines, expected):
    (user / "list.txt").write_text("\n".join(lines))
    assert expected in refusal("imagenet100", user, wnids=str(user / "list.txt"))


def test_a_missing_or_binary_list_of_classes_is_refused(user):
    assert "there is no such file" in refusal("imagenet100", user, wnids=str(user / "list.txt"))
    assert "wnid" in refusal("imagenet100", user, wnids=str(write(user / "list.txt", bytes(range(256)))))
