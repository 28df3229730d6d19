"""Snapshots of a diffusion training: its averaged weights on the way, and nothing else."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clsp_utils import runtime
from clsp_utils.config import SNAPSHOTS, Diffusion, UNetShape
from clsp_utils.diffusion import train

CFG = Diffusion(
    unet=UNetShape(channels=(8, 16), groups=4, dropout=0.1),
    steps=12, batch=4, lr=2e-3, warmup=3, ema_decay=0.9,
)  # fmt: skip
AFTER = (1, 1, 2, 3, 6)  # steps, of 12
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
loop = importlib.import_module("clsp_utils.diffusion.train")  # not the function of that name


def snapshots(work):
    return [load_file(work / f"snapshot_{i}.safetensors") for i in range(len(SNAPSHOTS))]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("number", range(len(SNAPSHOTS)))
def test_a_snapshot_is_the_average_of_a_training_that_is_stopped_there(tmp_path, killed, number):
    train(CFG, IMAGES, 0, tmp_path / "whole", "fp32")
    steps = AFTER[number]
    with killed(after=steps, saved=steps):
        train(CFG, IMAGES, 0, tmp_path / "stopped", "fp32")
    stopped = runtime.Checkpoint(tmp_path / "stopped", {}, {})._read()
    assert stopped["step"] == steps == max(1, round(SNAPSHOTS[number] * CFG.steps))
    average, found = stopped["ema"]["shadow_params"], snapshots(tmp_path / "whole")[number]
    names = [name for name in stopped["unet"] if name in found]
    assert len(names) == len(average) == len(found)
    assert all(torch.equal(found[name], one) for name, one in zip(names, average))
    assert not same(found, stopped["unet"]) or steps == 1  # the average, not what is trained


@pytest.mark.parametrize("saved", [0, 2, 5])
def test_a_resumed_training_has_the_same_snapshots(tmp_path, killed, saved):
    train(CFG, IMAGES, 0, tmp_path / "unbroken", "fp32")
    with killed(after=5, saved=saved):
        train(CFG, IMAGES, 0, tmp_path / "resumed", "fp32")
    train(CFG, IMAGES, 0, tmp_path / "resumed", "fp32")
    for one, other in zip(snapshots(tmp_path / "unbroken"), snapshots(tmp_path / "resumed")):
        assert same(one, other)


def test_a_training_does_not_depend_on_its_snapshots(tmp_path, monkeypatch):
    unet, losses = train(CFG, IMAGES, 0, tmp_path / "with", "fp32")
    monkeypatch.setattr(loop, "SNAPSHOTS", ())
    plain, others = train(CFG, IMAGES, 0, tmp_path / "without", "fp32")
    assert same(unet.state_dict(), plain.state_dict()) and np.array_equal(losses, others)
    assert not list((tmp_path / "without").glob("snapshot_*"))


def test_the_shortest_training_has_all_of_them(tmp_path):
    unet, _ = train(dataclasses.replace(CFG, steps=1), IMAGES, 0, tmp_path, "fp32")
    assert all(same(one, unet.state_dict()) for one in snapshots(tmp_path))
