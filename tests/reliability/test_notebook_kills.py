"""Runs of a whole notebook, killed: the runner, its kernel, or all at once; and Ctrl-C."""

import json
import random
import signal
import time

import pytest
from homes import below, clsp, contents, end_of, kernel_of, kill_all, leftovers

RUN = ("run", "01", "--profile", "smoke", "-p", "diffusion.steps=60", "-p", "data.size=8")
VICTIMS = ("runner", "kernel", "everything")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """What a run that nobody disturbs makes, and the seconds that it takes."""
    home = tmp_path_factory.mktemp("unbroken")
    start = time.monotonic()
    run = clsp(home, *RUN)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    return contents(home), time.monotonic() - start


def finish(home, unbroken):
    run = clsp(home, *RUN)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert contents(home) == unbroken[0]
    assert not leftovers(home / "artifacts")


def run_for_a_while(folder, seconds, draw):
    """A run that is in the middle, and not over, with a kernel: (home, run, kernel)."""
    for attempt in range(20):
        home = folder / str(attempt)
        run = clsp(home, *RUN)
        time.sleep(draw.uniform(0.05, 0.9) * seconds / 1.5**attempt)
        kernel = kernel_of(run)
        if kernel:
            return home, run, kernel
        run.communicate()
    raise AssertionError("the runs were over before they could be killed")


@pytest.mark.slow
@pytest.mark.item("1 kills", "notebook runs")
@pytest.mark.rounds(short=2, long=20)
def test_killed_run_leaves_nothing_and_goes_on(unbroken, place, round):
    home, run, kernel = run_for_a_while(place, unbroken[1], random.Random(f"notebook {round}"))
    victim, others = VICTIMS[round % 3], below(run)
    if victim == "kernel":
        kernel.kill()
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 1
        [entry] = json.loads((home / "build/smoke/report.json").read_text())
        assert entry["name"] in said and "died" in entry["error"], entry["error"]
    else:
        kill_all([run, *(others if victim == "everything" else [])])
        run.communicate(timeout=60)
    assert not end_of(others, 10), "the kernel ends with its runner"
    finish(home, unbroken)


@pytest.mark.slow
@pytest.mark.item("5 papermill", "Ctrl-C")
@pytest.mark.rounds(short=1, long=5)
def test_interrupt_ends_runner_and_kernel(unbroken, place, round):
    home, run, kernel = run_for_a_while(place, unbroken[1], random.Random(f"interrupt {round}"))
    others = below(run)
    assert kernel in others
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=10)
    assert run.returncode == 130 and "stopped" in said and "Traceback" not in said, said
    assert not end_of(others, 5)
    finish(home, unbroken)


@pytest.mark.slow
@pytest.mark.item("4 two at once", "notebook runs")
@pytest.mark.rounds(short=1, long=3)
def test_two_runs_of_one_notebook(unbroken, place, round):
    first = clsp(place, *RUN)
    time.sleep(round)
    second = clsp(place, *RUN)
    said = [run.communicate(timeout=300)[0] for run in (first, second)]
    assert [run.returncode for run in (first, second)] == [0, 0], said
    assert any("waiting" in text for text in said)
    assert contents(place) == unbroken[0] and not leftovers(place)
    assert json.loads((place / "build/smoke/report.json").read_text())[0]["status"] == "ok"
    assert len(list((place / "artifacts/diffusion").glob("[0-9a-f]*"))) == 1, "made once"


@pytest.mark.slow
@pytest.mark.item("4 two at once", "different notebooks")
@pytest.mark.rounds(short=0, long=2)
def test_two_different_notebooks_share_what_both_need(unbroken, place, round):
    other = ("run", "02", *RUN[2:])
    runs = [clsp(place, *RUN), clsp(place, *other)]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    both = contents(place)
    assert {name: both[name] for name in unbroken[0]} == unbroken[0]
    alone = place / "alone"
    run = clsp(alone, *other)
    run.communicate(timeout=300)
    assert {name: both[name] for name in contents(alone)} == contents(alone)


@pytest.mark.slow
@pytest.mark.item("8 numbers", "same bits twice")
@pytest.mark.rounds(short=0, long=1)
def test_all_notebooks_twice_give_the_same_figures_and_tables(tmp_path, round):
    found = []
    for name in ("first", "second"):
        run = clsp(tmp_path / name, "run", "--profile", "smoke")
        said, _ = run.communicate(timeout=900)
        assert run.returncode == 0, said
        found.append(contents(tmp_path / name))
    assert found[0] == found[1] and sum(name.endswith(".csv") for name in found[0]) > 10
    report = json.loads((tmp_path / "first/build/smoke/report.json").read_text())
    assert all(0 < entry["peak_mb"] < 6000 for entry in report)
