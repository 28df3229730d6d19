"""The door of notebooks: what is stored is not made again, and where figures go."""

import re

import numpy as np
import pytest
from least_work import FP32, QUICK, equal

from clsp_utils import contrastive, diffusion, evaluation, positives
from clsp_utils.config import ConfigError
from clsp_utils.evaluation import Judge
from clsp_utils.pipeline import (
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Profile,
    Scores,
    StudySamples,
    compared_runs,
)
from clsp_utils.positives import interpolate
from clsp_utils.runtime import device, resolve_precision


def samples_of(c, mix_weight):
    cfg, eta = c.cfg.study, c.cfg.candidates.eta
    how = {"k": 1, "steps": cfg.steps, "eta": eta, "n": len(c.study_images)}
    return c.get(StudySamples, mix_weight=mix_weight, mix_below=1000, mix_skips=0, **how)


def test_a_second_companion_finds_everything_in_the_store(home, monkeypatch):
    def ask():
        c = Companion("smoke", 0, QUICK)
        scores = {
            (method, seed): c.get(Scores, method=method, seed=seed)
            for method in ("SimCLR", "CLSP-SimCLR")
            for seed in (0, 1)
        }
        arrays = (
            np.array(c.get(InterpolatedBank)),
            samples_of(c, 0.5),
            c.judge.classify(c.data.test.images),
        )
        return scores, arrays, (c.unet, c.get(Pretrained, method="SimCLR"))

    scores, arrays, networks = ask()
    c = Companion("smoke", 0, QUICK)
    train, test = c.data.train, c.data.test
    assert arrays[0].shape == (len(train), 1, *train.images.shape[1:])
    assert arrays[1].shape == (len(c.study_images), 1, *test.images.shape[1:])
    assert arrays[2].shape == (len(test),)
    assert all(0 <= row[name] <= 1 for row in scores.values() for name in ("linear", "knn"))

    def refuse(*args, **kwargs):
        raise AssertionError("made again")

    for room, name in (
        (diffusion, "train"), (positives, "fill_bank"), (positives, "interpolate"),
        (contrastive, "pretrain"), (evaluation, "score"),
    ):  # fmt: skip
        monkeypatch.setattr(room, name, refuse)
    again, same_arrays, same_networks = ask()
    assert again == scores
    assert all(map(np.array_equal, same_arrays, arrays))
    assert all(map(equal, same_networks, networks))
    with pytest.raises(AssertionError, match="made again"):
        Companion("smoke", 1, QUICK).artifact(DiffusionModel)


def test_samples_of_the_study_are_candidates_of_its_first_images(home):
    c = Companion("smoke", 0, QUICK)
    images = c.study_images.images[:5]
    how = {"mix_weight": 0.5, "mix_skips": 0, "k": 2, "steps": 4, "eta": 0.5, "n": 5}
    found = {below: c.get(StudySamples, mix_below=below, **how) for below in (1000, 600)}
    for below, samples in found.items():
        assert np.array_equal(
            samples, interpolate(c.unet, images, 0.5, below, 2, 4, 0.5, 0, "fp32")
        )
    assert not np.array_equal(*found.values())


def test_an_array_of_a_notebook_is_made_once_for_its_settings(home):
    made = []

    def ask(name="read-outs", settings=None, overrides=None, seed=0):
        c = Companion("smoke", seed, QUICK | (overrides or {}))

        def make():
            made.append(c.unet)
            return np.arange(len(made))

        return c.cached(name, settings or {"t": 50}, make)

    assert np.array_equal(ask(), [0]) and np.array_equal(ask(), [0]) and len(made) == 1
    ask(overrides={"simclr.lr": 0.3})  # is not what it is computed from
    assert len(made) == 1
    ask(name="others"), ask(settings={"t": 51}), ask(overrides={"diffusion.steps": 3}), ask(seed=1)
    assert np.array_equal(ask(settings={"t": 51}), np.arange(3)) and len(made) == 5


def test_results_are_loaded_from_the_artifact(home):
    c = Companion("smoke", 0, QUICK)
    artifact = c.artifact(DiffusionModel)
    assert artifact.path.parent == home / "artifacts" / "diffusion"
    assert artifact.key == c.stage(DiffusionModel).request.key
    assert equal(c.get(DiffusionModel), c.unet) and c.unet is c.unet
    assert not c.unet.training
    scores = [c.stage(Scores, method="SimCLR", seed=seed) for seed in (0, 1)]
    assert c.get_all(scores, "runs") == [c.get(Scores, method="SimCLR", seed=s) for s in (0, 1)]


def test_the_judge_is_the_supervised_encoder(home):
    c = Companion("smoke", 0, QUICK)
    assert isinstance(c.judge, Judge) and c.judge is c.judge
    assert equal(c.judge.network, c.get(Pretrained, method="supervised"))
    assert c.judge.statistics == c.data.statistics and c.judge.precision == "fp32"


@pytest.mark.parametrize(
    ("profile", "seed", "overrides", "folder"),
    [
        ("laptop", 0, "", "figures"),
        ("laptop", 0, {"candidates.k": Profile("laptop").candidates.k}, "figures"),
        ("laptop", 1, "", "build/laptop/figures"),
        (
            "laptop",
            0,
            {"candidates.k": Profile("laptop").candidates.k + 1},
            "build/laptop/figures",
        ),
        ("laptop", 0, FP32, "build/laptop/figures"),
        ("smoke", 0, "", "build/smoke/figures"),
        ("smoke", 1, "", "build/smoke/figures"),
        ("paper", 0, "", "build/paper/cifar10/figures"),
    ],
)
def test_only_the_plain_laptop_profile_draws_into_figures_and_only_if_asked(
    home, monkeypatch, profile, seed, overrides, folder
):
    usual = "build/laptop/figures" if folder == "figures" else folder
    assert Companion(profile, seed, overrides).figures == home / usual
    monkeypatch.setenv("CLSP_REDRAW", "1")
    assert Companion(profile, seed, overrides).figures == home / folder


def test_only_smoke_runs_print_a_note(home):
    assert Companion("smoke").note == "smoke" and Companion("laptop").note == ""


def test_it_says_what_it_is_and_whose_numbers_they_are(home, capsys):
    c = Companion("smoke", 3, FP32)
    said = capsys.readouterr().out
    assert said == "profile smoke, seed 3, fp32, 1 threads.\n" and c.content == "digit"
    c = Companion("paper")
    said = capsys.readouterr().out
    assert said.startswith(f"profile paper, seed 0, {resolve_precision('auto')}, 1 threads.\n")
    assert "those of cifar10" in said and c.content == "class"
    assert c.precision == resolve_precision("auto")


def test_it_says_what_is_yet_to_be_made_and_how_long_that_takes(home, capsys):
    c = Companion("smoke", 0, QUICK)
    plan = [*compared_runs(c, ["CLSP-SimCLR"]), c.stage(Pretrained, method="supervised")]

    def told():
        capsys.readouterr()
        c.outlook(plan)
        *lines, last = capsys.readouterr().out.splitlines()
        assert "Interrupt" in last or not lines
        return lines or [last]

    kinds = [
        "1 x diffusion",
        "1 x candidates",
        "2 x pretrain CLSP-SimCLR",
        "1 x pretrain supervised",
    ]
    assert told() == [f"to make: {kind}" for kind in kinds]
    c.pipeline.announce = True
    c.get(Pretrained, method="supervised")
    lines = told()
    assert [line.split(", about ")[0] for line in lines] == [f"to make: {one}" for one in kinds[:3]]
    if device().type == "cpu":  # elsewhere a trial would compile the networks
        assert all(re.fullmatch(r".*, about \d+\.\d min here", line) for line in lines)
    assert {path.parents[1].name for path in home.rglob("manifest.json")} == {"pretrain"}
    c.pipeline.announce = False
    c.get_all(plan, "runs")
    assert told() == ["All that takes long is in the store."]


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "one", None])
def test_a_seed_that_cannot_be_used_is_named(home, seed):
    with pytest.raises(ConfigError, match="seed"):
        Companion("smoke", seed)


def test_the_last_seed_of_the_study_must_be_one_too(home):
    with pytest.raises(ConfigError, match="seed \\+ study.seeds"):
        Companion("smoke", 2**31 - 1)


def test_study_is_the_same_part_of_the_test_split_each_time(home):
    a, b = Companion("smoke", 0, FP32), Companion("smoke", 1, FP32)
    assert len(a.study_images) == a.cfg.study.samples
    assert np.array_equal(a.study_images.images, b.study_images.images)
    rows = {image.tobytes() for image in a.data.test.images}
    assert all(image.tobytes() in rows for image in a.study_images.images)


def test_every_class_has_its_share_of_the_study_and_the_first_images_are_of_all(home):
    c = Companion("smoke", 0, FP32)
    for n in (10, len(c.study_images)):
        counts = np.bincount(c.data.study_images(n).labels, minlength=10)
        assert counts.sum() == n and counts.max() - counts.min() <= 1
    assert np.array_equal(c.data.study_images(10).images, c.study_images.images[:10])
