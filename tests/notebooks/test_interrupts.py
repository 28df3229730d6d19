"""Kernel > Interrupt in the midst of long cells: workers end, the kernel lives, nothing is lost."""

import hashlib
import os
import time

import numpy as np
import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from clsp_utils.config import PROJECT

SECONDS = 240  # that a cell may take
# Eight jobs fill the bank, more than two processes have before them at once; six encoders follow.
SETTINGS = {
    "diffusion.steps": 2, "candidates.batch": 16, "candidates.steps": 20, "simclr.epochs": 4,
    "study.seeds": 6,
}  # fmt: skip
BEGIN = f"""
import torch
torch.set_num_threads(2)
from clsp_utils.pipeline import Companion
from clsp_utils.pipeline.studies import comparison
from clsp_utils.pipeline.stages import InterpolatedBank
companion = Companion("smoke", overrides={SETTINGS})
"""
BANK = "bank = companion.get(InterpolatedBank)"
ENCODERS = "table = comparison(companion, ['SimCLR'])"


class Kernel:
    """A real one, and what its cells say."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client
        self.process = psutil.Process(manager.provisioner.pid)

    def workers(self):
        """Processes that compute for it."""
        children = self.process.children(recursive=True)
        return [child for child in children if "LokyProcess" in " ".join(child.cmdline())]

    def run(self, code, stop_when=None):
        """Runs a cell, and interrupts it when `stop_when()` holds; returns its error and text."""
        cell, error, text, end = self.client.execute(code), "", "", time.monotonic() + SECONDS
        while time.monotonic() < end:
            if stop_when and stop_when():
                assert len(self.workers()) == 2
                self.manager.interrupt_kernel()
                stop_when = None
            if not self.client.iopub_channel.msg_ready():
                time.sleep(0.02)
                continue
            message = self.client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            text += content.get("text", "") + "".join(content.get("traceback", []))
            error = content.get("ename", error)
            if content.get("execution_state") == "idle":
                assert not stop_when, "the cell had ended before"
                return error, text
        pytest.fail(f"it took too long: {text}")


@pytest.fixture
def kernel(home):
    """With the package, and a store of its own."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "2"}
    manager, client = start_new_kernel(cwd=str(home), env=environment)
    try:
        kernel = Kernel(manager, client)
        assert kernel.run(BEGIN)[0] == ""
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def assert_interrupted(kernel, cell, when):
    error, text = kernel.run(cell, when)
    assert error == "KeyboardInterrupt" and "Run the cell again" in text
    assert "Traceback" not in text and text.count("\n") < 20  # what was computed speaks, too
    deadline = time.monotonic() + 10
    while kernel.workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kernel.workers()


@pytest.mark.slow
def test_what_one_sentence_says_is_said_in_one(kernel):
    for code, kind, part in (
        ("Companion('lptop')", "ConfigError", "profile='lptop': use one of"),
        ("from clsp_utils.runtime import Diverged; raise Diverged('too fast')", "Diverged", "fast"),
        ("from clsp_utils.store import StoreError; raise StoreError('full')", "StoreError", "full"),
    ):
        error, text = kernel.run(code)
        assert error == kind and part in text and "Traceback" not in text
        assert "Traceback" in kernel.run("%tb")[1]
    error, text = kernel.run("1 / 0")
    assert error == "ZeroDivisionError" and "Traceback" in text


@pytest.mark.slow
def test_a_bank_goes_on_with_the_batches_that_are_missing(home, kernel):
    candidates = home / "artifacts" / "candidates"

    def done():
        paths = list(candidates.glob(".*.work/done.npy"))
        return np.load(paths[0]).any(1) if paths else np.zeros(1, bool)

    assert_interrupted(kernel, BANK, lambda: done().any())
    assert not done().all()
    # What was done is marked: it must not be made anew.
    (work,) = candidates.glob(".*.work")
    images, digests = (np.load(work / f"{name}.npy", "r+") for name in ("bank", "done"))
    first = int(done().argmax())
    rows = slice(16 * first, 16 * first + 16)
    images[rows] = 7
    digests[first] = np.frombuffer(hashlib.sha256(images[rows].tobytes()).digest(), np.uint8)
    assert kernel.run(BANK)[0] == ""
    assert kernel.run(f"assert (bank[{rows.start}:{rows.stop}] == 7).all()")[0] == ""


@pytest.mark.slow
def test_encoders_that_are_finished_stay(home, kernel):
    assert kernel.run(BANK)[0] == ""

    def finished():
        paths = (home / "artifacts" / "pretrain").glob("*/manifest.json")
        return {path: path.stat().st_mtime_ns for path in paths}

    assert_interrupted(kernel, ENCODERS, finished)
    before = finished()
    assert 0 < len(before) < 6
    assert kernel.run(ENCODERS)[0] == ""
    assert len(finished()) == 6 and finished().items() >= before.items()
