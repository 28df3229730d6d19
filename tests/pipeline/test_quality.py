"""Snapshots and plain samples as stages, and the study over a training."""

import numpy as np
import pytest
import torch
from least_work import QUICK, equal
from safetensors.torch import load_file

from clsp_utils.config import SNAPSHOTS, ConfigError
from clsp_utils.diffusion import plain_samples
from clsp_utils.pipeline import (
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Profile,
    Samples,
    Snapshot,
    model_after,
    over_training,
)
from clsp_utils.runtime import seed_for

SMALL = QUICK | {"diffusion.steps": 4, "samples.n": 40, "samples.batch": 16, "samples.steps": 2}


def test_snapshots_cost_no_training_and_no_room(home):
    c = Companion("smoke", 0, SMALL)
    unet = c.get(Snapshot, share=0.5)
    models = list((home / "artifacts" / "diffusion").glob("*/diffusion_pytorch_model.safetensors"))
    assert len(models) == 1 and not equal(unet, c.unet) and not unet.training
    kept = load_file(models[0].parent / "snapshot_4.safetensors")
    assert all(torch.equal(kept[name], one.cpu()) for name, one in unet.state_dict().items())
    (link,) = (home / "artifacts" / "snapshot").glob("*/diffusion_pytorch_model.safetensors")
    assert link.samefile(models[0].parent / "snapshot_4.safetensors")


def test_each_moment_has_its_own_key_and_the_end_is_the_model_itself(home):
    c = Companion("smoke", 0, SMALL)
    stages = [model_after(c, share) for share in (*SNAPSHOTS, 1.0)]
    assert len({one.request.key for one in stages}) == len(SNAPSHOTS) + 1
    assert stages[-1] == c.stage(DiffusionModel)
    banks = [c.stage(InterpolatedBank, unet=one) for one in stages]
    assert len({one.request.key for one in banks}) == len(banks)
    assert banks[-1] == c.stage(InterpolatedBank)
    with pytest.raises(ConfigError, match=r"share=0.3 must be one of"):
        c.stage(Snapshot, share=0.3)


def test_of_finished_weights_there_are_no_snapshots(home, tmp_path):
    (tmp_path / "weights").write_bytes(b"")
    stage = Profile("smoke", {"diffusion.source": str(tmp_path / "weights")}).stage(
        Snapshot, share=0.5
    )
    with pytest.raises(ConfigError, match="diffusion.source=.*must be empty"):
        stage.check()


def test_samples_are_made_batch_by_batch(home):
    c = Companion("smoke", 0, SMALL)
    snapshot = c.stage(Snapshot, share=0.5)
    found = c.get(Samples, unet=snapshot, variance="fixed_large")
    assert isinstance(found, np.memmap) and found.shape == (40, 2, 16, 16, 3)
    stage, unet = c.stage(Samples, variance="fixed_large"), c.pipeline.get(snapshot)
    for i, n in enumerate((16, 16, 8)):
        expected = plain_samples(unet, n, stage, seed_for(0, "bank", i), "fp32")
        assert np.array_equal(found[16 * i : 16 * i + n], expected)
    assert c.get(Samples).shape == (40, 1, 16, 16, 3)


@pytest.mark.slow
def test_samples_side_by_side_are_those_that_one_makes_alone(home, monkeypatch, threads):
    threads(1)
    alone = np.array(Companion("smoke", 0, SMALL).get(Samples))
    monkeypatch.setenv("CLSP_HOME", str(home / "other"))
    c = Companion("smoke", 0, SMALL)
    c.artifact(DiffusionModel)
    threads(2)
    assert np.array_equal(alone, c.get(Samples))


@pytest.mark.slow
def test_the_study_has_a_row_per_moment_and_seed_and_shares_the_end(home):
    c = Companion("smoke", 0, SMALL)
    table = over_training(c, ["CLSP-SimCLR"])
    seeds = range(c.cfg.study.seeds)
    expected = [(share, seed) for share in (*SNAPSHOTS, 1.0) for seed in seeds]
    assert list(zip(table["share"], table["seed"])) == expected
    assert table[["linear", "knn", "agreement"]].stack().between(0, 1).all()
    made = {path.name for path in (home / "artifacts" / "pretrain").glob("[0-9a-f]*")}
    for seed in seeds:  # as notebook 05 asks for them
        assert c.stage(Pretrained, method="CLSP-SimCLR", seed=seed).request.key in made


def test_only_methods_that_see_candidates_are_asked_for_their_quality():
    with pytest.raises(ConfigError, match="quality_methods=.*'SimCLR' does not"):
        Profile("smoke", {"study.quality_methods": ("CLSP-SimCLR", "SimCLR")})
