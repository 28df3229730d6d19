"""What the authors report: a table of percents."""

import math

from clsp_utils.config import METHODS, TransferName
from clsp_utils.evaluation import reported_curves, reported_results, reported_transfer


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


def test_reported_transfer_is_in_percent_and_of_known_methods_and_sets():
    table = reported_transfer()
    assert list(table.columns) == [
        "source", "trained_on", "dataset", "method", "backbone", "score",
    ]  # fmt: skip
    assert set(table.method) == {"NNCLR", "All4One", "CLSP-SimCLR", "CLSP-MoCoV2"} <= set(METHODS)
    assert set(table.dataset) <= set(TransferName.__args__)
    assert set(table.trained_on) == {"STL10"} and table.score.between(1, 100).all()
    assert len(table) == 6 * 4 and not table.duplicated(["dataset", "method"]).any()
    scores = table.set_index(["dataset", "method"]).score
    assert scores["cifar10", "CLSP-MoCoV2"] == 86.58 and scores["flowers", "NNCLR"] == 61.93


# Training curves ----------------------------------------------------------------------------------


def curve(what, *run):
    table = reported_curves().set_index(["what", "dataset", "backbone", "method"]).sort_index()
    return table.loc[(what, *run)].set_index("epoch").value


def test_curves_are_of_known_methods_and_within_their_ranges():
    table = reported_curves()
    assert list(table.columns) == ["method", "dataset", "backbone", "epoch", "what", "value"]
    assert set(table.method) <= set(METHODS) and table.epoch.between(0, 1000).all()
    assert not table.duplicated(["method", "dataset", "backbone", "epoch", "what"]).any()
    values = table.groupby("what").value
    assert set(values.groups) == {"linear_top1", "contrastive_loss", "clsp_loss"}
    assert values.min()["linear_top1"] > 40 and values.max()["linear_top1"] < 100
    assert values.min()["clsp_loss"] >= 0 and values.max()["clsp_loss"] < 4


def test_the_gain_over_the_third_view_at_the_end_of_the_curves():
    for base, control, gain, of_control in (
        ("SimCLR", "third view", 2.57, 0.34),
        ("MoCoV2", "third view MoCoV2", 1.46, 0.87),
    ):
        end, third, before = (
            curve("linear_top1", "CIFAR10", "ResNet18", name)[1000]
            for name in (f"CLSP-{base}", control, base)
        )
        assert round(end - third, 2) == gain and round(third - before, 2) == of_control
    reported = reported_results().query('source == "authors\' curves"')
    for row in reported.itertuples():
        assert curve("linear_top1", row.dataset, row.backbone, row.method)[1000] == row.top1


def test_resnet_50_stays_at_the_loss_of_a_constant_encoder():
    run = "CIFAR10", "ResNet50", "CLSP-SimCLR"
    nt_xent, term = curve("contrastive_loss", *run), curve("clsp_loss", *run)
    collapsed = nt_xent.loc[2:48]
    assert len(collapsed) == 24 and (collapsed - math.log(2 * 1024 - 1)).abs().max() < 0.001
    assert term.loc[2:48].max() < 0.001 and term[50] > 0.1
    assert curve("clsp_loss", "CIFAR10", "ResNet18", "CLSP-SimCLR").loc[2:].min() > 0.05
