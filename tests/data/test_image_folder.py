"""Folders of image files: what is read, what is skipped with which reason, and what is refused."""

import io
import os
import re
import signal
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from clsp_utils.data import DataError, image_folder
from clsp_utils.data.image_folder import read_image

SIZE = 16
BROWN = (200, 100, 50)


@pytest.fixture(autouse=True)
def no_hang():
    """A test that waits, for example for a pipe, fails."""

    def fail(*args):
        raise AssertionError("still waiting after 20 s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def save(path, colour=BROWN, size=(SIZE, SIZE), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def read_folder(*args, **options):
    """Images and labels of both splits (None: there is no test split), and the class names."""
    train, test = image_folder.read_folder(*args, **options)
    held_out = test and (test.images, test.labels)
    return (train.images, train.labels), held_out, train.class_names


def refusal(*args, **options):
    with pytest.raises(DataError) as error:
        read_folder(*args, **options)
    message = str(error.value)
    assert re.fullmatch(r"[^\n]+\.", message), "one sentence"
    return message


# One file ---------------------------------------------------------------------------------------


def tiff_of_floats(path):
    Image.fromarray(np.full((SIZE, SIZE), 0.5, np.float32)).save(path)


def half_transparent_palette(path):
    image = Image.new("P", (SIZE, SIZE), 0)
    image.putpalette([*BROWN, 0, 0, 0])
    image.save(path, transparency=0)


def two_frames(path):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in (BROWN, (0, 0, 255))]
    frames[0].save(path, save_all=True, append_images=frames[1:])


# name of the file -> how it is made, the colour it must have
KINDS = {
    "rgb.png": (lambda p: save(p), BROWN),
    "rgb.bmp": (lambda p: save(p), BROWN),
    "rgb.webp": (lambda p: save(p, lossless=True), BROWN),
    "grey.png": (lambda p: save(p, 77, mode="L"), (77, 77, 77)),
    "grey16.png": (lambda p: save(p, 128 * 257, mode="I;16"), (128, 128, 128)),
    "grey16.tif": (lambda p: save(p, 65535, mode="I;16"), (255, 255, 255)),
    "grey32.tif": (lambda p: save(p, 70000, mode="I"), (255, 255, 255)),
    "black_or_white.png": (lambda p: save(p, 1, mode="1"), (255, 255, 255)),
    "opaque.png": (lambda p: save(p, (*BROWN, 255), mode="RGBA"), BROWN),
    "transparent.png": (lambda p: save(p, (0, 0, 0, 0), mode="RGBA"), (255, 255, 255)),
    "half_transparent.png": (lambda p: save(p, (0, 0, 0, 51), mode="RGBA"), (204, 204, 204)),
    "grey_half_transparent.png": (lambda p: save(p, (0, 51), mode="LA"), (204, 204, 204)),
    "palette.gif": (lambda p: save(p), BROWN),
    "transparent_palette.png": (half_transparent_palette, (255, 255, 255)),
    "transparent_colour.png": (lambda p: save(p, transparency=BROWN), (255, 255, 255)),
    "cmyk.jpg": (lambda p: save(p, (0, 128, 192, 55), mode="CMYK", quality=100), (200, 100, 49)),
    "rgb.jpg": (lambda p: save(p, quality=100), BROWN),
    "jpeg_called.png": (lambda p: save(p, format="JPEG", quality=100), BROWN),
    "no_ending": (lambda p: save(p, format="PNG"), BROWN),
    "animation.gif": (two_frames, BROWN),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_becomes_rgb(tmp_path, name):
    make, colour = KINDS[name]
    make(tmp_path / name)
    found = read_image(tmp_path / name, SIZE)
    assert found.shape == (SIZE, SIZE, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - colour).max() <= (2 if "jp" in name else 0)


def text(path):
    path.write_text("not an image")


def bomb(path, side=20_000):
    """A PNG of a few bytes whose header promises 400 million pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


FEW_BITS = "using few of their 16 bits (stretch them)"


def signed_scan(path):
    Image.fromarray(np.full((SIZE, SIZE), 255, np.int16)).save(path)


UNUSABLE = {
    "text.png": (text, "unreadable"),
    "empty.jpg": (lambda p: p.touch(), "unreadable"),
    "floats.tif": (tiff_of_floats, "unreadable"),
    "unlisted_format.ico": (lambda p: save(p), "unreadable"),
    "starts_a_program.eps": (lambda p: save(p), "unreadable"),
    "cut.png": (lambda p: p.write_bytes(save(p).read_bytes()[:60]), "unreadable"),
    "cut.jpg": (lambda p: p.write_bytes(save(p, size=(64, 64)).read_bytes()[:-200]), "unreadable"),
    "pixel.png": (lambda p: save(p, size=(1, 1)), "too small"),
    "narrow.png": (lambda p: save(p, size=(300, SIZE // 2 - 1)), "too small"),
    "bomb.png": (bomb, "too large"),
    "scan of 12 bits.png": (lambda p: save(p, 4095, mode="I;16"), f"{FEW_BITS}"),
    "scan of 12 bits.tif": (lambda p: save(p, 4095, mode="I"), f"{FEW_BITS}"),
    "signed scan of 8 bits.tif": (signed_scan, f"{FEW_BITS}"),
    "large.png": (lambda p: bomb(p, 10_000), "too large"),  # PIL only warns of this one
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_has_its_reason(tmp_path, name):
    make, reason = UNUSABLE[name]
    make(tmp_path / name)
    save(tmp_path / "good.png")
    assert len(read_folder(tmp_path, SIZE)[0][0]) == 1
    (tmp_path / "good.png").unlink()
    assert f"1 skipped (1 {reason}: {name})." in refusal(tmp_path, SIZE)


def test_an_image_of_half_the_size_is_still_enlarged(tmp_path):
    assert read_image(save(tmp_path / "a.png", size=(SIZE // 2, SIZE // 2)), SIZE).shape == (
        SIZE,
        SIZE,
        3,
    )


@pytest.mark.parametrize("turn", [False, True])
def test_the_middle_is_kept(tmp_path, turn):
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:80, 1] = pixels[:, 80:, 2] = 255
    Image.fromarray(pixels.swapaxes(0, 1) if turn else pixels).save(tmp_path / "a.png")
    middle = read_image(tmp_path / "a.png", 20)[2:-2, 2:-2]  # its rim mixes with what was cut off
    assert (middle == (0, 255, 0)).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_resizing_averages(tmp_path, name):
    checkerboard = np.indices((256, 256)).sum(0) % 2 * np.uint8(255)
    Image.fromarray(checkerboard.astype(np.uint8)).save(tmp_path / name)
    small = read_image(tmp_path / name, SIZE)
    assert np.abs(small.astype(int) - 127).max() < 20


def test_a_jpeg_is_decoded_no_smaller_than_it_is_needed(tmp_path):
    small = np.random.default_rng(0).integers(80, 176, (SIZE, SIZE, 1), dtype=np.uint8).repeat(3, 2)
    Image.fromarray(small.repeat(4, 0).repeat(4, 1)).save(tmp_path / "a.jpg", quality=95)
    found = read_image(tmp_path / "a.jpg", SIZE)
    whole = Image.open(tmp_path / "a.jpg").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert np.abs(found.astype(int) - whole).mean() < 3


def test_a_turned_photograph_is_turned_back(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # light above
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    found = read_image(tmp_path / "a.jpg", 32)
    assert found[:8].mean() < 10 and found[-8:].mean() > 245


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_no_damage_to_a_file_raises(tmp_path, kind):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(buffer, kind)
    whole, path = buffer.getvalue(), tmp_path / "a"
    outcomes = set()
    for position in rng.integers(0, len(whole), 100):
        flipped = bytearray(whole)
        flipped[position] ^= rng.integers(1, 256)
        for damaged in (whole[:position], bytes(flipped)):
            path.write_bytes(damaged)
            found = read_image(path, SIZE)
            if not isinstance(found, str):
                assert found.shape == (SIZE, SIZE, 3)
            outcomes.add(found if isinstance(found, str) else "read")
    assert "unreadable" in outcomes


# Folders ----------------------------------------------------------------------------------------


def by_colour(split):
    """Grey level of each image -> its label."""
    return {int(image[0, 0, 0]): int(label) for image, label in zip(*split)}


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path, capsys):
    for i, name in enumerate(["dog/a.png", "cat/a.png", "dog/deeper/still/b.png", "bird/a.png"]):
        save(tmp_path / name, (i, i, i))
    train, test, classes = read_folder(tmp_path, SIZE)
    assert classes == ("bird", "cat", "dog") and test is None
    assert by_colour(train) == {0: 2, 1: 1, 2: 2, 3: 0}
    assert train[0].shape == (4, SIZE, SIZE, 3) and (train[0].dtype, train[1].dtype) == (
        np.uint8,
        np.int64,
    )
    assert capsys.readouterr().out == f"{tmp_path}: 4 images read, 0 skipped.\n"


def test_without_sub_folders_there_are_no_labels(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", (i, i, i))
    train, test, classes = read_folder(tmp_path, SIZE)
    assert by_colour(train) == {0: -1, 1: -1, 2: -1} and test is None and classes == ()


def test_the_order_is_mixed_and_always_the_same(tmp_path):
    for i in range(20):
        save(tmp_path / ("cat" if i < 10 else "dog") / f"{i:02}.png", (i, i, i))
    (images, labels), _, _ = read_folder(tmp_path, SIZE)
    assert 2 < labels[:10].sum() < 8
    assert np.array_equal(read_folder(tmp_path, SIZE)[0][0], images)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_split_that_is_there_is_taken(tmp_path, held_out):
    for i, name in enumerate(
        ["train/cat/a.png", "train/dog/a.png", f"{held_out}/dog/a.png", "more/emu/a.png"]
    ):
        save(tmp_path / name, (i, i, i))
    train, test, classes = read_folder(tmp_path, SIZE)
    assert (
        classes == ("cat", "dog") and by_colour(train) == {0: 0, 1: 1} and by_colour(test) == {2: 1}
    )


def test_test_goes_before_val(tmp_path):
    for i, name in enumerate(["train/cat/a.png", "test/cat/a.png", "val/cat/a.png"]):
        save(tmp_path / name, (i, i, i))
    train, test, _ = read_folder(tmp_path, SIZE)
    assert by_colour(train) == {0: 0} and by_colour(test) == {1: 0}


def test_test_may_lack_labels_where_train_does(tmp_path):
    for i, name in enumerate(["train/a.png", "test/a.png", "val/a.png"]):
        save(tmp_path / name, (i, i, i))
    train, test, _ = read_folder(tmp_path, SIZE)
    assert by_colour(train) == {0: -1} and by_colour(test) == {1: -1}


@pytest.mark.parametrize("test", ["test/a.png", "test/images/a.png", "Testing/unknown/deep/a.png"])
@pytest.mark.parametrize("val", ["val", "VALID", "Eval"])
def test_a_test_split_without_labels_is_left_out_where_train_has_some(tmp_path, capsys, test, val):
    for i, name in enumerate(["train/cat/a.png", "train/dog/a.png", test]):
        save(tmp_path / name, (i, i, i))
    note = f"{test.split('/')[0]} not used, since it has no folders of classes."
    train, none, classes = read_folder(tmp_path, SIZE)
    assert none is None and by_colour(train) == {0: 0, 1: 1}
    assert note in capsys.readouterr().out
    save(tmp_path / val / "dog" / "a.png", (3, 3, 3))  # as ImageNet is published
    train, held_out, classes = read_folder(tmp_path, SIZE)
    assert classes == ("cat", "dog") and by_colour(held_out) == {3: 1}
    assert note in capsys.readouterr().out


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize(
    "held_out", ["test", "Test", "TEST", "testing", "Val", "valid", "validation", "EVAL", "dev"]
)
def test_a_split_by_any_of_its_names(tmp_path, train, held_out):
    for i, name in enumerate([f"{train}/cat/a.png", f"{train}/dog/a.png", f"{held_out}/dog/a.png"]):
        save(tmp_path / name, (i, i, i))
    first, second, classes = read_folder(tmp_path, SIZE)
    assert classes == ("cat", "dog")
    assert by_colour(first) == {0: 0, 1: 1} and by_colour(second) == {2: 1}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "Train", "test"), "Train and train could both be the split 'train'"),
        (("train", "training", "test"), "train and training could both be the split 'train'"),
        (("train", "Test", "test"), "Test and test could both be the split 'test'"),
        (("train", "valid", "val"), "val and valid could both be the split 'val'"),
    ],
)
def test_two_folders_for_one_split_are_refused(tmp_path, folders, expected):
    for name in folders:
        save(tmp_path / name / "cat" / "a.png")
    assert expected in refusal(tmp_path, SIZE)


def test_two_folders_for_a_split_that_is_not_used_do_not_matter(tmp_path):
    for i, name in enumerate(["train", "test", "val", "valid"]):
        save(tmp_path / name / "cat" / "a.png", (i, i, i))
    assert by_colour(read_folder(tmp_path, SIZE)[1]) == {1: 0}


def test_train_with_classes_beside_other_folders_is_no_class(tmp_path):
    for name in ["train/cat/a.png", "train/dog/a.png", "annotations/a.png"]:
        save(tmp_path / name)
    assert "two folders in it, train and test or val." in refusal(tmp_path, SIZE)


@pytest.mark.parametrize("folders", [("bus", "train"), ("test", "val"), ("Valid", "dog")])
def test_a_split_that_is_taken_for_a_class_is_said_so(tmp_path, capsys, folders):
    for name in folders:
        save(tmp_path / name / "a.png")
    assert read_folder(tmp_path, SIZE)[2] == folders
    assert "taken for a class, not for a split." in capsys.readouterr().out


WRAPPERS = ["archive", "archive/images", "a/b/c", "Animals-10", "Test", "été"]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("layout", ["classes", "splits"])
@pytest.mark.parametrize("beside", [None, "README.txt", "__MACOSX/._a.png"])
def test_a_folder_that_holds_everything_is_opened(tmp_path, capsys, wrapper, layout, beside):
    inner = tmp_path / wrapper
    for i, name in enumerate(["cat", "dog"]):
        for j, split in enumerate(["train", "test"] if layout == "splits" else [""]):
            save(inner / split / name / "a.png", (2 * j + i,) * 3)
    if beside:
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).touch()
    train, test, classes = read_folder(tmp_path, SIZE)
    assert classes == ("cat", "dog") and by_colour(train) == {0: 0, 1: 1}
    assert (test is None) == (layout == "classes")
    printed = capsys.readouterr().out
    assert printed.startswith(f"{inner}: ") and f"this is all that lies in {tmp_path}." in printed


def test_a_split_inside_its_own_folder(tmp_path):
    for i, name in enumerate(["train/train/cat/a", "train/train/dog/a", "test/test/dog/a"]):
        save(tmp_path / f"{name}.png", (i, i, i))
    _, test, classes = read_folder(tmp_path, SIZE)
    assert classes == ("cat", "dog") and by_colour(test) == {2: 1}


@pytest.mark.parametrize("beside", ["", "cat/b.png", "c.jpg"])
def test_a_class_with_folders_in_it_and_images_beside_them_is_no_wrapper(tmp_path, beside):
    save(tmp_path / "cat" / "young" / "a.png")
    if beside:
        save(tmp_path / beside)
    assert read_folder(tmp_path, SIZE)[2] == ("cat" if beside else "young",)


# What systems, drives and archives leave in folders, as files and as folders.
LEFT_BY_SYSTEMS = [
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "cat/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/a.png", "@Recycle/a.png", ".@__thumb/a.png", "lost+found/a.png",
    "$RECYCLE.BIN/S-1-5/$R1.png", "System Volume Information/a.png", "System volume information/a",
    ".Trashes/a.png", ".Spotlight-V100/a.png", ".fseventsd/a", "__MACOSX/cat/._a.png",
    "cat/._a.png", "cat/.DS_Store", ".DS_Store", "Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini",
    "Desktop.ini", "cat/ehthumbs.db", "cat/Icon\r", ".ipynb_checkpoints/a-checkpoint.png",
    "cat/.ipynb_checkpoints/a.png", ".git/HEAD", ".AppleDouble/a.png", "#snapshot/a.png",
]  # fmt: skip


@pytest.mark.parametrize("name", LEFT_BY_SYSTEMS)
def test_what_systems_leave_is_neither_image_nor_class_nor_skipped(tmp_path, capsys, name):
    for i, label in enumerate(["cat", "dog"]):
        save(tmp_path / label / "a.png", (i, i, i))
    save(tmp_path / name, format="PNG")
    train, _, classes = read_folder(tmp_path, SIZE)
    assert classes == ("cat", "dog") and by_colour(train) == {0: 0, 1: 1}
    assert capsys.readouterr().out == f"{tmp_path}: 2 images read, 0 skipped.\n"
    assert len(read_folder(tmp_path / "cat", SIZE)[0][0]) == 1  # and without labels


def test_what_systems_leave_is_no_class_of_a_split(tmp_path):
    for name in ["train/cat", "train/dog", "test/cat", "test/dog", "test/@eaDir", "train/#recycle"]:
        save(tmp_path / name / "a.png")
    assert read_folder(tmp_path, SIZE)[2] == ("cat", "dog")


CAFE = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize("forms", [CAFE, CAFE[::-1], (CAFE[0], CAFE[0])])
def test_a_class_has_one_name_in_both_forms_of_unicode(tmp_path, forms):
    for i, name in enumerate([f"train/{forms[0]}", "train/bar", f"test/{forms[1]}"]):
        save(tmp_path / name / "a.png", (i, i, i))
    _, test, classes = read_folder(tmp_path, SIZE)
    assert classes == ("bar", CAFE[0]) and by_colour(test) == {2: 1}


def test_two_classes_of_one_name_in_both_forms_of_unicode_are_refused(tmp_path):
    for name in CAFE:
        save(tmp_path / name / "a.png")
    assert f"two folders in it are called {CAFE[0]}" in refusal(tmp_path, SIZE)


def test_a_class_may_be_called_train(tmp_path):
    for i, name in enumerate(["bus/a.png", "train/a.png"]):
        save(tmp_path / name, (i, i, i))
    assert read_folder(tmp_path, SIZE)[2] == ("bus", "train")


def test_wanted_classes_only(tmp_path):
    for i, name in enumerate(
        ["train/b/a.png", "train/c/a.png", "train/a/a.png", "val/a/a.png", "val/c/a.png"]
    ):
        save(tmp_path / name, (i, i, i))
    train, test, classes = read_folder(tmp_path, SIZE, wanted=("a", "c"))
    assert (
        classes == ("a", "c")
        and by_colour(train) == {1: 1, 2: 0}
        and by_colour(test) == {3: 0, 4: 1}
    )
    assert "2 of 3 classes have no folder: d, e" in refusal(tmp_path, SIZE, wanted=("a", "d", "e"))


def test_skipped_files_are_counted_and_named(tmp_path, capsys):
    outside = save(tmp_path / "outside" / "secret.png")
    root = tmp_path / "images"
    save(root / "cat" / "good.png")
    inside = root / "cat" / "inside.png"
    inside.symlink_to(root / "cat" / "good.png")
    for i in range(4):
        text(root / "cat" / f"bad{i}.png")
    save(root / "cat" / "tiny.png", size=(2, 2))
    save(root / "stray.png")
    save(root / "cat" / ".hidden.png")
    save(root / ".git" / "a.png")
    (root / "cat" / "out.png").symlink_to(outside)
    (root / "cat" / "up.png").symlink_to("../../outside/secret.png")
    (root / "cat" / "far").symlink_to(outside.parent)
    (root / "cat" / "broken.png").symlink_to(root / "nothing.png")
    (root / "cat" / "circle").symlink_to(root / "cat")
    os.mkfifo(root / "cat" / "pipe.png")
    (images, _), _, classes = read_folder(root, SIZE)
    assert len(images) == 2 and classes == ("cat",)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{root}: 2 images read, 12 skipped (") and printed.count("\n") == 1
    assert "4 unreadable: " in printed and printed.count("bad") == 3 and ", ...;" in printed
    assert "1 too small: cat/tiny.png" in printed
    assert "1 beside the class folders: stray.png" in printed
    assert "3 links leading outside: cat/far, cat/out.png, cat/up.png" in printed
    assert "3 no regular files: cat/broken.png, cat/circle, cat/pipe.png" in printed


def test_a_linked_class_folder_is_not_followed(tmp_path):
    save(tmp_path / "outside" / "a.png")
    save(tmp_path / "images" / "cat" / "a.png")
    (tmp_path / "images" / "dog").symlink_to(tmp_path / "outside")
    (images, _), _, classes = read_folder(tmp_path / "images", SIZE)
    assert len(images) == 1 and classes == ("cat",)


def test_the_folder_itself_may_be_a_link(tmp_path):
    save(tmp_path / "images" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert len(read_folder(tmp_path / "link", SIZE)[0][0]) == 1


@pytest.mark.parametrize(
    "name", [b"a\nb", b"\xff\xfe", b" ", b"-rf", "🐈".encode(), b"%s{}\\'\"", b"x" * 200]
)
def test_odd_names_of_files_and_classes(tmp_path, capsys, name):
    folder = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(folder)
    for file, make in ((b"good", save), (b"bad", lambda path: path.write_text(""))):
        path = folder + b"/" + name + file
        make(tmp_path / "new.png")
        os.rename(tmp_path / "new.png", path)
    (images, labels), _, classes = read_folder(tmp_path, SIZE)
    assert len(images) == 1 and labels.tolist() == [0] and classes[0].isprintable()
    printed = capsys.readouterr().out
    printed.encode()
    assert "1 unreadable" in printed and printed.count("\n") == 1


def test_folders_nested_deeper_than_python_recurses(tmp_path, monkeypatch):
    save(tmp_path / "d" / "a.png")
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.makedirs("d", exist_ok=True)
        os.chdir("d")
    deepest = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert len(read_folder(tmp_path, SIZE)[0][0]) == 1
    finally:
        os.removedirs(deepest)  # pytest's own cleaning recurses


@pytest.mark.parametrize(
    "files, expected",
    [
        ([], "there is no image in it, 0 skipped."),
        (["cat/a.png", "dog/"], "there is no image in dog, 0 skipped."),
        (
            ["cat/a.png", "dog/text.png", "emu/"],
            "there is no image in dog, emu, 1 skipped (1 unreadable: dog/text.png).",
        ),
        (["text.png"], "there is no image in it, 1 skipped (1 unreadable: text.png)."),
        (["train/a.png"], "two folders in it, train and test or val."),
        (["train/cat/a.png", "train/dog/a.png"], "two folders in it, train and test or val."),
        (["x/Train/cat/a.png", "x/Train/dog/a.png"], "two folders in it, train and test or val."),
        (["train/a.png", "test/"], "test: there is no image in it"),
        (
            ["train/cat/a.png", "test/cat/a.png", "test/dog/a.png"],
            "no classes of the training split: dog.",
        ),
        (["train/a.png", "test/dog/a.png"], "no classes of the training split: dog."),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, files, expected):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            text(path) if "text" in name else save(path)
    assert expected in refusal(tmp_path, SIZE)


def test_wanted_classes_need_two_splits(tmp_path):
    save(tmp_path / "a" / "a.png")
    assert "train and val" in refusal(tmp_path, SIZE, ("val",), ("a",))


@pytest.mark.parametrize("name", ["nothing", "pipe", "two\nlines", "zero\0byte", "x" * 5000])
def test_what_is_no_folder_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    assert "there is no such file or folder" in refusal(tmp_path / name, SIZE)


@pytest.mark.parametrize("name", ["file", "images.zip", "images.tar.gz", "a.png", "a.npz"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    said = refusal(tmp_path / name, SIZE)
    assert f"{name}: this is a file; unpack it if it is an archive" in said


# What else people bring ---------------------------------------------------------------------------


def ftyp(brand):
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic"


FOREIGN = {
    **{brand: (ftyp(brand.encode()), "HEIC") for brand in ("heic", "heix", "hevc", "heim")},
    **{brand: (ftyp(brand.encode()), "HEIF") for brand in ("mif1", "msf1")},
    **{brand: (ftyp(brand.encode()), "AVIF") for brand in ("avif", "avis")},
    "bare jxl": (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    "boxed jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
}


@pytest.mark.parametrize("suffix", [".heic", ".HEIC", ".jpg", ""])  # a wrong one is common
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_format_that_is_not_read_is_named(tmp_path, kind, suffix):
    start, name = FOREIGN[kind]
    (tmp_path / f"a{suffix}").write_bytes(start + bytes(100))
    why = f"1 in {name}, which is not read (convert to JPEG): a{suffix}"
    assert f"1 skipped ({why})." in refusal(tmp_path, SIZE)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_a_format_that_pil_could_read_is_named_too(tmp_path, kind):
    path = tmp_path / "a.jpg"
    try:
        save(path, size=(64, 64), format=kind)
    except (KeyError, OSError):
        pytest.skip("this PIL does not write it")
    assert "which is not read (convert to JPEG)" in read_image(path, SIZE)


def light_above(path, kind, exif):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    Image.fromarray(pixels).save(path, kind, exif=exif)
    return path


TIFF = b"II*\0\x08\0\0\0"
BROKEN_EXIF = {
    "no header": b"nonsense",
    "cut": TIFF + b"\x03\0",
    "no offset": b"II*\0",
    "offset outside": b"II*\0\xff\xff\xff\x7f",
    "too many tags": TIFF + b"\xff\xff" + bytes(30),
    "a circle": TIFF + b"\0\0\x08\0\0\0",
    "orientation of a wrong type": TIFF + b"\x01\0\x12\x01\x02\0\x04\0\0\0abc\0" + bytes(4),
    "orientation 0": TIFF + b"\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0" + bytes(4),
    "orientation 9": TIFF + b"\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0" + bytes(4),
    "a text with another's length": TIFF + b"\x01\0\x0f\x01\x02\0\xff\xff\xff\x7f\x08\0\0\0",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("broken", BROKEN_EXIF)
def test_an_image_with_broken_exif_is_read_as_it_lies(tmp_path, kind, broken):
    exif = BROKEN_EXIF[broken]
    path = light_above(tmp_path / "a", kind, b"Exif\0\0" + exif if kind == "JPEG" else exif)
    found = read_image(path, 32)
    assert found[:8].mean() > 245 and found[-8:].mean() < 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_turn_of_a_camera_is_that_of_pil(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    pixels = pixels.repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(tmp_path / "a", kind, exif=exif)
    with Image.open(tmp_path / "a") as image:
        expected = np.asarray(image_folder.ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "a", 32), expected)


@pytest.mark.filterwarnings("ignore")
def test_no_damage_to_exif_loses_a_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 1, "a maker", {0x9003: "2020:01:01 00:00:00"}
    whole = exif.tobytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(6, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= rng.integers(1, 256)
        for kind in ("JPEG", "PNG"):
            path = light_above(tmp_path / "a", kind, bytes(damaged))
            assert not isinstance(read_image(path, 32), str), bytes(damaged)


def test_copies_of_an_image_are_one_group_in_any_file(tmp_path, capsys):
    for i in range(6):
        save(tmp_path / "cat" / f"{i}.png", (i, i, i))
        save(tmp_path / "cat" / f"copy of {i}.bmp", (i, i, i))
        save(tmp_path / "dog" / f"{i}.png", (100 + i, i, i))
    (tmp_path / "dog" / "link.png").symlink_to(tmp_path / "dog" / "0.png")
    os.link(tmp_path / "cat" / "0.png", tmp_path / "dog" / "under another label.png")
    images, _ = image_folder.read_folder(tmp_path, SIZE)
    groups = {}
    for image, group in zip(images.images, images.groups):
        groups.setdefault(image.tobytes(), set()).add(int(group))
    assert len(images) == 20 and len(groups) == 12 and all(len(x) == 1 for x in groups.values())
    assert "training split too" not in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["", "train"])
def test_folders_inside_class_folders_are_told(tmp_path, capsys, layout):
    for name in ("cat/old", "cat/young", "dog/images"):  # a single one tells nothing apart
        for split in (layout, layout and "test"):
            save(tmp_path / split / name / "a.png")
    assert read_folder(tmp_path, SIZE)[2] == ("cat", "dog")
    assert "; folders inside cat are no classes of their own.\n" in capsys.readouterr().out


@pytest.mark.parametrize("n", [0, 1, 3])
def test_images_of_both_splits_are_counted_and_stay(tmp_path, capsys, n):
    for i in range(4):
        save(tmp_path / "train" / "cat" / f"{i}.png", (i, i, i))
        save(tmp_path / "test" / "cat" / f"{i}.bmp", (i if i < n else 100 + i,) * 3)
    train, test = image_folder.read_folder(tmp_path, SIZE)
    assert len(train) == len(test) == 4
    printed = capsys.readouterr().out
    said = f"{n} of 4 test images are in the training split too.\n"
    assert (said in printed) == ("training split too" in printed) == (n > 0)
