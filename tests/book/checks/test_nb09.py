"""The checks of notebook 09 on right answers, and on each mistake that they name."""

import numpy as np
import pytest
from sklearn.metrics import r2_score


@pytest.mark.parametrize(
    "top1, per_class, part",
    [
        (0.9, 0.5, "✓ 09.1: top-1 0.90, mean per class 0.50"),
        (0.9, None, "not yet"),
        (0.5, 0.9, "top-1: that is the mean per class"),
        (90, 50, "top-1: give a share in [0, 1], not percent"),
        (0.9, 50, "mean per class: give a share in [0, 1], not percent"),
        (0.8, 0.5, "count the images"),
        (0.9, 0.9, "the dogs count as much"),
        (0.9, 1.0, "the accuracy of the dogs"),
        (0.9, 0.45, "the number of classes"),
        (0.9, 0.7, "90 of 90 and 0 of 10"),
    ],
)
def test_two_accuracies(said, top1, per_class, part):
    assert part in said("09.1", {"top-1": top1, "mean per class": per_class})


def r2(y, p, mean=None, spread_of=None):
    spread_of = y if spread_of is None else spread_of
    mean = spread_of.mean(0) if mean is None else mean
    return 1 - ((y - p) ** 2).sum(0) / ((spread_of - mean) ** 2).sum(0)


def correlation(y, p):
    return np.mean([np.corrcoef(y[:, d], p[:, d])[0, 1] ** 2 for d in range(y.shape[1])])


@pytest.mark.parametrize(
    "answer, part",
    [
        (r2_score, "✓ 09.2: R² ="),
        (lambda y, p: r2(y, p).mean(), "negative"),
        (lambda y, p: None, "not yet"),
        (lambda y, p: 1 - r2(y, p).mean(), "1 minus it"),
        (lambda y, p: 1 - ((y - p) ** 2).sum() / ((y - y.mean(0)) ** 2).sum(), "of its own"),
        (lambda y, p: r2(y, p, mean=y.mean()).mean(), "over the rows"),
        (lambda y, p: r2(y, p, spread_of=p).mean(), "not of the predicted ones"),
        (correlation, "the squared correlation"),
        (lambda y, p: r2(y, p, mean=0).mean(), "not around 0"),
        (r2, "one number is asked for"),
        (lambda y, p: 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum(), "a mean and a"),
        (lambda y, p: max(0, r2(y, p).mean()), "do not cut it off"),
    ],
)
def test_r2(said, answer, part):
    assert part in said("09.2", answer)
