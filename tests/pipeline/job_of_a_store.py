"""Run by test_launched_stage.py, alone and by `torchrun`: asks a shared store for one artifact.

Usage: job_of_a_store.py FOLDER NAME. Process R writes what it found to "FOLDER/NAME R.json", and
when its interpreter ends whether it is still connected to the others to "NAME R.connected".
"""

import atexit
import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed

from clsp_utils.runtime import my_share, wait_for_all
from clsp_utils.store import Request
from clsp_utils.store.shared import SharedStore


def stored(folder: Path) -> tuple[str, list[str]]:
    """An artifact that the processes ask for at once, twice; who built it."""
    share, builds = my_share(), []

    def build(out: Path, work: Path) -> None:
        builds.append(
            "first" if (out / "..").resolve() == (folder / "stage").resolve() else "other"
        )
        assert work.parent.resolve() == (folder / "stage").resolve(), "all go on from the same work"
        total = share.gather(torch.ones(1)).sum()  # hangs unless all are here
        (out / "result").write_text(f"{total:g}")

    store, request = SharedStore(folder, log=lambda text: None), Request("stage", {"a": 1})
    assert store.find(request) is None
    wait_for_all()
    for _ in range(2):
        artifact = store.get(request, build)
    assert store.find(request) == artifact
    return (artifact / "result").read_text(), builds


def told_at_the_end(path: Path) -> None:
    path.write_text(json.dumps(distributed.is_initialized()))


if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    rank = os.environ.get("RANK", "0")
    # Registered before the package's own, so called after them.
    atexit.register(told_at_the_end, folder / f"{name} {rank}.connected")
    result, builds = stored(folder / f"{name} store")
    (folder / f"{name} {my_share().rank}.json").write_text(json.dumps([result, builds]))
    wait_for_all()
