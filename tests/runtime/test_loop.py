"""The learning rate of every loop, and its log."""

import csv
import math

import pytest
import torch

from clsp_utils.runtime import set_lr, warmup_constant, warmup_cosine, write_log


@pytest.mark.parametrize(
    "step, total, warmup, expected",
    [
        (0, 100, 9, 0.1),  # not 0: the first step does something
        (8, 100, 9, 0.9),
        (10, 110, 10, 1.0),
        (60, 110, 10, 0.5),
        (35, 110, 10, 0.5 + math.sqrt(0.5) / 2),
        (110, 110, 10, 0.0),
        (0, 100, 0, 1.0),
        (100, 100, 0, 0.0),
    ],
)
def test_warmup_cosine_at_known_points(step, total, warmup, expected):
    assert warmup_cosine(step, total, warmup) == pytest.approx(expected)


@pytest.mark.parametrize("total, warmup", [(50, 0), (50, 7.5), (50, 49), (3, 10)])
def test_warmup_cosine_rises_then_falls(total, warmup):
    factors = [warmup_cosine(step, total, warmup) for step in range(total)]
    top = min(math.ceil(warmup), total - 1)
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(
        factors[top:], reverse=True
    )
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_warmup_constant_rises_as_the_cosine_does_and_stays(warmup):
    for step in range(warmup):
        assert warmup_constant(step, warmup) == warmup_cosine(step, 50, warmup)
    assert {warmup_constant(step, warmup) for step in range(warmup, 50)} == {1.0}


def test_set_lr_sets_every_group():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": p} for p in parameters], lr=1.0)
    set_lr(optimizer, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_a_group_can_learn_faster_by_a_factor_of_its_own():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": parameters[0]}, {"params": parameters[1], "lr_factor": 20.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for lr in (0.5, 0.25):  # it is no factor of what was there before
        set_lr(optimizer, lr)
        assert [group["lr"] for group in optimizer.param_groups] == [lr, 20 * lr]


FURTHER = {
    "nothing": ({}, [[], [], []]),
    "a score now and then": (
        {"knn": torch.tensor([0.25, math.nan])},
        [["knn"], ["0.2500"], [""]],
    ),
    "two columns": (
        {"spread": torch.tensor([0.987, 0.0]), "knn": torch.tensor([math.nan, -0.5])},
        [["spread", "knn"], ["0.9870", ""], ["0.0000", "-0.5000"]],
    ),
}


@pytest.mark.parametrize("name", FURTHER)
def test_the_log_has_a_row_per_epoch_and_leaves_empty_what_is_not_known(tmp_path, name):
    further, last = FURTHER[name]
    losses = torch.tensor([1.0, 2, 3, 5, 7])
    write_log(tmp_path / "log.csv", 4, 3, losses, lambda step: step / 10, further)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.reader(file))
    expected = [["epoch", "loss", "lr"], ["1", "2.00000", "0.2"], ["2", "6.00000", "0.4"]]
    assert rows == [row + more for row, more in zip(expected, last, strict=True)]


def test_the_log_has_no_row_of_an_epoch_that_is_still_to_come(tmp_path):
    spread = torch.tensor([0.5, math.nan, math.nan])
    write_log(tmp_path / "log.csv", 1, 2, torch.ones(6), lambda step: 0.1, {"spread": spread})
    rows = (tmp_path / "log.csv").read_text().split()
    assert rows == ["epoch,loss,lr,spread", "1,1.00000,0.1,0.5000"]
