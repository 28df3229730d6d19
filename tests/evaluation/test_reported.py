"""What the authors report: a table of percents."""

from clsp_utils.config import METHODS
from clsp_utils.evaluation import reported_results


def test_reported_results_are_percent_and_of_known_methods():
    table = reported_results()
    assert list(table.columns) == ["source", "dataset", "method", "backbone", "top1"]
    assert set(table["method"]) <= set(METHODS)
    assert {"SimCLR", "CLSP-SimCLR", "NNCLR"} < set(table["method"])
    assert table["top1"].between(0, 100).all() and table["top1"].gt(1).all()
    assert not table.duplicated(["source", "dataset", "method", "backbone"]).any()
