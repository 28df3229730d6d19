"""Jobs side by side: all are done, one error ends all, and nothing outlives its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from clsp_utils.config import ConfigError
from clsp_utils.runtime import one_thread, workers

JOBS = """
import os, pathlib, sys, time
import torch
from clsp_utils.runtime import workers

def write(path, text):
    new = path.with_suffix(".new")
    new.write_text(str(text))
    os.rename(new, path)

def tell(folder, i):
    print("out loud")
    print("out loud", file=sys.stderr)
    told = os.getpid(), torch.get_num_threads(), os.environ.get("CLSP_HOME"), workers.count(9)
    write(pathlib.Path(folder, f"{i}.done"), " ".join(map(str, told)))

def sleep(folder, i):
    write(pathlib.Path(folder, f"{i}.pid"), os.getpid())
    time.sleep(100)

def wait_for_signal(folder, i):
    folder = pathlib.Path(folder)
    write(folder / f"{i}-{os.getpid()}.begun", os.getpid())
    while not (folder / "signal").exists():
        time.sleep(0.05)
    write(folder / f"{i}.done", os.getpid())
"""

PLAIN = """
import sys
print("the program runs")
from clsp_utils.runtime import workers
import worker_jobs
workers.side_by_side(worker_jobs.tell, [(sys.argv[1], i) for i in range(2)], "jobs")
"""

SLEEPING = """
import sys
from clsp_utils.runtime import workers
import worker_jobs
if __name__ == "__main__":
    workers.side_by_side(worker_jobs.sleep, [(sys.argv[1], i) for i in range(2)], "sleepers")
"""


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.delenv("CLSP_SCHEDULER", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job_folder(tmp_path_factory):
    """A folder with a module of jobs, which workers can import too."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "worker_jobs.py").write_text(JOBS)
    return folder


@pytest.fixture
def jobs(job_folder, monkeypatch):
    monkeypatch.syspath_prepend(job_folder)
    import worker_jobs

    return worker_jobs


def test_one_thread_inside_and_what_was_there_outside():
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("n_jobs, expected", [(0, 1), (1, 1), (2, 2), (9, 2)])
def test_no_more_workers_than_jobs_or_threads(n_jobs, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workers.count(n_jobs) == expected


def test_a_gpu_needs_no_workers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert workers.count(9) == 1


def test_every_job_is_done(tmp_path):
    paths = [tmp_path / str(i) for i in range(5)]
    workers.side_by_side(os.mkdir, [(path,) for path in paths], "folders")
    assert all(path.is_dir() for path in paths)


def test_the_first_error_is_raised(tmp_path):
    with pytest.raises(FileExistsError):
        workers.side_by_side(os.mkdir, [(tmp_path,), (tmp_path / "new",)], "folders")
    assert not multiprocessing.active_children()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("n_jobs", [0, 1])
def test_none_and_a_single_job_need_no_process(tmp_path, jobs, n_jobs):
    workers.side_by_side(jobs.tell, [(tmp_path, i) for i in range(n_jobs)], "jobs")
    told = [path.read_text().split()[:2] for path in tmp_path.glob("*.done")]
    assert told == n_jobs * [[str(os.getpid()), "1"]]
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_the_environment_of_each_call_arrives_and_output_does_not(
    tmp_path, jobs, monkeypatch, capfd
):
    """Workers are kept for the next call, but not with an environment that is not its own."""
    pools = []
    for name in ("first", "second", "second"):
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        monkeypatch.setenv("CLSP_HOME", str(home))
        workers.side_by_side(jobs.tell, [(home, i) for i in range(3)], "jobs")
        told = [path.read_text().split() for path in home.glob("*.done")]
        assert len(told) == 3
        assert all(telling[1:] == ["1", str(home), "1"] for telling in told)
        pools.append({process.pid for process in multiprocessing.active_children()})
        assert {int(telling[0]) for telling in told} <= pools[-1]
    assert pools[0].isdisjoint(pools[1]) and pools[1] == pools[2]
    assert "out loud" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_a_plain_script_needs_no_main_guard(tmp_path, job_folder):
    program = tmp_path / "plain.py"
    program.write_text(PLAIN)
    environment = os.environ | {"PYTHONPATH": str(job_folder), "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, program, tmp_path], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "the program runs\n"
    told = [path.read_text().split()[0] for path in tmp_path.glob("*.done")]
    assert len(told) == 2
    wait_for(lambda: not any(alive(int(process_id)) for process_id in told))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, job_folder, how):
    """A killed notebook leaves no worker that computes for nobody."""
    program = tmp_path / "parent.py"
    program.write_text(SLEEPING)
    environment = os.environ | {"PYTHONPATH": str(job_folder), "OMP_NUM_THREADS": "2"}
    with open(tmp_path / "errors", "w") as errors:
        parent = subprocess.Popen(
            [sys.executable, program, tmp_path],
            env=environment, stderr=errors, start_new_session=True,
            # what a shell starts in the background ignores Ctrl-C, and so would the parent
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers_ids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert all(map(alive, workers_ids))
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does, and Jupyter: to the workers too
    else:
        parent.send_signal(how)
    assert parent.wait(20) != 0
    wait_for(lambda: not any(map(alive, workers_ids)))
    # nobody but the parent has anything to say of it
    said = (tmp_path / "errors").read_text()
    assert said.count("Traceback") == (how == signal.SIGINT)
    assert "asyncio" not in said and "popen_loky" not in said


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:9", "nonsense", "unheard://of:1"])
def test_a_scheduler_that_does_not_answer_is_one_sentence(tmp_path, monkeypatch, scheduler):
    pytest.importorskip("distributed", reason="needs Dask: pip install distributed")
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("CLSP_SCHEDULER", scheduler)
    for call in (
        lambda: workers.count(2),
        lambda: workers.side_by_side(os.mkdir, [(tmp_path / "new",)], "folders"),
    ):
        with pytest.raises(ConfigError, match="no scheduler with a worker answers there") as caught:
            call()
        assert scheduler in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("scheduler, library", [("tcp://host:1", "distributed"), ("ray", "ray")])
def test_a_missing_library_is_one_sentence(monkeypatch, scheduler, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setenv("CLSP_SCHEDULER", scheduler)
    with pytest.raises(ConfigError, match=f"pip install {library}"):
        workers.count(2)


@pytest.fixture(scope="module")
def cluster(job_folder):
    """The address of a Dask scheduler with two workers, processes of one thread each."""
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install distributed")
    command = [sys.executable, "-m", "distributed.cli.dask_worker"]
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    # a variable that is set for every machine must not make a worker wait for itself
    environment = os.environ | {"PYTHONPATH": str(job_folder), "CLSP_SCHEDULER": "tcp://host:1"}
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as scheduler:
        address = scheduler.scheduler_address
        started = [
            subprocess.Popen(
                [*command, address, *options, "--local-directory", job_folder / str(i)],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for i in range(2)
        ]  # fmt: skip
        try:
            wait_for(lambda: len(scheduler.scheduler_info["workers"]) == 2)
            yield address
        finally:
            for process in started:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_the_name_of_a_scheduler_is_enough(cluster, tmp_path, jobs, monkeypatch):
    monkeypatch.setenv("CLSP_SCHEDULER", cluster)
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    assert [workers.count(n) for n in (0, 1, 2, 9)] == [1, 1, 2, 2]
    workers.side_by_side(jobs.tell, [(tmp_path, i) for i in range(8)], "jobs")
    told = [path.read_text().split() for path in tmp_path.glob("*.done")]
    assert len(told) == 8
    assert all(telling[1:] == ["1", str(tmp_path), "1"] for telling in told)
    assert str(os.getpid()) not in {telling[0] for telling in told}
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_an_error_of_a_job_on_a_cluster_arrives(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("CLSP_SCHEDULER", cluster)
    with pytest.raises(FileExistsError):
        workers.side_by_side(os.mkdir, [(tmp_path,), (tmp_path / "new",)], "folders")


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_loses_nothing(cluster, tmp_path, jobs, monkeypatch):
    """It dies in the middle of a job; another does the job again."""
    monkeypatch.setenv("CLSP_SCHEDULER", cluster)
    killed = []

    def kill_one():
        wait_for(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
        killed.append(min(tmp_path.glob("*.begun")))
        os.kill(int(killed[0].read_text()), signal.SIGKILL)
        (tmp_path / "signal").touch()

    killer = threading.Thread(target=kill_one)
    killer.start()
    workers.side_by_side(jobs.wait_for_signal, [(tmp_path, i) for i in range(5)], "jobs")
    killer.join()
    done = {path.stem: path.read_text() for path in tmp_path.glob("*.done")}
    assert sorted(done) == ["0", "1", "2", "3", "4"]
    assert killed[0].read_text() not in done.values()
    assert len(list(tmp_path.glob("*.begun"))) == 6, "one job has begun twice"


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True
