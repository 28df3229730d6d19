"""The run on a GPU: its arithmetic, what it carries back, and that it stops and goes on."""

import importlib
import json
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet
from clsp_utils.pipeline import Profile
from clsp_utils.runtime import Checkpoint, OutOfTime


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("cifar10_gpu")


def test_steps_fill_their_minutes_and_no_more(gpu):
    assert gpu.steps_that_fit(10, 0.02) == 28_500
    assert gpu.steps_that_fit(10, 1.0) == 570
    assert gpu.steps_that_fit(0, 1.0) == 1


@pytest.mark.parametrize("slow", [{0}, {0, 7, 11}])
def test_neither_the_beginning_nor_other_work_counts_for_a_step(gpu, monkeypatch, tmp_path, slow):
    clock = [0.0]
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: clock[0])
    after_step = Checkpoint.after_step

    def train(n):
        checkpoint = Checkpoint(tmp_path, {}, {"losses": torch.ones(n)})
        for step in range(n):
            clock[0] += 7 if step in slow else 0.5
            checkpoint.after_step(step, 1.0, "lr")

    assert gpu.step_seconds(train, 12) == pytest.approx(0.5)
    assert Checkpoint.after_step is after_step


def test_all_parts_fit_into_half_an_hour_with_its_starts(gpu):
    assert gpu.MINUTES.keys() == gpu.PARTS.keys()
    measures = {"environment", "speed"}  # these may have a machine of their own
    assert sum(gpu.MINUTES[part] for part in gpu.PARTS.keys() - measures) <= 25
    for quick in ({}, gpu.QUICK):
        cfg = Profile("gpu", {**gpu.SETTINGS, **quick}, "here.npz")
        assert set(gpu.METHODS) == set(cfg.study.methods) and cfg.candidates.k == 1
        assert cfg.diffusion.source == "" and cfg.data.name == "cifar10"
    paper = Profile("paper").diffusion.unet
    assert Profile("gpu", gpu.SETTINGS, "here.npz").diffusion.unet == paper


def test_weights_come_back_as_autocast_reads_them(gpu):
    unet = build_unet(UNetShape(channels=(8, 16), groups=4), 8)
    found, own = gpu.unpack(gpu.pack(unet)), unet.state_dict()
    assert found.keys() == own.keys()
    for name, x in own.items():
        assert torch.equal(found[name], x.bfloat16().float() if x.ndim > 1 else x), name


def test_time_limit_ends_what_runs_and_tells_trainings_before(gpu):
    before = signal.getsignal(signal.SIGALRM)
    limit = gpu.time_limit(0.2)
    with pytest.raises(OutOfTime), limit:
        time.sleep(60 if Checkpoint.stop_after <= time.monotonic() + 0.2 else 0)
    assert Checkpoint.stop_after == float("inf")
    assert signal.getsignal(signal.SIGALRM) == before


def call(gpu, home, *parts, minutes=9):
    data = str(home / "c.npz")
    words = ["--data", data, "--out", str(home / "out"), "--minutes", str(minutes), "--quick"]
    return gpu.main([*parts, *words])


def states(gpu, home):
    found = {part: home / f"part_{part}.json" for part in gpu.PARTS}
    return {part: json.loads(path.read_text())["state"] for part, path in found.items()}


@pytest.fixture
def done(gpu, home, monkeypatch):
    """Names of the parts in the order in which they were done; they do nothing."""
    names = []
    for part in gpu.PARTS:
        monkeypatch.setitem(gpu.PARTS, part, lambda run, part=part: names.append(part))
    return names


def test_a_call_does_what_is_left(gpu, home, done, monkeypatch):
    def stops(run):
        raise OutOfTime("now")

    monkeypatch.setitem(gpu.PARTS, "look", stops)
    assert call(gpu, home, minutes=3) == 0  # less than a part may take
    assert done == [part for part in gpu.PARTS if part != "look"]
    assert states(gpu, home) == dict.fromkeys(gpu.PARTS, "done") | {"look": "to go on"}
    monkeypatch.setitem(gpu.PARTS, "look", lambda run: done.append("look"))
    assert call(gpu, home) == 0 and done[-1] == "look" and len(done) == len(gpu.PARTS)
    assert call(gpu, home) == 0 and len(done) == len(gpu.PARTS)
    assert call(gpu, home, "speed") == 0 and done[len(gpu.PARTS) :] == ["speed"]  # it was asked for
    with tarfile.open(home / "out" / "results.tar.gz") as file:
        assert "| look | done |" in file.extractfile("cifar10/report.md").read().decode()


def test_a_part_that_takes_too_long_is_cut_off(gpu, home, done, monkeypatch):
    monkeypatch.setattr(gpu, "MINUTES", gpu.MINUTES | {"look": 0.001})
    monkeypatch.setitem(gpu.PARTS, "look", lambda run: time.sleep(60))
    assert call(gpu, home) == 0 and "encoders" in done
    assert states(gpu, home)["look"] == "cut off"


def test_an_error_that_a_compiler_makes_of_the_clocks_is_no_fault(gpu, home, done, monkeypatch):
    def compiles(run):
        try:
            time.sleep(60)
        except OutOfTime:
            raise RuntimeError("of the compiler") from None

    monkeypatch.setattr(gpu, "MINUTES", gpu.MINUTES | {"look": 0.001})
    monkeypatch.setitem(gpu.PARTS, "look", compiles)
    assert call(gpu, home) == 0 and states(gpu, home)["look"] == "cut off"


def test_a_fault_of_one_part_does_not_keep_the_others_from_their_work(gpu, home, done, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "speed", lambda run: 1 / 0)
    assert call(gpu, home) == 1 and "encoders" in done
    assert "ZeroDivisionError" in (home / "results" / "error_speed.txt").read_text()


def test_a_call_without_time_does_nothing(gpu, home, done):
    assert call(gpu, home, minutes=0.1) == 0 and done == []


@pytest.mark.slow
def test_diffusion_is_trained_once_and_taken_from_its_pieces(gpu, home):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (400, 32, 32, 3), dtype=np.uint8), np.arange(400) % 10
    np.savez(home / "c.npz", train_x=x, train_y=y, test_x=255 - x, test_y=y)
    assert call(gpu, home, "diffusion") == 0
    steps = json.loads((home / "plan.json").read_text())["steps"]
    with tarfile.open(home / "out" / "results.tar.gz") as file:
        names = {Path(name).name for name in file.getnames()}
        loss = file.extractfile("cifar10/diffusion_loss.csv").read().decode()
    assert {"samples.png", "samples.csv"} <= names
    assert loss.splitlines()[-1].startswith(f"{steps},") and "re-compressed CIFAR-10" in loss
    run = gpu.Run(str(home / "c.npz"), "", True)
    trained = run.companion().unet.state_dict()
    gpu.take_unet(run, home / "out")
    taken = run.companion().unet.state_dict()
    assert all(
        torch.equal(taken[k], x.bfloat16().float()) for k, x in trained.items() if x.ndim > 1
    )
