"""Stages are made once, after their inputs, side by side; and long ones say how long they take."""

import json
import multiprocessing
import re
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from least_work import QUICK

from clsp_utils import contrastive, diffusion, evaluation, positives
from clsp_utils.config import Count, frozen
from clsp_utils.pipeline import (
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pipeline,
    Pretrained,
    Scores,
    Stage,
)
from clsp_utils.runtime import Diverged, workers
from clsp_utils.store import Store, StoreError

made, trials = [], []


class Counted(Stage):
    """Tells the tests what it is asked to do."""

    def make(self, job):
        made.append(self.number)
        (job.out / "number").write_text(str(self.number + sum(map(job.get, self.inputs))))

    def load(self, artifact):
        return int((artifact / "number").read_text())

    def trial(self, job, n):
        trials.append((n, self.number, *map(job.get, self.inputs)))
        for folder in {job.out, job.work}:
            (folder / "checkpoint").touch(exist_ok=False)


@frozen
class First(Counted):
    """What the others are made from."""

    kind = "first"
    number: Count = 1
    refused: bool = False

    def check(self):
        if self.refused:
            raise ValueError("refused")


@frozen
class Second(Counted):
    """Takes steps."""

    kind = "second"
    first: First = First()
    number: Count = 10
    steps: int = 0

    @property
    def n_steps(self):
        return self.steps


@frozen
class Wide(Counted):
    """Uses all cores."""

    kind, wide = "wide", True
    number: Count = 100


@frozen
class Third(Counted):
    """At the end of a chain."""

    kind = "third"
    second: Second = Second()
    wide_input: Wide = Wide()
    number: Count = 1000


@pytest.fixture(autouse=True)
def _nothing_yet():
    made.clear(), trials.clear()


@pytest.fixture
def pipeline(tmp_path):
    """One that announces; `pipeline.told` is what it has said."""
    told = []
    one = Pipeline(Store(tmp_path / "artifacts", lambda text: None), True, told.append)
    one.told = told
    return one


def test_a_stage_is_made_after_its_inputs_and_once(pipeline):
    assert pipeline.get(Third()) == 1111
    assert made == [1, 10, 100, 1000]
    assert pipeline.get(Third()) == 1111 and pipeline.get(Second()) == 11
    assert made == [1, 10, 100, 1000]
    assert pipeline.get(Third(number=2000)) == 2111 and made[4:] == [2000]


def test_what_is_found_is_not_asked_for_its_inputs(pipeline):
    stage = Third()
    pipeline.get(stage)
    for name in ("first", "second", "wide"):
        shutil.rmtree(pipeline.store.root / name)
    assert pipeline.get(stage) == 1111 and pipeline.get_all([stage, stage], "stages") == [1111] * 2
    assert len(made) == 4


def test_only_the_inputs_of_what_is_missing_are_made(pipeline):
    pipeline.get(Second())
    shutil.rmtree(pipeline.store.root / "first")
    assert pipeline.get(Third()) == 1111
    assert made == [1, 10, 100, 1000]


def test_what_cannot_be_made_is_refused_before_anything_is(pipeline):
    with pytest.raises(ValueError, match="refused"):
        pipeline.get(Second(first=First(refused=True)))
    assert not made and not list(pipeline.store.root.rglob("manifest.json"))


def test_a_file_of_it_that_was_damaged_makes_a_stage_anew_and_its_inputs_not(pipeline):
    artifact = pipeline.artifact(Second())
    (artifact / "number").write_text("12")
    assert pipeline.get(Second()) == 11 and made == [1, 10, 10]


# Time ---------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Each step of a trial takes a quarter of a minute."""
    clock = SimpleNamespace(monotonic=lambda: 15.0 * sum(n for n, *_ in trials))
    monkeypatch.setattr("clsp_utils.pipeline.pipeline.time", clock)


def test_a_long_stage_is_tried_and_says_how_long_it_takes(pipeline, clock, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert pipeline.get(Second(steps=40)) == 11
    assert trials == [(n, 10, 1) for n in (1, 1, 4)]  # with its inputs at hand
    assert pipeline.told == ["second: about 10.0 min on this machine"]
    assert made == [1, 10]
    assert not list((tmp_path / "temporary").iterdir())
    stored = {path.name for path in pipeline.store.root.rglob("*") if path.is_file()}
    assert {name for name in stored if not name.endswith(".lock")} == {"number", "manifest.json"}
    pipeline.get(Second(steps=40))  # it is there
    assert len(trials) == 3 and len(pipeline.told) == 1


def test_hours_are_told_in_hours(pipeline, clock):
    pipeline.get(Second(steps=4000))
    assert pipeline.told == ["second: about 16.7 h on this machine"]


def test_short_stages_are_not_tried(pipeline):
    pipeline.get(Third())
    assert not trials and not pipeline.told


def test_nothing_is_tried_where_nothing_is_announced(tmp_path):
    told = []
    Pipeline(Store(tmp_path), False, told.append).get(Second(steps=40))
    assert not trials and not told and made == [1, 10]


@pytest.mark.parametrize("at", [1, 4])
def test_what_does_not_fit_into_memory_is_named_before_it_is_made(pipeline, monkeypatch, at):
    def trial(self, job, n):
        if n == at:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Second, "trial", trial)
    with pytest.raises(StoreError, match="^second does not fit into the memory .*lower its batch"):
        pipeline.get(Second(steps=40))
    assert made == [1]


@pytest.mark.parametrize("profile, announces", [("smoke", False), ("laptop", True)])
def test_all_profiles_but_smoke_announce(home, profile, announces):
    assert Companion(profile).pipeline.announce == announces


def test_each_long_stage_of_the_paper_can_be_tried(home, capsys, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    small = {
        "data.limit": 256, "diffusion.unet.channels": (16, 32), "diffusion.batch": 8,
        "candidates.batch": 256, "pretrain.batch": 16, "classifier.batch": 16,
    }  # fmt: skip
    Companion("laptop", 0, QUICK | small).get(Scores, method="CLSP-SimCLR")
    lines = [line for line in capsys.readouterr().out.split("\n") if "about" in line]
    assert [line.split(":")[0] for line in lines] == ["diffusion", "candidates", "pretrain"]
    for line in lines:
        assert re.fullmatch(r"[a-z]+: about [0-9.]+ min on this machine(, .* GB of .*)?", line)
    assert not list((tmp_path / "temporary").glob("tmp*"))


# The stages of the paper --------------------------------------------------------------------------


@pytest.fixture
def refuse(monkeypatch):
    """From then on nothing can be made."""

    def refuse(*args, **kwargs):
        raise AssertionError("made again")

    def start():
        for room, name in (
            (diffusion, "train"), (positives, "fill_bank"), (positives, "interpolate"),
            (contrastive, "pretrain"), (evaluation, "score"),
        ):  # fmt: skip
            monkeypatch.setattr(room, name, refuse)

    return start


def test_a_store_that_lacks_the_bank_still_gives_the_encoder(home, refuse):
    ask = {"method": "CLSP-SimCLR"}
    c = Companion("smoke", 0, QUICK)
    losses, scores = np.load(c.artifact(Pretrained, **ask) / "losses.npy"), c.get(Scores, **ask)
    for name in ("diffusion", "candidates"):
        shutil.rmtree(home / "artifacts" / name)
    refuse()
    c = Companion("smoke", 0, QUICK)
    assert np.array_equal(np.load(c.artifact(Pretrained, **ask) / "losses.npy"), losses)
    assert c.get_all([c.stage(Scores, **ask)], "runs") == [scores]
    for kind in (InterpolatedBank, DiffusionModel):
        with pytest.raises(AssertionError, match="made again"):
            c.artifact(kind)


def test_scores_that_are_missing_need_no_bank_where_the_encoder_is_there(home, refuse, threads):
    ask = {"method": "CLSP-SimCLR"}
    c = Companion("smoke", 0, QUICK)
    scores = c.get(Scores, **ask)
    for name in ("diffusion", "candidates", "scores"):
        shutil.rmtree(home / "artifacts" / name)
    threads(2)
    c = Companion("smoke", 0, QUICK)
    assert c.get_all([c.stage(Scores, **ask)], "runs") == [scores]
    assert not (home / "artifacts" / "diffusion").exists()


# Side by side -------------------------------------------------------------------------------------


def runs_of(c):
    return [
        c.stage(Pretrained, method=method, seed=seed)
        for method in ("SimCLR", "MoCoV2") for seed in (0, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_runs_side_by_side_are_the_runs_that_one_makes_alone(home, monkeypatch, threads):
    def losses(c):
        return [np.load(c.pipeline.artifact(run) / "losses.npy") for run in runs_of(c)]

    threads(2)
    alone = losses(Companion("smoke", 0, QUICK))
    monkeypatch.setenv("CLSP_HOME", str(home / "other"))
    c = Companion("smoke", 0, QUICK)
    monkeypatch.setattr(contrastive, "pretrain", None)  # this process makes nothing of it
    assert len(c.get_all(runs_of(c), "runs")) == 4
    assert all(map(np.array_equal, alone, losses(c)))


@pytest.mark.slow
def test_a_bank_filled_side_by_side_is_the_bank_that_one_fills_alone(home, monkeypatch, threads):
    overrides = QUICK | {"candidates.batch": 100}
    threads(1)
    alone = np.array(Companion("smoke", 0, overrides).get(InterpolatedBank))
    monkeypatch.setenv("CLSP_HOME", str(home / "other"))
    c = Companion("smoke", 0, overrides)
    c.artifact(DiffusionModel)
    threads(2)
    monkeypatch.setattr(positives, "fill_bank", None)  # this process makes nothing of it
    assert np.array_equal(alone, c.get(InterpolatedBank))


@pytest.mark.slow
def test_an_error_of_a_run_side_by_side_arrives(home, threads):
    threads(2)
    c = Companion("smoke", 0, QUICK | {"simclr.lr": 1e30})
    assert workers.count(2) == 2
    runs = [c.stage(Pretrained, method="SimCLR", seed=seed) for seed in (0, 1)]
    with pytest.raises(Diverged, match="lower simclr.lr"):
        c.get_all(runs, "runs")
    assert not multiprocessing.active_children()


@pytest.fixture
def no_processes(monkeypatch, pipeline):
    """Two cores, whose jobs are done in this process one after the other."""
    monkeypatch.setattr(workers, "count", lambda n: max(1, min(n, 2)))
    jobs = []

    def side_by_side(function, calls, name):
        jobs.append((name, [stage.number for (stage,) in calls]))
        for (stage,) in calls:
            pipeline.artifact(stage)

    monkeypatch.setattr(workers, "side_by_side", side_by_side)
    return jobs


def test_what_uses_all_cores_is_made_before_the_others_share_them(pipeline, no_processes):
    stages = [Third(number=n) for n in (2000, 3000, 4000)]
    pipeline.get(stages[1])
    made.clear()
    shutil.rmtree(pipeline.store.root / "wide")
    assert pipeline.get_all(stages, "chains") == [2111, 3111, 4111]
    assert made == [100, 2000, 4000] and no_processes == [("chains", [2000, 4000])]


def test_stages_without_steps_and_inputs_are_made_side_by_side(pipeline, no_processes):
    assert pipeline.get_all([First(number=n) for n in (2, 3)], "numbers") == [2, 3]
    assert no_processes == [("numbers", [2, 3])] and not pipeline.told


def test_the_time_of_stages_side_by_side_is_that_of_those_that_are_missing(
    pipeline, no_processes, clock
):
    chains = [Third(second=Second(steps=40, number=n)) for n in (10, 20, 30, 40)]
    pipeline.get(First())
    for chain in chains[:2]:
        pipeline.artifact(chain.second)
    pipeline.told.clear(), trials.clear()
    pipeline.get_all([*chains, Third(second=chains[3].second, number=5)], "chains")
    expected = "2 x second: about 10.0 min on this machine"  # on two cores
    memory = ", 0\\.\\d GB of GPU memory" if torch.cuda.is_available() else ""
    assert re.fullmatch(re.escape(expected) + memory, pipeline.told[0])


def test_manifests_tell_the_device_and_no_precision_that_nobody_asked_for(pipeline):
    manifest = json.loads(
        (pipeline.artifact(First()) / "number").with_name("manifest.json").read_text()
    )
    assert "device" in manifest and "precision" not in manifest
    assert "device" not in manifest["config"]
    assert Path(pipeline.store.root) in pipeline.artifact(First()).path.parents
