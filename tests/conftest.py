"""What every test shares."""

import math
import os
import shutil
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for subprocesses

import pytest
import torch

from clsp_utils.book import run_notebooks as runner
from clsp_utils.runtime import Checkpoint

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--rounds",
        choices=("short", "long"),
        default="short",
        help="how often tests/reliability tries",
    )
    parser.addoption("--results", help="file for the counts of tests/reliability")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder in the place of the project's for artifacts, builds and figures."""
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_kernel(monkeypatch):
    """If bad input is not refused, the project's notebooks must not start to run."""
    monkeypatch.setattr(runner, "run_notebook", lambda *_: pytest.fail("a notebook was run"))


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright; where there is none, what needs it is left out."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("there is no Chromium here (Debian and Ubuntu: apt install chromium)")
    from playwright.sync_api import sync_playwright

    quiet = ("background-networking", "component-update", "sync")  # it shall ask nobody anything
    flags = ["--no-sandbox", "--disable-gpu", *(f"--disable-{what}" for what in quiet)]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def killed(monkeypatch):
    """`with killed(after, saved)`: what runs inside dies after so many steps, some are saved."""
    original = Checkpoint.after_step

    @contextmanager
    def die(after, saved):
        def after_step(self, step, *rest):
            self.every = 0 if step < saved else math.inf
            original(self, step, *rest)
            if step + 1 == after:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "after_step", after_step)
            with pytest.raises(Killed):
                yield

    return die
