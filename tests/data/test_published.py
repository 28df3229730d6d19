"""Published data sets: every way to name them, and that nothing in their files is trusted.

They are replaced by a few made-up images; what torchvision says of names and checksums is replaced
with them.
"""

import hashlib
import io
import os
import pickle
import tarfile
import urllib.error

import numpy as np
import pytest
from PIL import Image
from reading import read, refusal, save_images, write
from torchvision import datasets

from clsp_utils.config import Data, change
from clsp_utils.data import image_folder, published
from clsp_utils.data.load import read as read_splits

LAYOUT = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"


def outside(user):
    """All files that are not the project's, with their content."""
    home = user.parent / "home"
    files = (p for p in user.parent.rglob("*") if home not in (p, *p.parents))
    return {p: p.read_bytes() if p.is_file() else None for p in files}


def md5(data):
    return hashlib.md5(data).hexdigest()


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
        for (images, labels), (true_images, true_labels) in zip(
            found[:2], (self.train, self.test), strict=True
        ):
            assert (
                images.dtype == np.uint8 and labels.dtype == np.int64 and images.flags.c_contiguous
            )
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
    return cifar(
        monkeypatch, datasets.CIFAR10, ["data_batch_1", "data_batch_2", "test_batch"], "labels"
    )


@pytest.fixture
def stl10(monkeypatch):
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        for name, n in (("train", 3), ("unlabeled", 4), ("test", 2))
    }
    labels = {"train": np.array([0, 9, 5]), "test": np.array([1, 2])}
    files = {
        f"{name}_X.bin": x.transpose(0, 3, 2, 1).tobytes() for name, x in images.items()
    }  # column by column
    files |= {f"{name}_y.bin": (y + 1).astype(np.uint8).tobytes() for name, y in labels.items()}
    train = (
        np.concatenate([images["train"], images["unlabeled"]]),
        np.append(labels["train"], [-1] * 4),
    )
    return Original(monkeypatch, datasets.STL10, files, train, (images["test"], labels["test"]))


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
    monkeypatch.setattr(published, "download_url", host.download)
    return host


def test_stl10_keeps_its_images_as_they_are_for_views(user, stl10, no_download):
    stl10.lay_out(user / "stl10_binary")
    cfg = Data(name="stl10", path=str(user / "stl10_binary"), size=64)
    train, test = read_splits(change(cfg, full_size=96))
    assert np.array_equal(train.full, stl10.train[0]) and test.full is None
    for found, expected in zip((train, test), read_splits(cfg)):
        assert np.array_equal(found.images, expected.images)


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


def test_an_archive_is_unpacked_once_and_again_if_that_was_cut_off(
    user, cifar10, no_download, monkeypatch
):
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
    monkeypatch.setattr(image_folder, "home", lambda *parts: user.parent.joinpath(*parts))
    assert cifar10.is_what_was_read(read("cifar10", "user"))
    monkeypatch.setenv("HOME", str(user.parent))
    monkeypatch.setattr(image_folder, "home", lambda *parts: user.joinpath(*parts))
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


@pytest.mark.parametrize(
    "error, reason",
    [
        (urllib.error.URLError(OSError(101, "Network is unreachable")), "Network is unreachable"),
        (urllib.error.HTTPError("http://x", 404, "Not Found", None, None), "Not Found"),
        (RuntimeError("File not found or corrupted."), "RuntimeError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_download_that_fails_says_what_to_do(user, cifar10, monkeypatch, error, reason):
    def fail(*args):
        raise error

    monkeypatch.setattr(published, "download_url", fail)
    message = refusal("cifar10")
    assert (
        reason in message
        and f"bring {ARCHIVE} from elsewhere and name it with data.path" in message
    )


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
        patch.setattr(published.shutil, "copyfileobj", fail(OSError(28, "No space left on device")))
        assert refusal("cifar10", path) == f"{path}: No space left on device."
        own = write(user.parent / "home" / "data" / ARCHIVE, cifar10.archive)
        assert refusal("cifar10") == f"{own.parent}: No space left on device."
    monkeypatch.setattr(published, "resize_all", fail(MemoryError()))
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
    assert (
        images.shape == (7, 64, 64, 3) and test_images.shape == (2, 64, 64, 3) and len(labels) == 7
    )
    for image, original in zip(images, stl10.train[0]):
        assert np.array_equal(
            image, Image.fromarray(original).resize((64, 64), Image.Resampling.BICUBIC)
        )


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_sizes_and_classes_of_published_sets(name):
    source = published.PUBLISHED[name]
    assert len(source.classes) == {"cifar10": 10, "cifar100": 100, "stl10": 10}[name]
    assert all(len(digest) == 32 for _, digest in source.files)


# What is not opened -----------------------------------------------------------------------------


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
        for name in (
            "../evil",
            "../../evil",
            str(user / "evil"),
            f"{LAYOUT}/../../../evil",
            f"{LAYOUT}/evil",
        ):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        for name, kind in (
            ("data_batch_1", tarfile.SYMTYPE),
            ("data_batch_2", tarfile.LNKTYPE),
            ("test_batch", tarfile.FIFOTYPE),
        ):
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


# Class folders -----------------------------------------------------------------------------------


def test_cifar10_from_class_folders(user, no_download):
    for name in published.CIFAR10.split():
        save_images(user / "train" / name, 2)
        save_images(user / "test" / name)
    train, test, classes = read("cifar10", user)
    assert classes == tuple(published.CIFAR10.split()) and sorted(train[1]) == sorted(
        [*range(10)] * 2
    )
    assert len(test[0]) == 10


def test_class_folders_of_another_number_are_refused(user):
    for name in "abc":
        save_images(user / name)
    assert "this is not CIFAR-10, with 3 class folders in place of 10" in refusal("cifar10", user)
