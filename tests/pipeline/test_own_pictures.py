"""A folder in, an encoder out: settings that fit, time that is told before, and the card."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from least_work import FP32, QUICK
from PIL import Image

from clsp_utils.config import METHODS, ConfigError
from clsp_utils.contrastive import load_exported
from clsp_utils.data import DataError, Survey, survey
from clsp_utils.pipeline import (
    Companion,
    DiffusionModel,
    InterpolatedBank,
    PictureFolder,
    Pretrained,
    Profile,
    Scores,
    Stage,
    companion_of,
    export_encoder,
    fitting,
)
from clsp_utils.pipeline.own_pictures import FEWEST, OF_A_FOLDER


def save_pictures(folder, n, side=16, seed=0, names=("cat", "dog")):
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def of(n, side):
    """A folder of n pictures, as it is found."""
    files = {"file": [f"{i}.png" for i in range(n)], "width": side, "height": side + 7}
    return Survey(Path("/pictures"), pd.DataFrame(files).assign(skipped=""))


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["laptop", "gpu", "paper"])
@pytest.mark.parametrize("n", [FEWEST, 500, 5000, 200_000])
@pytest.mark.parametrize("side", [9, 32, 64, 3000])
def test_settings_fit_any_folder_and_are_allowed(profile, n, side):
    settings, plain = fitting(profile, of(n, side)), Profile(profile)
    fitted = Profile(profile, settings | OF_A_FOLDER, "/pictures")
    assert fitted.data.size in (16, 32, 64) and not fitted.diffusion.source
    assert fitted.diffusion.steps <= plain.diffusion.steps
    assert fitted.diffusion.warmup <= fitted.diffusion.steps // 10
    assert fitted.simclr.batch <= plain.simclr.batch
    assert plain.simclr.epochs <= fitted.simclr.epochs <= 10 * plain.simclr.epochs


def test_few_pictures_get_fewer_steps_and_more_of_all_else():
    few, many = (Profile("laptop", fitting("laptop", of(n, 16))) for n in (200, 2000))
    assert few.diffusion.steps < many.diffusion.steps
    assert few.candidates.k > many.candidates.k
    assert few.simclr.epochs > many.simclr.epochs and few.simclr.batch < many.simclr.batch


def test_as_many_pictures_as_usual_are_trained_on_as_usual():
    plain = Profile("laptop")
    fitted = fitting("laptop", of(round(3891 / 0.8), 16))
    assert fitted["diffusion.steps"] == plain.diffusion.steps
    assert fitted["pretrain.epochs"] == plain.simclr.epochs
    assert fitted["pretrain.batch"] == plain.simclr.batch
    assert fitted["candidates.k"] == plain.candidates.k and fitted["data.size"] == 16


@pytest.mark.parametrize("side, size, levels", [(10, 16, 2), (31, 16, 2), (32, 32, 3)])
def test_the_middle_of_the_unet_has_as_many_pixels_at_every_size(side, size, levels):
    fitted = Profile("laptop", fitting("laptop", of(100, side)))
    assert fitted.data.size == size and len(fitted.diffusion.unet.channels) == levels


def test_smoke_stays_as_it_is():
    assert fitting("smoke", of(100, 300)) == {}


@pytest.mark.parametrize("n", [1, FEWEST - 1])
@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_too_few_pictures_are_refused(profile, n):
    with pytest.raises(DataError, match=rf"^/pictures: {n} picture") as refusal:
        fitting(profile, of(n, 16))
    assert re.fullmatch(r"[^\n]+\.", str(refusal.value))


def test_what_a_reader_sets_counts_more(home, tmp_path):
    found = survey(save_pictures(tmp_path / "pictures", 20))
    given = FP32 | {"pretrain.epochs": 3, "data.size": 8, "data.name": "digits"}
    c = companion_of(found, "laptop", 0, given)
    assert c.cfg.simclr.epochs == 3 and c.data.size == 8 and c.cfg.precision == "fp32"
    assert c.cfg.diffusion.steps == fitting("laptop", found)["diffusion.steps"]
    assert c.data.name == "folder" and c.data.train.class_names == ("cat", "dog")


def test_a_path_alone_is_a_folder_of_pictures(tmp_path):
    assert Profile("laptop", "", "/x").data.name == "folder"
    assert Profile("smoke", {"candidates.k": 3}, "/x").data.path == "/x"
    assert Profile("laptop", {"data.name": "cifar10"}, "/x").data.name == "cifar10"
    assert Profile("gpu", "", "/x").data.name == "cifar10"
    with pytest.raises(ConfigError, match="of no use to name='digits'"):
        Profile("laptop", {"data.name": "digits"}, "/x")


# Folders ------------------------------------------------------------------------------------------


def test_the_folder_that_is_written_is_made_once(home):
    c = Companion("smoke", 0, FP32)
    folder = c.get(PictureFolder)
    found = survey(folder, 16)
    assert len(found.used) > 400  # of all images, whatever the limit
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert Companion("smoke", 1, FP32).get(PictureFolder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert folder.is_relative_to(home / "artifacts" / "picture-folder")


def nothing(root):
    root.mkdir()


def one_picture(root):
    save_pictures(root, 1, names=("",))


def broken(root):
    nothing(root)
    for i in range(40):
        (root / f"{i}.png").write_text("no picture")


def a_class_of_one(root):
    save_pictures(root, 40, names=("cat",))
    save_pictures(root, 1, seed=1, names=("dog",))


def an_empty_class(root):
    save_pictures(root, 40, names=("cat", "dog"))
    (root / "fox").mkdir()


@pytest.mark.parametrize("make, said", [
    (nothing, "no image in it"), (one_picture, "1 picture"), (broken, "40 unreadable"),
    (a_class_of_one, "the smallest has 1"), (an_empty_class, "no image in fox"),
])  # fmt: skip
def test_folders_of_no_use_are_refused_before_anything_is_made(home, tmp_path, make, said):
    make(tmp_path / "pictures")
    with pytest.raises(DataError, match=said) as refusal:
        _ = companion_of(survey(tmp_path / "pictures"), "smoke", 0, FP32).data.train
    assert re.fullmatch(r"[^\n]+\.", str(refusal.value))
    assert not list(home.rglob("manifest.json"))


# Time ---------------------------------------------------------------------------------------------


def test_time_is_told_for_all_that_is_missing_and_nothing_is_made(home):
    c = Companion("smoke", 0, QUICK)
    plan = [c.stage(Pretrained, method="CLSP-SimCLR", seed=seed) for seed in (0, 1)]
    plan += [c.stage(Pretrained, method="SimCLR"), c.stage(Scores, method="SimCLR", seed=0)]
    costs = c.pipeline.estimate(plan)
    assert [(cost.stage, cost.runs) for cost in costs] == [
        ("diffusion", 1), ("candidates", 1), ("pretrain CLSP-SimCLR", 2), ("pretrain SimCLR", 1),
    ]  # fmt: skip
    assert all(np.isfinite(cost.minutes) for cost in costs)
    assert not list(home.rglob("manifest.json"))
    c.artifact(DiffusionModel)
    again = c.pipeline.estimate(plan)
    assert [cost.stage for cost in again] == [cost.stage for cost in costs[1:]]


def test_time_is_told_for_every_method_and_every_kind_of_stage_from_nothing(home):
    c = Companion("smoke", 0, QUICK)
    plan = [c.stage(Pretrained, method=method) for method in METHODS]
    costs = c.pipeline.estimate(plan)
    told = {cost.stage for cost in costs}
    assert told >= {f"pretrain {method}" for method in METHODS}
    long = {name for name, kind in Stage.kinds.items() if kind.n_steps is not Stage.n_steps}
    assert long - {"pretrain", "samples"} == told - {name for name in told if " " in name}
    assert all(np.isfinite(cost.minutes) for cost in costs)
    assert not list(home.rglob("manifest.json"))


def test_what_cannot_be_made_is_refused_before_it_is_timed(home, tmp_path):
    found = survey(save_pictures(tmp_path / "pictures", 40, names=("",)))
    c = companion_of(found, "smoke", 0, FP32)
    with pytest.raises(DataError, match="None of these images has a label"):
        c.pipeline.estimate([c.stage(Pretrained, method="supervised")])
    assert not list(home.rglob("manifest.json"))


# What is taken home -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["SimCLR", "CLSP-SimCLR"])
def test_an_exported_encoder_is_the_trained_one_with_its_card(home, tmp_path, method):
    found = survey(save_pictures(tmp_path / "pictures", 30))
    c = companion_of(found, "smoke", 0, QUICK)
    encoder = export_encoder(c, tmp_path / "out", method, {"knn": 0.5})
    trained = c.get(Pretrained, method=method).backbone.state_dict()
    for read in (encoder, load_exported(tmp_path / "out")):
        weights = read.backbone.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in trained.items())
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["training"]["method"] == method and card["scores"] == {"knn": 0.5}
    assert card["training"]["key"] == c.stage(Pretrained, method=method).request.key
    assert (card["candidates"] is None) == (card["diffusion"] is None) == (method == "SimCLR")
    assert card["data"]["class_names"] == ["cat", "dog"] and card["data"]["pictures"] == 48
    assert card["normalisation"]["mean"] == pytest.approx(c.data.statistics.mean)
    for path in (tmp_path / "out").glob("*.[jm]*"):
        assert str(tmp_path) not in path.read_text()


def test_a_bank_that_is_not_there_is_stood_in_for_by_images_of_its_shape(home):
    c = Companion("smoke", 0, QUICK)
    stage = c.stage(InterpolatedBank, k=3)
    bank = stage.stand_in()
    assert bank.shape == (256, 3, 16, 16, 3) and bank.dtype == np.uint8
    assert c.get(InterpolatedBank, k=3).shape == bank.shape
