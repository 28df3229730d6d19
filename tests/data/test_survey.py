"""What lies in a folder: the same as the reader makes of it, file by file."""

import re

import numpy as np
import pytest
from PIL import Image

from clsp_utils.config import Data
from clsp_utils.data import DataError, Images, load, survey, thumbnail, write_folder
from clsp_utils.data.image_folder import read_folder

SIZE = 16


def pixels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def save(path, image, side=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((side, side)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four pictures, one of them twice, once mirrored; and five files of no use."""
    for i, name in enumerate(("cat", "dog")):
        for j, image in enumerate(pixels(4, seed=i)):
            save(tmp_path / name / f"{j}.png", image)
    first = pixels(4)[0]
    save(tmp_path / "cat" / "again.bmp", first)
    save(tmp_path / "dog" / "mirrored.png", first[:, ::-1])
    save(tmp_path / "dog" / "tiny.png", first, 4)
    save(tmp_path / "beside.png", first)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / "cut.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes()[:300])
    (tmp_path / "dog" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    return tmp_path


SKIPPED = {
    "dog/tiny.png": "too small",
    "beside.png": "beside the class folders",
    "cat/notes.txt": "unreadable",
    "cat/cut.png": "unreadable",
    "dog/photo.heic": "in HEIC, which is not read (convert to JPEG)",
}


def test_every_file_is_told_with_what_becomes_of_it(folder):
    found = survey(folder, SIZE)
    files = found.files.set_index("file")
    assert found.root == folder and len(files) == 15
    assert files.skipped[files.skipped != ""].to_dict() == SKIPPED
    assert files.copy_of[files.copy_of != ""].to_dict() == {
        "cat/again.bmp": "cat/0.png", "dog/mirrored.png": "cat/0.png",
    }  # fmt: skip
    assert set(files["class"][files.skipped == ""]) == {"cat", "dog"} and set(files.split) == {""}
    assert files.loc["dog/tiny.png", ["width", "height"]].tolist() == [4, 4]
    assert files.loc["beside.png", "width"] == SIZE and files.loc["cat/notes.txt", "width"] == 0


def test_the_reader_uses_as_many(folder, capsys):
    train, _ = read_folder(folder, SIZE)
    found = survey(folder, SIZE)
    assert len(train) == len(found.used)
    assert len(train) - len(np.unique(train.groups)) == (found.files.copy_of != "").sum()
    assert f"{len(SKIPPED)} skipped" in capsys.readouterr().out


def test_without_a_size_only_heads_are_read(folder):
    files = survey(folder).files.set_index("file")
    assert set(files.copy_of) == {""}
    assert files.skipped[["dog/tiny.png", "cat/cut.png"]].tolist() == ["", ""]
    assert files.skipped["cat/notes.txt"] == "unreadable"


def test_splits_and_pictures_without_a_class(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / "one" / split / "cat" / "0.png", pixels(1)[0])
    save(tmp_path / "two" / "0.png", pixels(1)[0])
    files = survey(tmp_path / "one", SIZE).files
    assert files.split.tolist() == ["train", "val"] and set(files["class"]) == {"cat"}
    assert files.copy_of.tolist() == ["", "train/cat/0.png"]
    files = survey(tmp_path / "two", SIZE).files
    assert files.split.tolist() == [""] and files["class"].tolist() == [""]


def empty(root):
    pass


def only_text(root):
    (root / "notes.txt").write_text("no picture")


def only_damaged(root):
    save(root / "0.png", pixels(1)[0])
    (root / "0.png").write_bytes((root / "0.png").read_bytes()[:300])


@pytest.mark.parametrize("make, said", [
    (empty, "it has no files"), (only_text, "1 unreadable"), (only_damaged, "1 unreadable"),
])  # fmt: skip
def test_a_folder_of_no_use_is_refused_in_one_sentence(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(DataError, match=said) as refusal:
        survey(tmp_path, SIZE)
    assert re.fullmatch(r"[^\n]+\.", str(refusal.value))


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        survey(tmp_path / "nosuch")
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match="unpack it"):
        survey(tmp_path / "a.zip")


def test_a_thumbnail_is_the_picture_or_a_cross(folder):
    assert np.array_equal(thumbnail(folder / "cat" / "0.png", SIZE), pixels(4)[0])
    cross = thumbnail(folder / "cat" / "notes.txt", SIZE)
    assert cross.shape == (SIZE, SIZE, 3) and cross.dtype == np.uint8
    assert (cross[0, 0] == cross[0, -1]).all() and (cross[0, 0] != cross[0, 1]).all()


# The folder that is written -----------------------------------------------------------------------


def test_a_folder_is_written_as_people_have_them(tmp_path):
    train, _ = load(Data())
    write_folder(train, tmp_path)
    found = survey(tmp_path, SIZE)
    counts = found.used["class"].value_counts()
    assert len(counts) == 4 and counts.min() > 100 and len(found.used) > 400
    assert (found.files.copy_of != "").sum() == len(counts)
    assert sorted(found.files.skipped.unique()) == ["", "too small", "unreadable"]
    assert set(found.used.width) == {16, 24, 32}
    again = tmp_path / "again"
    write_folder(train, again)
    for path in tmp_path.glob("?/*"):
        assert path.read_bytes() == (again / path.relative_to(tmp_path)).read_bytes()


def test_of_a_group_one_picture_is_written(tmp_path):
    images = Images(pixels(40), np.arange(40) % 2, np.arange(40) // 4 * 4 + np.arange(40) % 2, "ab")
    write_folder(images, tmp_path)
    assert len([*tmp_path.glob("a/0*.png")]) == len([*tmp_path.glob("b/0*.png")]) == 10


def test_without_labels_pictures_lie_side_by_side(tmp_path):
    images = Images(pixels(40), np.full(40, -1), np.arange(40), ())
    write_folder(images, tmp_path)
    files = survey(tmp_path, SIZE)
    assert len(files.used) == 41 and set(files.files["class"]) == {""}
