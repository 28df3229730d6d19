"""Stages of the companion, each made in a process of its own that keeps a diary and can be killed.

The processes are forked from a server that has the libraries loaded already, so that hundreds of
them can be tried. All that they do is the product's own code, at a tiny profile.
"""

import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from clsp_utils import positives
from clsp_utils.pipeline import Companion, DiffusionModel, InterpolatedBank, Pretrained, Scores
from clsp_utils.runtime import Checkpoint, checkpoint

OVERRIDES = {
    "data.size": 8,
    "diffusion.steps": 40,
    "diffusion.batch": 8,
    "candidates.k": 1,
    "candidates.batch": 16,
    "candidates.steps": 2,
    "simclr.epochs": 12,
    "probe.epochs": 60,
}
EVERY = 0.2  # seconds between two checkpoints
STAGES = {
    "diffusion": lambda companion: companion.artifact(DiffusionModel),
    "candidates": lambda companion: companion.artifact(InterpolatedBank),
    "pretraining": lambda companion: companion.artifact(Pretrained, method="CLSP-SimCLR"),
    "evaluation": lambda companion: companion.artifact(Scores, method="CLSP-SimCLR", seed=0),
}
FOLDERS = {
    "diffusion": "diffusion",
    "candidates": "candidates",
    "pretraining": "pretrain",
    "evaluation": "scores",
}
STEPS = {"diffusion": 40, "candidates": 16, "pretraining": 48}  # entries of a whole stage's diary

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "clsp_utils.pipeline.companion",
        "clsp_utils.diffusion",
        "clsp_utils.positives",
        "clsp_utils.contrastive",
        "clsp_utils.contrastive.methods.simclr",
        "clsp_utils.evaluation",
    ]
)


def warm_up():
    """Starts the server, so that the time of the first stage is its own."""
    process = _context.Process(target=time.time)
    process.start()
    process.join()


class Stage:
    """A process that makes one stage below `home`; what it says goes to a file elsewhere.

    Args:
        prepare: called in the process before the stage, with `arguments`; a function of a module.
    """

    def __init__(self, name, home, prepare=None, arguments=(), overrides=OVERRIDES, threads=1):
        self.start = time.monotonic()
        # Not on the disk of `home`, which may be full.
        self.log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115
        job = (name, home, self.log.name, prepare, arguments, overrides, threads)
        self.process = _context.Process(target=_make, args=job)
        self.process.start()

    def wait(self, seconds=120):
        """Its exit status; negative if a signal ended it."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError(f"still running after {seconds} s: {self.said()[-2000:]}")
        self.seconds = time.monotonic() - self.start
        return self.process.exitcode

    def kill(self):
        """SIGKILL for it and what it started; returns the moment."""
        moment = time.monotonic()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet, or is gone
            self.process.kill()
        self.process.join()
        return moment

    def said(self):
        return Path(self.log.name).read_text()


def _make(name, home, log, prepare, arguments, overrides, threads):
    os.setsid()
    home.mkdir(parents=True, exist_ok=True)
    said = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.stdout.reconfigure(line_buffering=True)
    os.environ["CLSP_HOME"] = str(home)
    torch.set_num_threads(threads)
    Checkpoint.__init__.__defaults__ = (EVERY,)
    checkpoint.MIN_INTERVAL = (
        0  # these networks are small; what saving costs is not the matter here
    )
    _keep_diary(home / "diary")
    if prepare:
        prepare(*arguments)
    STAGES[name](Companion("smoke", 0, overrides))


def _keep_diary(path):
    """A line per step, or per batch of candidates: moment, what, where, number."""
    diary = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what, where="", number=0):
        os.write(diary, f"{time.monotonic()} {what} {where} {number}\n".encode())

    after_step, restore, interpolate = (
        Checkpoint.after_step,
        Checkpoint.restore,
        positives.interpolate,
    )

    def noted_restore(self):
        step = restore(self)
        note("from", self.path.parent.name, step)
        return step

    def noted_step(self, step, *rest):
        after_step(self, step, *rest)
        note("step", self.path.parent.name, step)

    def noted_interpolate(*arguments):
        note("batch", "-")
        return interpolate(*arguments)

    Checkpoint.restore, Checkpoint.after_step = noted_restore, noted_step
    positives.interpolate = noted_interpolate


def read_diary(home):
    """`(moment, what, where, number)` of every line."""
    path = Path(home) / "diary"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        (float(moment), what, where, int(number))
        for moment, what, where, number in map(str.split, lines)
    ]


# Ways to end at a chosen point. ------------------------------------------------------------------

CALLS = [
    (os, "fsync"),
    (os, "replace"),
    (os, "rename"),
    (os, "link"),
    (os, "mkdir"),
    (os, "rmdir"),
    (os, "unlink"),
]


def die_at(point, count_in=None):
    """SIGKILL just before the `point`-th call that changes what is on the disk; else counts them.

    Checkpoints are saved every ten steps, so that the calls of two runs are the same.
    """
    done = [0]
    after_step = Checkpoint.after_step

    def saved_by_number(self, step, *rest):
        self.every = 0 if step % 10 == 9 else math.inf
        after_step(self, step, *rest)

    Checkpoint.after_step = saved_by_number

    def watched(original):
        def call(*arguments, **options):
            if done[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            done[0] += 1
            if count_in:
                Path(count_in).write_text(str(done[0]))
            return original(*arguments, **options)

        return call

    for module, name in CALLS:
        setattr(module, name, watched(getattr(module, name)))


def die_after(entries, by=signal.SIGKILL):
    """A signal in the middle, when so many steps or batches are done and all are on the disk."""
    done = [0]
    after_step, interpolate = Checkpoint.after_step, positives.interpolate

    def count():
        done[0] += 1
        if done[0] == entries + 1:
            os.kill(os.getpid(), by)

    def step(self, *rest):
        count()
        self.every = 0
        after_step(self, *rest)

    def batch(*arguments):
        count()
        return interpolate(*arguments)

    Checkpoint.after_step, positives.interpolate = step, batch


def limit_files(size):
    """No file may grow beyond `size` bytes: the system refuses, as a full disk does."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
