"""Jobs side by side: a process per core, or the workers of a Dask or Ray cluster.

joblib hands the jobs out. A job always computes with one thread, so its result does not depend on
how many run beside it, nor where. The variable CLSP_SCHEDULER names a cluster: for Dask
"tcp://host:8786", or whatever else `distributed.Client` takes; for Ray "ray://host:10001", or "ray"
for the one that Ray finds. The workers of a cluster need this package, and the same store under the
same path.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import Any

import torch
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from tqdm import tqdm

from clsp_utils.config import ConfigError
from clsp_utils.runtime.device import one_thread
from clsp_utils.runtime.distributed import state

MAX_WORKERS = 8  # each holds half a GB of libraries
IDLE_SECONDS = 60  # a worker waits so long for the next call, which then starts at once
ANSWER_SECONDS = 10  # a scheduler and one of its workers must answer within


def count(n_jobs: int) -> int:
    """How many of `n_jobs` can run side by side.

    Returns:
        At least 1; at most as many as the cluster has room for, or else as there are cores. 1 where
        a GPU or the processes of `accelerate launch` do the work.

    Raises:
        ConfigError: CLSP_SCHEDULER names a cluster that cannot be used.
    """
    if scheduler := _scheduler():
        with _cluster(scheduler):
            most = effective_n_jobs(-1)
    elif torch.cuda.is_available() or state().num_processes > 1:
        most = 1
    else:
        most = min(torch.get_num_threads(), MAX_WORKERS)
    return max(1, min(n_jobs, most))


def side_by_side(function: Callable, jobs: Sequence[tuple], name: str) -> None:
    """Calls `function(*job)` for every job. Nothing is returned: what jobs make goes to disk.

    Where only one can run at a time (see `count`), this process does them. The first error is
    raised and ends all, and so does Ctrl-C; what a cluster has begun it finishes. If a worker of a
    cluster dies, another does the job again.

    Args:
        function: a function of a module, since workers have to find it.
        jobs: the arguments of each call.
        name: the title of the progress bar.

    Raises:
        ConfigError: CLSP_SCHEDULER names a cluster that cannot be used.
    """
    n = count(len(jobs))
    if n == 1:
        with one_thread():
            for job in tqdm(jobs, name, leave=False):
                function(*job)
        return
    scheduler = _scheduler()
    ours = {key: value for key, value in os.environ.items() if key.startswith("CLSP_")}
    ours["CLSP_SCHEDULER"] = ""  # a job that has jobs does them itself
    calls = [delayed(_do)(function, job, ours) for job in jobs]
    at_once = _library(scheduler) == "ray"  # its backend returns when all is done, others go on
    how = "list" if at_once else "generator_unordered"
    # A cluster knows all jobs. Processes get as many as their queue holds: when it is interrupted,
    # loky stumbles over others, with a traceback.
    ahead = "all" if scheduler else "2 * n_jobs"
    with (
        _cluster(scheduler) if scheduler else _processes(n),
        Parallel(return_as=how, batch_size=1, pre_dispatch=ahead, max_nbytes=None) as parallel,
    ):
        with nullcontext() if at_once else _no_interrupts():
            results = parallel(calls)
        for _ in tqdm(results, name, total=len(jobs), leave=False):
            pass


def _scheduler() -> str:
    """The name of the cluster, if there is one; the processes of a launcher use none."""
    return os.environ.get("CLSP_SCHEDULER", "") if state().num_processes == 1 else ""


def _library(scheduler: str) -> str:
    """The package that reaches this scheduler."""
    return "ray" if scheduler.partition("://")[0] == "ray" else "distributed"


@contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    """joblib gives the jobs of the block to this cluster."""
    library = _library(scheduler)
    options: dict[str, Any] = {}
    with ExitStack() as stack:
        try:
            if library == "ray":
                import ray
                from ray.util.joblib import register_ray

                if not ray.is_initialized():
                    ray.init(None if scheduler == "ray" else scheduler)
                register_ray()
            else:
                from distributed import Client
                from distributed.comm import get_address_host_port

                get_address_host_port(scheduler)  # Client stumbles over what is no address
                client = Client(scheduler, timeout=ANSWER_SECONDS, set_as_default=False)
                options["client"] = stack.enter_context(client)
                client.submit(int).result(timeout=ANSWER_SECONDS)
        except ImportError:
            raise ConfigError(
                f"CLSP_SCHEDULER={scheduler!r} needs a library: pip install {library}."
            ) from None
        except (OSError, ValueError):  # a timeout is an OSError
            raise ConfigError(
                f"CLSP_SCHEDULER={scheduler!r}: no scheduler with a worker answers there."
            ) from None
        name = "ray" if library == "ray" else "dask"
        stack.enter_context(parallel_config(name, n_jobs=-1, **options))
        yield


def _processes(n: int) -> parallel_config:
    """joblib gives the jobs of the block to `n` processes of this machine."""
    return parallel_config(
        "loky",
        n_jobs=n,
        inner_max_num_threads=1,
        idle_worker_timeout=IDLE_SECONDS,
        initializer=_start,
        initargs=(os.getpid(), dict(os.environ)),  # with another environment, workers are replaced
    )


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C waits for the end of the block.

    Processes that are born in it inherit that. A terminal sends Ctrl-C to all processes; they leave
    it to their parent, which ends them.
    """
    resource_tracker.ensure_running()  # whoever starts it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(parent: int, environment: dict[str, str]) -> None:
    """A worker computes and says nothing; its errors come back with the result."""
    os.environ.update(environment)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed notebook must not leave workers behind."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _do(function: Callable, job: tuple, environment: dict[str, str]) -> None:
    """One job, in a worker, which keeps to one thread from now on."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    with parallel_config("sequential"):  # what a library would share out stays in the job
        function(*job)
