"""Jobs side by side, one process a core, each with one thread.

A small network gains little from a second core; a second job gains all of it. And since a job
always has one thread, its result does not depend on how many run beside it.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import wait

import torch
from tqdm import tqdm

from clsp_utils import processes

MOST = 8  # workers, each with half a GB of libraries


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread inside, on a CPU; what it had comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count(n_jobs: int) -> int:
    """How many of `n_jobs` can run side by side; 1 where a GPU or a launcher's processes do the work."""
    alone = torch.cuda.is_available() or processes.world() > 1
    return 1 if alone else max(1, min(n_jobs, torch.get_num_threads(), MOST))


def side_by_side(function: Callable, jobs: Sequence[tuple], name: str) -> None:
    """Calls `function(*job)` for every job, in processes; the first error ends all and is raised.

    `function` is a plain function of a module, since another process has to find it.
    """
    context = multiprocessing.get_context("forkserver")  # imports the libraries once, not once a worker
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(count(len(jobs)), context, _start, (dict(os.environ),)) as pool:
        try:
            futures = [pool.submit(function, *job) for job in jobs]
            for future in tqdm(as_completed(futures), name, total=len(jobs), leave=False):
                future.result()
        except BaseException:  # an interrupt too: no process outlives the cell
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _start(environment: dict[str, str]) -> None:
    """A worker computes and says nothing; its errors come back through the future."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed notebook must not leave workers behind."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
