"""Checks of notebook 09: which accuracy a data set is scored by, and R²."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from clsp_utils.book.checks import NO_PERCENT, compare, entries, printed
from clsp_utils.evaluation import accuracy, mean_per_class


def two_accuracies(answer: Any) -> str:
    """09.1, top-1 and mean per class of a classifier that says "cat" to 90 cats and 10 dogs."""
    top1, per_class = entries(answer, "top-1", "mean per class")
    labels = torch.tensor([0] * 90 + [1] * 10)
    cat = torch.zeros(100, dtype=torch.int64)
    right = accuracy(cat, labels), mean_per_class(cat, labels)
    mistakes = {"that is the mean per class": right[1]}
    count = "count the images that are named rightly"
    compare(top1, right[0], mistakes, count, percent=NO_PERCENT, part="top-1")
    mistakes = {
        "the dogs count as much as the cats, and none is right": right[0],
        "the accuracy of the dogs belongs to the mean, too": 1.0,
        "divide the sum by the number of classes": 0.9 / 2,
    }
    mean = "the mean of 90 of 90 and 0 of 10"
    compare(per_class, right[1], mistakes, mean, percent=NO_PERCENT, part="mean per class")
    return f"top-1 {right[0]:.2f}, mean per class {right[1]:.2f}, which is guessing between two"


def r2(answer: Callable) -> str:
    """09.2, `(y, predicted) -> R2`, both `(N, D)`."""
    rng = np.random.default_rng(9)
    y = rng.normal([1.0, 5.0], [1.0, 3.0], size=(40, 2))
    predicted = y + rng.normal(0, [0.2, 2.0], size=(40, 2))
    missed, around = (y - predicted) ** 2, (y - y.mean(0)) ** 2
    right = (1 - missed.sum(0) / around.sum(0)).mean()
    mistakes = {
        "that is the share that is missed: 1 minus it": 1 - right,
        "each channel has a fraction of its own, and then comes the mean": (
            1 - missed.sum() / around.sum()
        ),
        "each channel has a mean and a fraction of its own, and then comes the mean of those": (
            1 - missed.sum() / ((y - y.mean()) ** 2).sum()
        ),
        "the mean of y is that of each channel, over the rows": (
            1 - (missed.sum(0) / ((y - y.mean()) ** 2).sum(0)).mean()
        ),
        "the spread is that of the true values, not of the predicted ones": (
            1 - (missed.sum(0) / ((predicted - predicted.mean(0)) ** 2).sum(0)).mean()
        ),
        "that is the squared correlation, which forgives a wrong scale": np.mean(
            [np.corrcoef(y[:, d], predicted[:, d])[0, 1] ** 2 for d in range(2)]
        ),
        "divide by the spread around the mean, not around 0": (
            1 - (missed.sum(0) / (y**2).sum(0)).mean()
        ),
        "take the mean over the channels: one number is asked for": (
            1 - missed.sum(0) / around.sum(0)
        ),
    }
    compare(answer(y, predicted), right, mistakes)
    worse = (1 - 4 * (y**2).sum(0) / around.sum(0)).mean()
    compare(answer(y, -y), worse, {"it may be negative: do not cut it off at 0": 0.0})
    return f"R² = {printed(float(right))}; of a prediction worse than the mean it is negative"


CHECKS: dict[str, Callable[..., str]] = {"09.1": two_accuracies, "09.2": r2}
