"""ImageNet-100: the listed classes of ImageNet's folders."""

import json

import pytest
from reading import read, refusal, save_images, write

from clsp_utils.data.imagenet100 import read_wnids

WNIDS = [f"n{10000000 + i}" for i in range(100)]


@pytest.fixture
def imagenet(user):
    for name in [*WNIDS, "n99999999"]:
        save_images(user / "imagenet" / "train" / name)
        save_images(user / "imagenet" / "val" / name)
    save_images(user / "imagenet" / "test")
    (user / "list.txt").write_text(
        "\n".join([*WNIDS[50:], "", *(f"{w} a fish" for w in WNIDS[:50])]) + "\n"
    )
    return user


def test_imagenet100_is_the_listed_classes(imagenet):
    train, test, classes = read(
        "imagenet100", imagenet / "imagenet", wnids=str(imagenet / "list.txt")
    )
    assert list(classes) == WNIDS
    assert sorted(train[1]) == sorted(test[1]) == list(range(100))


def test_imagenet_without_a_listed_class_is_refused(imagenet):
    (imagenet / "imagenet" / "val" / WNIDS[3]).rename(imagenet / "elsewhere")
    message = refusal("imagenet100", imagenet / "imagenet", wnids=str(imagenet / "list.txt"))
    assert f"imagenet/val: 1 of 100 classes have no folder: {WNIDS[3]}." in message


@pytest.mark.parametrize(
    "lines, expected",
    [
        (WNIDS[:99], "there are 99 different wnids"),
        ([*WNIDS, WNIDS[0], "n12345678"], "there are 101 different wnids"),
        ([*WNIDS[:99], "../../secret"], "not with ../../secret"),
        ([*WNIDS[:99], WNIDS[99] + "/.."], f"not with {WNIDS[99]}/.."),
        ([*WNIDS[:99], "\x00\x1b"], "not with \\x00\\x1b"),
        ([], "there are 0 different wnids"),
    ],
)
def test_a_wrong_list_of_classes_is_refused(user, lines, expected):
    (user / "list.txt").write_text("\n".join(lines))
    assert expected in refusal("imagenet100", user, wnids=str(user / "list.txt"))


def test_a_missing_or_binary_list_of_classes_is_refused(user):
    assert "there is no such file" in refusal("imagenet100", user, wnids=str(user / "list.txt"))
    assert "wnid" in refusal(
        "imagenet100", user, wnids=str(write(user / "list.txt", bytes(range(256))))
    )


FORMS = {
    "one line, blanks": " ".join(WNIDS),
    "one line, commas": ",".join(WNIDS),
    "one line, commas and blanks": ", ".join(WNIDS) + "\n",
    "one line, quotes": ", ".join(f"'{w}'" for w in WNIDS),
    "one line, tabs": "\t".join(WNIDS),
    "one line, semicolons": ";".join(WNIDS),
    "a list of Python": repr(WNIDS),
    "a list of JSON": json.dumps(WNIDS, indent=1),
    "a dictionary of JSON": json.dumps(dict.fromkeys(WNIDS, "tench, Tinca tinca")),
    "a dictionary of JSON on lines": json.dumps(dict.fromkeys(WNIDS, "a fish"), indent=4),
    "ten a line": "\n".join(" ".join(WNIDS[i : i + 10]) for i in range(0, 100, 10)),
    "Windows": "\r\n".join(WNIDS) + "\r\n",
    "old Mac": "\r".join(WNIDS),
    "trailing blanks": " \n".join(WNIDS) + " \n\n\n",
    "leading blanks": "\n".join("\t " + w for w in WNIDS),
    "trailing commas": ",\n".join(WNIDS) + ",",
    "typographic quotes": "\n".join(f"\u201c{w}\u201d" for w in WNIDS),
    "descriptions": "\n".join(f"{w} goldfish, Carassius auratus" for w in WNIDS),
    "descriptions of CSV": "\n".join(f'"{w}","goldfish, Carassius auratus"' for w in WNIDS),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # two have a mark at first
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_list_of_classes(user, form, encoding):
    (user / "list.txt").write_bytes(FORMS[form].encode(encoding))
    assert read_wnids(user / "list.txt") == tuple(WNIDS)


def test_no_form_hides_a_wrong_number(user):
    for form, text in FORMS.items():
        (user / "list.txt").write_text(text.replace(WNIDS[7], WNIDS[8]))
        message = refusal("imagenet100", user, wnids=str(user / "list.txt"))
        assert "there are 99 different wnids" in message, form


@pytest.mark.parametrize("text", ["tench\n", "1 n01440764", "train/n01440764", "N01440764", "wnid"])
def test_a_line_that_starts_with_no_wnid_is_named(user, text):
    (user / "list.txt").write_text("\n".join([*WNIDS, text]))
    message = refusal("imagenet100", user, wnids=str(user / "list.txt"))
    assert f"not with {text.split()[0]}." in message


def test_other_names_of_the_splits_and_an_unpacked_archive(imagenet):
    inner = imagenet / "imagenet" / "ILSVRC" / "CLS-LOC"
    inner.mkdir(parents=True)
    for old, new in (("train", "Train"), ("val", "validation"), ("test", "test")):
        (imagenet / "imagenet" / old).rename(inner / new)
    train, test, classes = read(
        "imagenet100", imagenet / "imagenet", wnids=str(imagenet / "list.txt")
    )
    assert list(classes) == WNIDS and len(train[1]) == len(test[1]) == 100
