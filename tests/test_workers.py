"""Jobs side by side: all are done, one error ends all, and nothing outlives its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from clsp_utils import workers


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_inside_and_what_was_there_outside():
    with workers.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), workers.one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("jobs, expected", [(0, 1), (1, 1), (2, 2), (9, 2)])
def test_no_more_workers_than_jobs_or_threads(jobs, expected):
    assert workers.count(jobs) == expected


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


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, how):
    """A killed notebook leaves no worker that computes for nobody."""
    program = tmp_path / "parent.py"
    program.write_text(textwrap.dedent("""
        import sys
        from clsp_utils import workers
        import jobs
        if __name__ == "__main__":
            workers.side_by_side(jobs.sleep, [(sys.argv[1], i) for i in range(2)], "sleepers")
    """))
    (tmp_path / "jobs.py").write_text(textwrap.dedent("""
        import os, pathlib, time
        def sleep(folder, i):
            pathlib.Path(folder, f"{i}.new").write_text(str(os.getpid()))
            os.rename(f"{folder}/{i}.new", f"{folder}/{i}.pid")
            time.sleep(100)
    """))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "2"}
    parent = subprocess.Popen(
        [sys.executable, program, tmp_path], env=environment, stderr=subprocess.DEVNULL,
        # what a shell starts in the background ignores Ctrl-C, and so would the parent
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers_ids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert all(map(alive, workers_ids))
    parent.send_signal(how)
    assert parent.wait(20) != 0
    wait_for(lambda: not any(map(alive, workers_ids)))


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
