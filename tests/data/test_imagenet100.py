"""ImageNet-100: the listed classes of ImageNet's folders."""

import pytest
from reading import read, refusal, save_images, write

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
        (WNIDS + [WNIDS[0], "n12345678"], "there are 101 different wnids"),
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
