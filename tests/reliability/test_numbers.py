"""Losses that are no numbers, and the versions that numbers came from."""

import io
import json

import pytest
import torch
from homes import contents
from stages import FOLDERS, STAGES, STEPS, Stage, die_after

from clsp_utils.runtime import Checkpoint, Diverged, all_finite, checkpoint, save_weights
from clsp_utils.store import Request, Store, artifacts

BLOWN_UP = {
    "diffusion": (
        {"diffusion.steps": 60, "diffusion.warmup": 1, "diffusion.lr": 1e30},
        "lower diffusion.lr=1e+30",
    ),
    "exploding": (
        {"diffusion.steps": 60, "diffusion.warmup": 1, "diffusion.clip": 1e9, "diffusion.lr": 30},
        "lower diffusion.lr=30",
    ),
    "pretraining": ({"simclr.lr": 1e30, "simclr.epochs": 12}, "lower simclr.lr=1e+30"),
}


@pytest.mark.item("8 numbers", "diverged")
@pytest.mark.parametrize("name", BLOWN_UP)
def test_diverged_stage_stops_and_says_what_to_lower(reference, place, name):
    overrides, advice = BLOWN_UP[name]
    stage = name if name in STAGES else "diffusion"
    home = reference.before_stage("diffusion", place)
    run = Stage(stage, home, overrides=overrides)
    assert run.wait() == 1
    last = run.said().strip().splitlines()[-1]
    assert last.startswith("clsp_utils.runtime.checkpoint.Diverged: ") and advice in last
    folder = FOLDERS[stage]
    assert not [file for file in contents(home) if file.startswith(folder)]
    for path in home.glob(f"artifacts/{folder}/.*.work/checkpoint"):
        saved = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
        tensors = list(checkpoint._tensors(saved))
        assert tensors and all_finite(tensors), "what is kept is good"


class Loop:
    """What a checkpoint holds, with weights that can be spoilt."""

    def __init__(self, folder):
        self.net = torch.nn.Linear(2, 2)
        self.losses = torch.zeros(10)
        self.checkpoint = Checkpoint(folder, {"net": self.net}, {"losses": self.losses}, every=0)

    def after_step(self, step, loss):
        self.losses[step] = loss
        self.checkpoint.after_step(step, loss, "lr")


@pytest.mark.item("8 numbers", "last good checkpoint kept")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spoilt_weights_do_not_replace_a_good_checkpoint(tmp_path, monkeypatch, value):
    monkeypatch.setattr(checkpoint, "MIN_INTERVAL", 0)  # a checkpoint after every step
    loop = Loop(tmp_path)
    loop.after_step(0, 1.0)
    good = (tmp_path / "checkpoint").read_bytes()
    loop.net.weight.data[0, 0] = value
    with pytest.raises(Diverged, match="after step 1: lower lr"):
        loop.after_step(1, 1.0)
    assert (tmp_path / "checkpoint").read_bytes() == good
    with pytest.raises(Diverged):
        save_weights(loop.net, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.item("8 numbers", "exploding loss")
@pytest.mark.parametrize(
    "first, loss, stops",
    [(1.0, 99.0, False), (1.0, 101.0, True), (5.0, 400.0, False), (0.01, 50.0, False)],
)
def test_loss_beyond_reason_stops_the_stage(tmp_path, first, loss, stops):
    loop = Loop(tmp_path)
    loop.after_step(0, first)
    if stops:
        with pytest.raises(Diverged, match="The loss is 101 at step 1: lower lr"):
            loop.after_step(1, loss)
    else:
        loop.after_step(1, loss)


@pytest.mark.item("8 numbers", "versions")
@pytest.mark.parametrize("library", artifacts.LIBRARIES)
def test_changed_library_is_in_the_manifest_and_told(tmp_path, monkeypatch, library):
    said = []
    store = Store(tmp_path, said.append)
    build = lambda out, work: (out / "result").write_text("whole")  # noqa: E731
    known = artifacts.version
    with monkeypatch.context() as patch:
        patch.setattr(
            artifacts, "version", lambda name: "0.0.1" if name == library else known(name)
        )
        assert store.get(Request("stage", {}), build).manifest["versions"][library] == "0.0.1"
        assert said == []
    store = Store(tmp_path, said.append)  # a later session, as it is where a library has changed
    for _ in range(2):
        assert store.find(Request("stage", {})), "it is used, but not silently"
    assert len(said) == 1 and f"{library} 0.0.1 (here {known(library)})" in said[0]


@pytest.mark.item("8 numbers", "time")
def test_seconds_count_every_session(reference, place):
    """Methods are compared at equal time: a run that was stopped must not look fast."""
    home = reference.before_stage("pretraining", place)
    assert Stage("pretraining", home, die_after, (STEPS["pretraining"] - 2,)).wait() == -9
    rerun = Stage("pretraining", home)
    assert rerun.wait() == 0, rerun.said()
    [path] = home.glob("artifacts/pretrain/[0-9a-f]*/manifest.json")
    [whole] = reference.home.glob("artifacts/pretrain/[0-9a-f]*/manifest.json")
    whole, path = (json.loads(file.read_text())["seconds"] for file in (whole, path))
    assert path > 0.6 * whole, "two of 48 steps alone take a twentieth"
