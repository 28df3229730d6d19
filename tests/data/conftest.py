"""What the tests of readers share."""

import pickle

import pytest
from reading import Evil

from clsp_utils.data import published


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Somebody's folder beside the project's, with the working directory in a third place."""
    monkeypatch.setenv("CLSP_HOME", str(tmp_path / "home"))
    for name in ("user", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "user"


@pytest.fixture
def no_download(monkeypatch):
    def refuse(*args):
        raise AssertionError("a download")

    monkeypatch.setattr(published, "download_url", refuse)


@pytest.fixture
def evil(tmp_path):
    """A pickle, and what it makes if it is opened."""
    mark = tmp_path / "user" / "mark"
    data = pickle.dumps(Evil(mark))
    yield data, mark
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists(), "the trap works"
