"""Checkpoints bit for bit, and divergence."""

import copy
import math
import os
import time

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch.nn import functional as F

from clsp_utils.runtime import Checkpoint, Diverged, OutOfTime, generator


class Loop:
    """A model with two kinds of optimizer and an average, as the stages have them."""

    def __init__(self, folder, seed=0, every=1e9):
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2)
        )
        self.sgd = torch.optim.SGD(self.model[0].parameters(), 0.1, momentum=0.9)
        self.adam = torch.optim.AdamW(self.model[1:].parameters(), 0.01)
        self.ema = EMAModel(self.model.parameters(), decay=0.9)
        self.losses = torch.zeros(10)
        self.parts = {"model": self.model, "sgd": self.sgd, "adam": self.adam, "ema": self.ema}
        self.checkpoint = Checkpoint(folder, self.parts, {"losses": self.losses}, every)

    def run(self, first, last):
        for step in range(first, last):
            x = torch.randn(8, 4, generator=generator(0, step))
            loss = F.mse_loss(self.model(x), x[:, :2])
            self.model.zero_grad()
            loss.backward()
            self.sgd.step()
            self.adam.step()
            self.ema.step(self.model.parameters())
            self.losses[step] = loss.item()

    def state(self):
        state = {name: part.state_dict() for name, part in self.parts.items()}
        return copy.deepcopy(state | {"losses": self.losses})


def assert_same(a, b):
    """Equal trees, tensors bit for bit and of one type; lists and tuples count as the same."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_same(x, y)
    else:
        assert a == b


@pytest.fixture
def saved(tmp_path):
    """A loop that was saved after three steps."""
    loop = Loop(tmp_path)
    loop.run(0, 3)
    loop.checkpoint.save(3)
    return loop


def test_restored_loop_is_the_saved_one_and_goes_on_like_it(saved, tmp_path):
    resumed = Loop(tmp_path, seed=1)
    assert not torch.equal(resumed.model[0].weight, saved.model[0].weight)
    assert resumed.checkpoint.restore() == 3
    assert_same(resumed.state(), saved.state())
    for loop in (saved, resumed):
        loop.run(3, 6)
    assert_same(resumed.state(), saved.state())


def test_restore_is_not_tied_to_what_is_saved_later(saved, tmp_path):
    before = saved.state()
    saved.run(3, 5)
    assert saved.checkpoint.restore() == 3
    assert_same(saved.state(), before)


def test_nothing_to_restore(tmp_path):
    loop = Loop(tmp_path / "new" / "folder")
    before = loop.state()
    assert loop.checkpoint.restore() == 0
    assert_same(loop.state(), before)


@pytest.mark.parametrize("place", [0, 31, 32, 40, 0.5, -1], ids=str)
def test_flipped_bit_is_noticed_and_the_file_set_aside(saved, tmp_path, capsys, place):
    path = saved.checkpoint.path
    blob = bytearray(path.read_bytes())
    blob[int(place * len(blob)) if place == 0.5 else place] ^= 1
    path.write_bytes(blob)
    loop = Loop(tmp_path, seed=1)
    before = loop.state()
    assert loop.checkpoint.restore() == 0
    assert_same(loop.state(), before)
    assert not path.exists() and path.with_suffix(".damaged").read_bytes() == blob
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize("length", [0, 20, 32, 500])
def test_truncated_checkpoint_is_set_aside(saved, tmp_path, length):
    path = saved.checkpoint.path
    path.write_bytes(path.read_bytes()[:length])
    assert Loop(tmp_path).checkpoint.restore() == 0
    assert path.with_suffix(".damaged").exists()


def test_half_written_file_of_a_killed_save_is_ignored(saved, tmp_path):
    saved.checkpoint.path.with_suffix(".new").write_bytes(b"half")
    loop = Loop(tmp_path, seed=1)
    assert loop.checkpoint.restore() == 3
    loop.checkpoint.save(4)
    assert Loop(tmp_path, seed=2).checkpoint.restore() == 4


@pytest.mark.parametrize("call", ["fsync", "replace"])  # after the writing, at the end
def test_save_that_fails_keeps_the_last_checkpoint(saved, tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = saved.checkpoint.path.read_bytes()
    saved.run(3, 5)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        saved.checkpoint.save(5)
    assert saved.checkpoint.path.read_bytes() == before


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_diverged_loss_stops_the_run_and_keeps_the_checkpoint(saved, tmp_path, loss):
    saved.checkpoint.every = 0  # would save at once
    with pytest.raises(Diverged, match=r"step 7\b.*lower simclr\.lr=0\.2") as error:
        saved.checkpoint.after_step(7, loss, "simclr.lr=0.2")
    assert str(loss) in str(error.value)
    assert Loop(tmp_path, seed=1).checkpoint.restore() == 3


def test_after_step_saves_when_it_is_time(tmp_path):
    rare, often = Loop(tmp_path / "rare"), Loop(tmp_path / "often", every=0)
    for loop in (rare, often):
        loop.losses[4] = 0.25
        loop.checkpoint.after_step(4, 0.25, "lr")
    assert not rare.checkpoint.path.exists()
    resumed = Loop(tmp_path / "often")
    assert resumed.checkpoint.restore() == 5, "the next step to do"
    assert resumed.losses.tolist() == [0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0]


def test_saves_that_take_long_come_less_often(tmp_path, monkeypatch):
    rare, loop = Loop(tmp_path / "rare", every=1000.0), Loop(tmp_path / "often", every=1.0)
    rare.checkpoint.save(0)
    assert rare.checkpoint.every == 1000.0, (
        "a small file is written in less than a twentieth of that"
    )
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: time.sleep(0.1) or replace(*paths))
    loop.checkpoint.save(1)
    assert 2.0 <= loop.checkpoint.every < 10


def test_a_loop_that_is_out_of_time_saves_its_last_step_and_ends(tmp_path, monkeypatch):
    loop = Loop(tmp_path)
    loop.run(0, 3)
    loop.checkpoint.after_step(2, 1.0, "the learning rate")  # there is time
    assert not loop.checkpoint.path.exists()
    monkeypatch.setattr(Checkpoint, "stop_after", time.monotonic())
    with pytest.raises(OutOfTime, match="after step 2"):
        loop.checkpoint.after_step(2, 1.0, "the learning rate")
    resumed = Loop(tmp_path, seed=1)
    assert resumed.checkpoint.restore() == 3
    assert_same(resumed.state(), loop.state())
