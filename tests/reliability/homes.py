"""Folders with artifacts and figures, and the one unbroken run that all others must equal."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
from stages import STAGES, Stage, warm_up


def contents(home):
    """`stage/key/file` -> sha256 of all artifacts below `home`, and of figures and tables."""
    found = {}
    for manifest in sorted((home / "artifacts").glob("*/[0-9a-f]*/manifest.json")):
        if "damaged" not in manifest.parent.name:
            for name in json.loads(manifest.read_text())["sha256"]:
                blob = (manifest.parent / name).read_bytes()
                found[f"{manifest.parent.parent.name}/{manifest.parent.name}/{name}"] = (
                    hashlib.sha256(blob).hexdigest()
                )
    for path in sorted((home / "build").glob("*/figures/*")):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(home):
    """What only a run that goes on may have: folders and files of unfinished work."""
    names = [path for pattern in ("*.new", "*.work") for path in home.rglob(pattern)]
    return [path.relative_to(home) for path in names]


class Reference:
    """An unbroken run of all stages: what it made, seconds of each, and the store before each."""

    def __init__(self, folder):
        self.folder, self.before, self.after, self.seconds = folder, {}, {}, {}
        home = folder / "unbroken"
        home.mkdir()
        warm_up()
        for stage in STAGES:
            self.before[stage] = folder / f"before {stage}"
            shutil.copytree(home, self.before[stage], ignore=shutil.ignore_patterns("diary"))
            run = Stage(stage, home)
            assert run.wait() == 0, run.said()
            self.seconds[stage], self.after[stage] = run.seconds, contents(home)
        self.home = home

    def before_stage(self, stage, folder):
        """A home in which all is made that the stage needs."""
        shutil.copytree(self.before[stage], folder, dirs_exist_ok=True)
        return folder

    def finished(self, folder):
        """A home in which all is made."""
        shutil.copytree(
            self.home, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("diary")
        )
        return folder


# The command line ---------------------------------------------------------------------------------


def clsp(home, *arguments):
    """The command line in a process of its own, with its products below `home`."""
    environment = os.environ | {"CLSP_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-m", "clsp_utils", *arguments],
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell that runs the tests in the background has its jobs ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def below(process):
    """All processes that one has started, and those that they have."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kernel_of(process, seconds=60):
    """The kernel that a run has started, or None if the run is over."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        for child in below(process):
            try:
                if "ipykernel" in " ".join(child.cmdline()):
                    return child
            except psutil.Error:  # it has just ended
                pass
        time.sleep(0.05)
    return None


def kill_all(processes):
    for process in processes:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.send_signal(signal.SIGKILL)


def end_of(processes, seconds):
    """Those that still run when so many seconds have passed."""
    _, running = psutil.wait_procs([p for p in processes if isinstance(p, psutil.Process)], seconds)
    return running
