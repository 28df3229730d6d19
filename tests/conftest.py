"""What every test shares."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for subprocesses

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder in the place of the project's for artifacts, builds and figures."""
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    return tmp_path
