"""A full disk, a limit on files, a disk that cannot be written: told, and gone on from."""

import os
import random
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from homes import clsp, contents, leftovers
from stages import Stage, die_after, limit_files, read_diary

from clsp_utils.store import Request, Store, StoreError

MIB = 2**20


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "reliability", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk is made with `mount -t tmpfs`, which only root may")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, room):
    """Leaves `room` bytes free."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with open(disk / "ballast", "wb") as file:
        file.write(bytes(max(0, free - room)))


def assert_told(run, reason):
    """The last line is what the system said; the process was not ended by a signal."""
    last = run.said().strip().splitlines()[-1]
    assert run.process.exitcode == 1, f"{run.process.exitcode}: {last}"
    assert last.startswith("clsp_utils.store.artifacts.StoreError: ") and reason in last, last


@pytest.mark.item("3 full disk")
@pytest.mark.parametrize("stage", ["diffusion", "candidates", "pretraining", "evaluation"])
@pytest.mark.rounds(short=1, long=10)
def test_stage_on_a_full_disk(reference, disk, stage, round):
    home = disk / "home"
    reference.before_stage(stage, home)
    before = contents(home)
    draw = random.Random(f"disk {stage} {round}")
    room = draw.random() * 2 * MIB
    while True:
        fill(disk, int(room))
        run = Stage(stage, home)
        if run.wait() != 0:
            break
        (
            shutil.rmtree(home),
            (disk / "ballast").unlink(),
        )  # there was room enough: try with half of it
        reference.before_stage(stage, home)
        room /= 2
    assert_told(run, "No space left on device")
    assert contents(home) == before, "the store is as it was"
    (disk / "ballast").unlink()
    rerun = Stage(stage, home)
    assert rerun.wait() == 0, rerun.said()
    assert "damaged" not in rerun.said()
    assert contents(home) == reference.after[stage] and not leftovers(home)


@pytest.mark.item("3 full disk", "limit on files")
@pytest.mark.parametrize("name", ["diffusion", "candidates", "pretraining"])
@pytest.mark.rounds(short=1, long=5)
def test_file_that_may_not_grow(reference, place, name, round):
    """Works for any user and anywhere: the system refuses to write beyond a size."""
    home = reference.before_stage(name, place)
    before = contents(home)
    largest = {"diffusion": 500_000, "candidates": 45_000, "pretraining": 300_000}[name]
    size = int(random.Random(f"limit {name} {round}").uniform(20_000, largest))
    run = Stage(name, home, limit_files, (size,))
    run.wait()
    assert_told(run, "File too large")
    assert contents(home) == before
    rerun = Stage(name, home)
    assert rerun.wait() == 0, rerun.said()
    assert contents(home) == reference.after[name] and not leftovers(home)


@pytest.mark.item("3 full disk", "goes on from its checkpoint")
def test_work_that_was_done_before_the_disk_was_full_is_kept(reference, disk):
    home = reference.before_stage("diffusion", disk / "home")
    stage = Stage("diffusion", home, die_after, (20, signal.SIGSTOP))  # so that it waits
    process = psutil.Process(stage.process.pid)
    while process.status() != psutil.STATUS_STOPPED:
        assert stage.process.is_alive(), stage.said()
        time.sleep(0.01)
    fill(disk, MIB // 16)  # room for its diary, not for a checkpoint
    process.resume()
    stage.wait()
    assert_told(stage, "No space left on device")
    (disk / "ballast").unlink()
    rerun = Stage("diffusion", home)
    assert rerun.wait() == 0, rerun.said()
    resumed = [number for _, what, _, number in read_diary(home) if what == "from"][-1]
    assert resumed > 0 and contents(home) == reference.after["diffusion"]


@pytest.mark.item("3 full disk", "read-only")
def test_disk_that_cannot_be_written(reference, disk):
    home = reference.before_stage("pretraining", disk / "home")
    before = contents(home)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StoreError, match="cannot be written: Read-only file system"):
        Store(home / "artifacts")
    run = clsp(home, "run", "01", "--profile", "smoke")
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 2 and "Read-only file system" in said and "Traceback" not in said, said
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert contents(home) == before
    rerun = Stage("pretraining", home)
    assert rerun.wait() == 0, rerun.said()
    assert contents(home) == reference.after["pretraining"]


@pytest.mark.item("3 full disk", "read-only")
def test_damaged_artifact_on_a_disk_that_cannot_be_written(disk):
    store, request = Store(disk / "store", log=lambda text: None), Request("stage", {"a": 1})
    path = store.get(request, lambda out, work: (out / "result").write_text("whole")).path
    (path / "result").write_text("who")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for ask in (store.find, lambda request: store.get(request, build=None)):
        with pytest.raises(StoreError, match="Read-only file system"):
            ask(request)


@pytest.mark.slow
@pytest.mark.item("3 full disk", "notebook runs")
@pytest.mark.rounds(short=0, long=2)
def test_notebook_on_a_full_disk(disk, round):
    home = disk / "home"
    home.mkdir()
    fill(disk, [0, 200_000][round])
    run = clsp(home, "run", "01", "--profile", "smoke")
    said, _ = run.communicate(timeout=120)
    assert (
        run.returncode in (1, 2) and "No space left on device" in said and "Traceback" not in said
    ), said
    (disk / "ballast").unlink()
    run = clsp(home, "run", "01", "--profile", "smoke")
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
