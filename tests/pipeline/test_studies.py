"""Tables over methods and settings, and the one that puts our results beside the paper's."""

import pytest
from least_work import QUICK

from clsp_utils.book.run_notebooks import assign, find_notebooks, parse_parameters
from clsp_utils.config import ConfigError, home
from clsp_utils.pipeline import (
    Companion,
    InterpolatedBank,
    Pretrained,
    Profile,
    beside_the_paper,
    comparison,
    sweep,
)

COMPARED = Profile("smoke").study.methods


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
    assert table.columns.tolist() == ["method", "seed", "linear", "knn", "k", "seconds"]
    found = {path.name for path in (project / "artifacts" / "pretrain").glob("[0-9a-f]*")}
    longer = Companion("smoke", 0, QUICK | {"simclr.epochs": 2})
    asked = [longer.stage(Pretrained, method="SimCLR", seed=seed) for seed in (0, 1)]
    assert found == {one.request.key for one in asked}
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
