"""What the authors report: a table of percents."""

from clsp_utils.config import METHODS
from clsp_utils.evaluation import reported_results


def test_reported_results_are_percent_and_of_known_methods():
    table = reported_results()
    assert list(table.columns) == [
        "source", "dataset", "method", "backbone", "top1", "evaluated",
    ]  # fmt: skip
    assert set(table["method"]) <= set(METHODS)
    assert {"SimCLR", "CLSP-SimCLR", "NNCLR"} < set(table["method"])
    assert table["top1"].between(0, 100).all() and table["top1"].gt(1).all()
    assert not table.duplicated(["source", "dataset", "method", "backbone"]).any()


def test_the_controls_and_the_class_positives_of_both_methods_are_reported():
    table = reported_results().query("backbone == 'ResNet18' and source != 'poster'")
    top1 = table.set_index(["dataset", "method"]).top1
    clsp = {"SimCLR": 94.45, "MoCoV2": 94.62}
    for base, control, gain in (
        ("SimCLR", "third view", 2.57),
        ("MoCoV2", "third view MoCoV2", 1.46),
    ):
        assert top1["CIFAR10", f"CLSP-{base}"] == clsp[base]
        assert round(clsp[base] - top1["CIFAR10", control], 2) == gain
    assert top1["CIFAR10", "class positives MoCoV2"] == 94.47
    assert top1["CIFAR100", "class positives MoCoV2"] == 73.06


def test_how_a_number_came_about():
    table = reported_results()
    online = table[table.evaluated == "online, other recipe"]
    assert set(online.source) == {"poster"} and set(online.dataset) == {"CIFAR10", "CIFAR100"}
    solo_learn = {
        "CIFAR10": {"MoCoV2": 92.94, "NNCLR": 91.88, "All4One": 93.24},
        "CIFAR100": {"SimCLR": 65.78, "MoCoV2": 69.89, "NNCLR": 69.62, "All4One": 72.17},
    }
    for dataset, values in solo_learn.items():
        part = online[online.dataset == dataset]
        assert dict(zip(part.method, part.top1)) == values
    ours = table[table.method.str.startswith("CLSP") | (table.source != "poster")]
    assert set(ours.evaluated) == {"offline linear, authors"}
    assert set(table.evaluated) - set(online.evaluated) - set(ours.evaluated) == {"not stated"}
