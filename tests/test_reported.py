import pytest

from clsp_utils import config
from clsp_utils.methods import METHODS
from clsp_utils.reported import beside_the_paper, reported_results
from clsp_utils.runner import assign, find_notebooks, parse_parameters


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    return tmp_path


def test_reported_results_are_percent_and_of_known_methods():
    table = reported_results()
    assert list(table.columns) == ["source", "dataset", "method", "backbone", "top1"]
    assert set(table["method"]) <= set(METHODS) and {"SimCLR", "CLSP-SimCLR", "NNCLR"} < set(table["method"])
    assert table["top1"].between(0, 100).all() and table["top1"].gt(1).all()
    assert not table.duplicated(["source", "dataset", "method", "backbone"]).any()


def test_the_table_beside_the_paper_names_the_command_until_there_is_a_result(home):
    table = beside_the_paper()
    row = table.loc["CIFAR10", "CLSP-SimCLR"]
    assert row["poster"] == 94.37 and row["ours"] == "" and "data.name=cifar10" in row["command"]
    # ResNet-18 on 32 pixels: 0.56 G multiply-adds, a published number.
    expected = 50_000 * 1000 * 3 * 3 * 2 * 0.56e9 / 1e14 / 3600
    assert float(row["gpu_hours_a_run"]) == pytest.approx(expected, rel=0.05)
    folder = home / "build" / "paper" / "cifar10" / "figures"
    folder.mkdir(parents=True)
    (folder / "06_evaluate.csv").write_text("method,seeds,linear,linear_half_width\nCLSP-SimCLR,3,0.94,0.002\n")
    table = beside_the_paper()
    assert table.loc["CIFAR10", "CLSP-SimCLR"]["ours"] == "94.00 ± 0.20 (3 seeds)"
    assert table.loc["CIFAR10", "CLSP-SimCLR"]["command"] == "" and table.loc["CIFAR10", "SimCLR"]["command"]


def test_each_command_is_accepted_and_runs_the_method_of_its_row(home):
    for (dataset, method), row in beside_the_paper().iterrows():
        _, _, _, _, notebook, _, profile, *rest = row["command"].split()
        pairs = parse_parameters([word for word in rest if word != "-p"])
        (own,) = assign(find_notebooks(config.home("notebooks"), [notebook]), profile, pairs)
        cfg = config.profile(profile, own["overrides"], own.get("data", ""))
        assert method in cfg.study.methods and cfg.data.name == dataset.lower()
        # Settings of the paper: no max-pool at 32 pixels, one at 64.
        assert cfg.simclr.encoder.max_pool == cfg.moco.encoder.max_pool == (cfg.data.size == 64)
        assert cfg.data.size == (32 if dataset.startswith("CIFAR") else 64)
