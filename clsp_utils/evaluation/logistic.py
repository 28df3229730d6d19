"""Logistic regression on frozen features, as the field evaluates transfer to other data.

Its regularisation is chosen on validation, and no function that chooses sees the test split.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from clsp_utils.config import LogisticProbe
from clsp_utils.data import ChannelStatistics, Splits
from clsp_utils.evaluation.features import extract_features

Metric = Callable[[Tensor, Tensor], float]  # of predictions and labels, each `(N,)`


class Labelled(NamedTuple):
    """Features `(N, D)` and their classes `(N,)`."""

    features: Tensor
    labels: Tensor


def _fit(model: LogisticRegression, x: np.ndarray, labels: Tensor) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `iterations` is a bound
        return model.fit(x, labels.numpy())


def choose_c(train: Labelled, validation: Labelled, cfg: LogisticProbe, metric: Metric) -> float:
    """The C that is best on validation; of equals the smallest, which regularises most.

    Each fit starts where the one before it ended.
    """
    x, held = (part.features.double().numpy() for part in (train, validation))
    scaler = StandardScaler().fit(x)
    x, held = scaler.transform(x), scaler.transform(held)
    model = LogisticRegression(max_iter=cfg.iterations, warm_start=True)
    grid, scores = np.geomspace(*cfg.c_range, cfg.n_c), []
    for c in grid:
        _fit(model.set_params(C=c), x, train.labels)
        scores.append(metric(torch.from_numpy(model.predict(held)), validation.labels))
    return float(grid[int(np.argmax(scores))])


def logistic_probe(
    train: Labelled, validation: Labelled, test: Tensor, cfg: LogisticProbe, metric: Metric
) -> tuple[Tensor, float]:
    """Predictions of a logistic regression that is fitted to training and validation features.

    Features are standardised by those that it is fitted to.

    Args:
        train, validation: the first is fitted while C is chosen on the second.
        test: features `(M, D)`.
        metric: what C is chosen by.

    Returns:
        Classes `(M,)`, and C.
    """
    c = choose_c(train, validation, cfg, metric)
    both = Labelled(*(torch.cat(parts) for parts in zip(train, validation, strict=True)))
    x = both.features.double().numpy()
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=c, max_iter=cfg.iterations)
    _fit(model, scaler.transform(x), both.labels)
    return torch.from_numpy(model.predict(scaler.transform(test.double().numpy()))), c


def transfer_score(
    backbone: nn.Module,
    images: Splits,
    statistics: ChannelStatistics,
    cfg: LogisticProbe,
    metric: Metric,
    precision: str,
) -> dict[str, float]:
    """How well a logistic regression reads a frozen backbone's features of other images.

    Args:
        statistics: of the images that the backbone was trained on.

    Returns:
        "score", the metric on the test split, and "c", chosen on the validation split.
    """
    x = [extract_features(backbone, part.images, statistics, precision) for part in images]
    y = [torch.from_numpy(part.labels) for part in images]
    known = [Labelled(*pair) for pair in zip(x[:2], y[:2], strict=True)]
    predicted, c = logistic_probe(known[0], known[1], x[2], cfg, metric)
    return {"score": metric(predicted, y[2]), "c": c}
