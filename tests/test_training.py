"""Checkpoints bit for bit, divergence, learning rate, seeds and precision."""

import copy
import math
import os
import time

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch.nn import functional as F

from clsp_utils import training
from clsp_utils.training import Checkpoint, Diverged, warmup_cosine


class Loop:
    """A model with two kinds of optimizer and an average, as the stages have them."""

    def __init__(self, folder, seed=0, every=1e9):
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))
        self.sgd = torch.optim.SGD(self.model[0].parameters(), 0.1, momentum=0.9)
        self.adam = torch.optim.AdamW(self.model[1:].parameters(), 0.01)
        self.ema = EMAModel(self.model.parameters(), decay=0.9)
        self.losses = torch.zeros(10)
        self.parts = {"model": self.model, "sgd": self.sgd, "adam": self.adam, "ema": self.ema}
        self.checkpoint = Checkpoint(folder, self.parts, {"losses": self.losses}, every)

    def run(self, first, last):
        for step in range(first, last):
            x = torch.randn(8, 4, generator=training.generator(0, step))
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
    monkeypatch.setattr(training.os, call, fail)
    with pytest.raises(OSError):
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
    assert rare.checkpoint.every == 1000.0, "a small file is written in less than a twentieth of that"
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: time.sleep(0.1) or replace(*paths))
    loop.checkpoint.save(1)
    assert 2.0 <= loop.checkpoint.every < 10


@pytest.mark.parametrize("step, total, warmup, expected", [
    (0, 100, 9, 0.1),  # not 0: the first step does something
    (8, 100, 9, 0.9),
    (10, 110, 10, 1.0),
    (60, 110, 10, 0.5),
    (35, 110, 10, 0.5 + math.sqrt(0.5) / 2),
    (110, 110, 10, 0.0),
    (0, 100, 0, 1.0),
    (100, 100, 0, 0.0),
])
def test_warmup_cosine_at_known_points(step, total, warmup, expected):
    assert warmup_cosine(step, total, warmup) == pytest.approx(expected)


@pytest.mark.parametrize("total, warmup", [(50, 0), (50, 7.5), (50, 49), (3, 10)])
def test_warmup_cosine_rises_then_falls(total, warmup):
    factors = [warmup_cosine(step, total, warmup) for step in range(total)]
    top = min(math.ceil(warmup), total - 1)
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)


def test_set_lr_sets_every_group():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": p} for p in parameters], lr=1.0)
    training.set_lr(optimizer, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_seeds_are_the_same_everywhere_and_distinct():
    names = [(seed, name, step) for seed in range(5) for name in ("views", "noise") for step in range(50)]
    seeds = {training.seed_for(*name) for name in names}
    assert len(seeds) == len(names) and all(0 <= seed < 2**63 for seed in seeds)
    # Python's own hash of strings differs between processes; this one must never change.
    assert training.seed_for(0, "views", 3) == 6918862609723109907


def test_generators_are_deterministic_and_distinct():
    a, b, c = (torch.rand(4, generator=training.generator(0, "views", step)) for step in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("asked, native, expected", [
    ("fp32", True, "fp32"),
    ("bf16", False, "bf16"),
    ("auto", True, "bf16"),
    ("auto", False, "fp32"),
])
@pytest.mark.parametrize("gpu", [False, True])
def test_precision(monkeypatch, gpu, asked, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    # On a GPU the processor must not matter.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native != gpu, raising=False)
    assert training.resolve_precision(asked) == expected


class OnCuda(torch.Tensor):
    """A tensor that says it is on a CUDA device."""

    is_cuda = True


@pytest.mark.parametrize("triton", [True, False])
def test_functions_are_compiled_once_on_cuda_where_triton_is_there_and_never_on_cpus(monkeypatch, triton):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or (lambda *args, **named: f(*args, **named) + 100))
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: triton or None)

    @training.compiled_on_cuda
    def plus(x, number=1):
        """Adds."""
        return x.sum().item() + number

    x = torch.ones(3)
    assert plus.__doc__ == "Adds." and plus(x) == 4 and not compiled
    fast = 100 if triton else 0
    assert plus(x.as_subclass(OnCuda)) == 4 + fast and plus(x=x.as_subclass(OnCuda), number=2) == 5 + fast
    assert len(compiled) == triton


@pytest.mark.parametrize("place, pins", [("cuda", 1), ("cpu", 0)])
def test_only_what_goes_to_cuda_is_pinned(monkeypatch, place, pins):
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, where, non_blocking: calls.append((where, non_blocking)) or self)
    where = torch.device(place)
    training.upload(torch.ones(2), where)
    assert calls == ["pinned"] * pins + [(where, True)]
