"""Tables over methods and settings, and the one that puts our results beside the paper's."""

from io import StringIO
from typing import ClassVar

import pytest
from least_work import QUICK

from clsp_utils.book.run_notebooks import assign, find_notebooks, parse_parameters
from clsp_utils.config import ConfigError, home
from clsp_utils.pipeline import (
    ClassBank,
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Profile,
    Scores,
    beside_the_paper,
    comparison,
    sweep,
)

COMPARED = Profile("smoke").study.methods


class Made:
    """An artifact of an encoder that did not collapse."""

    manifest: ClassVar = {"seconds": 1.0}

    def __truediv__(self, name):
        return StringIO("epoch,spread\n1,0.9\n")


@pytest.fixture
def project(home):
    """The empty folder in the place of the project's."""
    return home


@pytest.mark.slow
def test_comparison_and_sweep_have_a_row_per_run(project):
    c = Companion("smoke", 0, QUICK)
    table = comparison(c, COMPARED)
    assert sorted(zip(table["method"], table["seed"])) == sorted(
        (method, seed) for method in COMPARED for seed in range(c.cfg.study.seeds)
    )
    assert table[["linear", "knn"]].stack().between(0, 1).all() and (table["seconds"] > 0).all()
    by_weight = sweep(c, "mix_weight", (0.0, 1.0))
    assert by_weight["mix_weight"].tolist() == [
        w for w in (0.0, 1.0) for _ in range(c.cfg.study.sweep_seeds)
    ]
    assert by_weight["agreement"].between(0, 1).all()


def test_a_row_is_that_of_its_encoder(project):
    c = Companion("smoke", 0, QUICK)
    table = comparison(c, ["SimCLR"], epochs=2)
    assert table.columns.tolist() == ["method", "seed", "model", "linear", "knn", "k", "seconds"]
    found = {path.name for path in (project / "artifacts" / "pretrain").glob("[0-9a-f]*")}
    longer = Companion("smoke", 0, QUICK | {"simclr.epochs": 2})
    asked = [longer.stage(Pretrained, method="SimCLR", seed=seed) for seed in (0, 1)]
    assert found == {one.request.key for one in asked} and set(table["model"]) == {0}
    seconds = [longer.pipeline.artifact(one).manifest["seconds"] for one in asked]
    assert table["seconds"].tolist() == seconds


@pytest.mark.parametrize("field, values", [("weight", (0.0, 2.0)), ("k", (1, 2))])
def test_a_sweep_changes_what_it_says(project, field, values):
    c = Companion("smoke", 0, QUICK)
    table = sweep(c, field, values)
    assert table[field].tolist() == list(values) and set(table["method"]) == {"CLSP-SimCLR"}
    name = {"weight": "simclr.third_view.weight", "k": "candidates.k"}[field]
    one_by_one = [Companion("smoke", 0, QUICK | {name: value}) for value in values]
    expected = {one.stage(Pretrained).request.key for one in one_by_one}
    found = {path.name for path in (project / "artifacts" / "pretrain").glob("[0-9a-f]*")}
    judge = c.stage(Pretrained, method="supervised").request.key
    assert found == expected | {judge}
    labels = c.data.train.labels
    for i, one in enumerate(one_by_one):
        agreement = c.judge.agreement(one.get(InterpolatedBank)[:, 0], labels)
        assert table["agreement"][i] == agreement


def test_a_sweep_over_anything_else_is_refused(project):
    with pytest.raises(ConfigError, match="field='lr': use one of mix_weight, k, weight"):
        sweep(Companion("smoke", 0, QUICK), "lr", (0.1,))


# Several diffusion models -------------------------------------------------------------------------


@pytest.fixture
def asked(project, monkeypatch):
    """`asked(seed, seeds=3)`: a companion that makes nothing, and the runs that it is asked for."""

    def companion(seed, **study):
        overrides = QUICK | {f"study.{name}": value for name, value in study.items()}
        c, runs = Companion("smoke", seed, overrides), []

        def get_all(stages, what):
            runs.extend(stages)
            return [{"linear": 0.5, "knn": 0.5, "k": 5}] * len(stages)

        monkeypatch.setattr(c, "get_all", get_all)
        monkeypatch.setattr(c.pipeline, "artifact", lambda stage: Made())
        return c, runs

    return companion


@pytest.mark.parametrize(
    ("seed", "models", "expected"),
    [(0, 1, [0, 0, 0]), (0, 2, [0, 1, 0]), (5, 2, [5, 6, 5]), (5, 3, [5, 6, 7])],
)
def test_seeds_take_the_banks_of_the_diffusion_models_in_turn(asked, seed, models, expected):
    c, runs = asked(seed, seeds=3, models=models)
    methods = ["SimCLR", "CLSP-SimCLR", "CLSP-MoCoV2", "class positives"]
    table = comparison(c, methods, epochs=3)
    seeds = range(seed, seed + 3)
    assert table["method"].tolist() == methods * 3
    assert table["seed"].tolist() == [one for one in seeds for _ in methods]
    assert table["model"].tolist() == [model for model in expected for _ in methods]
    kinds = {"CLSP-SimCLR": InterpolatedBank, "CLSP-MoCoV2": InterpolatedBank}
    kinds |= {"class positives": ClassBank}
    for run, (_, row) in zip(runs, table.iterrows(), strict=True):
        encoder = run.encoder
        assert encoder.method == row["method"] and encoder.settings.epochs == 3
        assert run.seed == encoder.seed == row["seed"]
        if kind := kinds.get(row["method"]):
            # All of the bank is that of the other seed, as if it had been asked for there.
            assert encoder.bank == c.cfg.of_seed(row["model"]).stage(kind)
            assert type(encoder.bank) is kind
            assert encoder.bank.seed == encoder.bank.unet.seed == row["model"]
        else:
            assert encoder.bank is None


def test_the_number_of_models_changes_no_run_that_sees_no_other_model(asked):
    keys = {}
    for models in (1, 2):
        c, runs = asked(0, seeds=2, models=models)
        comparison(c, ["SimCLR", "CLSP-SimCLR"])
        keys[models] = {(run.encoder.method, run.seed): run.request.key for run in runs}
        assert runs[0] == c.stage(Scores, method="SimCLR", seed=0)
    changed = {run for run, key in keys[1].items() if keys[2][run] != key}
    assert keys[1].keys() == keys[2].keys() and changed == {("CLSP-SimCLR", 1)}


def test_a_comparison_over_two_models_trains_them(project):
    c = Companion("smoke", 0, QUICK | {"study.models": 2})
    table = comparison(c, ["CLSP-SimCLR"])
    assert table["model"].tolist() == table["seed"].tolist() == [0, 1]
    found = {path.name for path in (project / "artifacts" / "diffusion").glob("[0-9a-f]*")}
    models = [Companion("smoke", seed, QUICK).stage(DiffusionModel) for seed in (0, 1)]
    assert found == {model.request.key for model in models}


def test_more_models_than_seeds_are_refused(project):
    with pytest.raises(ConfigError, match="models=3 must be at most seeds=2"):
        Companion("smoke", 0, QUICK | {"study.models": 3})


# Beside the paper ---------------------------------------------------------------------------------


def test_the_table_beside_the_paper_names_the_command_until_there_is_a_result(project):
    table = beside_the_paper()
    row = table.loc["CIFAR10", "CLSP-SimCLR"]
    assert row["poster"] == 94.37 and row["ours"] == "" and "data.name=cifar10" in row["command"]
    assert row["poster_evaluated"] == "offline linear, authors"
    assert table.loc["CIFAR10", "NNCLR"]["poster_evaluated"] == "online, other recipe"
    assert table.loc["CIFAR10", "third view"]["authors' curves"] == 91.88
    # ResNet-18 on 32 pixels: 0.56 G multiply-adds, a published number.
    expected = 50_000 * 1000 * 3 * 3 * 2 * 0.56e9 / 1e14 / 3600
    assert float(row["gpu_hours_a_run"]) == pytest.approx(expected, rel=0.05)
    folder = project / "build" / "paper" / "cifar10" / "figures"
    folder.mkdir(parents=True)
    (folder / "06_evaluate.csv").write_text(
        "method,seeds,linear,linear_half_width\nCLSP-SimCLR,3,0.94,0.002\n"
    )
    table = beside_the_paper()
    assert table.loc["CIFAR10", "CLSP-SimCLR"]["ours"] == "94.00 ± 0.20 (3 seeds)"
    assert table.loc["CIFAR10", "CLSP-SimCLR"]["command"] == ""
    assert table.loc["CIFAR10", "SimCLR"]["command"]


def test_each_command_is_accepted_and_runs_the_method_of_its_row(project):
    for (dataset, method), row in beside_the_paper().iterrows():
        _, _, _, _, notebook, _, profile, *rest = row["command"].split()
        pairs = parse_parameters([word for word in rest if word != "-p"])
        (own,) = assign(find_notebooks(home("notebooks"), [notebook]), profile, pairs)
        cfg = Profile(profile, own["overrides"], own.get("data", ""))
        assert method in cfg.study.methods and cfg.data.name == dataset.lower()
        # Settings of the paper: no max-pool at 32 pixels, one at 64.
        max_pool = cfg.data.size == 64
        assert cfg.simclr.backbone.max_pool == cfg.moco.backbone.max_pool == max_pool
        assert cfg.data.size == (32 if dataset.startswith("CIFAR") else 64)
