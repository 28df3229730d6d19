"""Tables of transfer and of measures, and the paper's beside ours."""

import pandas as pd
import pytest
from least_work import QUICK

from clsp_utils.book.run_notebooks import assign, find_notebooks, parse_parameters
from clsp_utils.config import ConfigError
from clsp_utils.config import home as home_of
from clsp_utils.pipeline import (
    TRANSFER_COMMAND,
    Companion,
    Profile,
    measured,
    transfer_beside_the_paper,
    transferred,
)
from clsp_utils.pipeline.transfer_study import REFERENCES, _encoder

METHODS = ("SimCLR", *REFERENCES)


@pytest.fixture
def c(home):
    return Companion("smoke", 0, QUICK | {"study.transfer": ("printed", "waves")})


def test_transfer_has_a_row_per_run_and_set(c):
    table = transferred(c, METHODS)
    assert list(table.columns) == ["set", "method", "seed", "model", "score", "c"]
    seeds = range(c.cfg.study.seeds)
    expected = {(n, m, s) for n in ("printed", "waves") for m in METHODS for s in seeds}
    assert set(zip(table["set"], table.method, table.seed)) == expected
    assert len(table) == len(expected) and table.score.between(0, 1).all()
    assert set(table.c) <= {1e-4, 10.0}
    again = transferred(c, METHODS)
    pd.testing.assert_frame_equal(table, again)


def test_measures_have_a_row_per_run(c):
    table = measured(c, METHODS)
    assert list(table.columns)[:5] == ["method", "seed", "model", "linear", "top5"]
    assert {"linear_0.01", "linear_0.1", "rank_me", "alignment", "uniformity"} <= set(table.columns)
    assert len(table) == len(METHODS) * c.cfg.study.seeds and not table.isna().any().any()


def test_the_references_are_on_the_budget_of_simclr(c):
    simclr = c.cfg.simclr
    supervised, untrained = (_encoder(c, method, 1) for method in REFERENCES)
    assert supervised.method == "supervised" and untrained == _encoder(c, "SimCLR", 1)
    for name in ("backbone", "views", "epochs", "batch"):
        assert getattr(supervised.settings, name) == getattr(simclr, name)
    assert supervised.settings.lr == c.cfg.classifier.lr


def test_a_set_that_the_encoders_are_trained_on_is_left_out(c, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Companion, "get_all", lambda self, stages, what: [seen.append(x) or {} for x in stages]
    )
    given = {"data.name": "cifar10", "study.transfer": ("cifar10", "letters")}
    other = Companion("smoke", 0, QUICK | given)
    table = transferred(other, ("SimCLR",))
    assert set(table["set"]) == {"letters"} and {x.images.name for x in seen} == {"letters"}
    alone = Companion("smoke", 0, given | {"study.transfer": ("cifar10",)})
    with pytest.raises(ConfigError, match="must name another data set than 'cifar10'"):
        transferred(alone, ("SimCLR",))


def test_the_papers_table_has_ours_beside_it_once_there_is_one(home):
    table = transfer_beside_the_paper()
    assert table.loc["cifar10", "CLSP-SimCLR"].poster == 84.98
    assert len(table) == 24 and (table.ours == "").all()
    folder = home / "build" / "paper" / "stl10" / "figures"
    folder.mkdir(parents=True)
    (folder / "09_transfer.csv").write_text(
        "set,method,seeds,score,half_width\ncifar10,CLSP-SimCLR,3,0.84,0.002\nfood101,SimCLR,3,0.5,0.1\n"
    )
    table = transfer_beside_the_paper()
    assert table.loc["cifar10", "CLSP-SimCLR"].ours == "84.00 ± 0.20 (3 seeds)"
    assert table.loc["food101", "SimCLR"].ours == "50.00 ± 10.00 (3 seeds)"
    assert pd.isna(table.loc["food101", "SimCLR"].poster) and len(table) == 25


def test_the_command_of_the_papers_table_is_accepted():
    _, _, _, _, notebook, _, profile, *rest = TRANSFER_COMMAND.split()
    pairs = parse_parameters([word for word in rest if word != "-p"])
    (own,) = assign(find_notebooks(home_of("notebooks"), [notebook]), profile, pairs)
    cfg = Profile(profile, own["overrides"])
    assert cfg.data.name == "stl10" and cfg.transfer.path == "FOLDER"
    assert set(transfer_beside_the_paper().index.get_level_values(0)) <= set(cfg.study.transfer)
    assert {"CLSP-SimCLR", "CLSP-MoCoV2", "NNCLR", "All4One"} <= set(cfg.study.methods)
