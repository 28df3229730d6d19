"""Files that are written as a whole, or not at all."""

import os

import pytest

from clsp_utils.store import link_or_copy, replace_file


def test_a_file_is_replaced_as_a_whole_and_may_be_read_by_all(tmp_path):
    path = tmp_path / "file"
    for data in (b"old", b"new"):
        replace_file(path, data)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o644
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    replace_file(path, b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_gets_a_second_name_or_is_copied(tmp_path, monkeypatch, links):
    def fail(*_):
        raise OSError(95, "Operation not supported")

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"data")
    if not links:
        monkeypatch.setattr(os, "link", fail)
    link_or_copy(source, target)
    assert target.read_bytes() == b"data" and source.samefile(target) == links
