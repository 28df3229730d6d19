"""Logistic regression on frozen features: against scikit-learn, and who may see the test split."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from clsp_utils.config import LogisticProbe
from clsp_utils.data import ChannelStatistics, Images, Splits
from clsp_utils.evaluation import (
    Labelled,
    accuracy,
    choose_c,
    logistic,
    logistic_probe,
    mean_per_class,
    transfer_score,
)

CFG = LogisticProbe(c_range=(1e-4, 1.0), n_c=3, iterations=500)


def blobs(n, spread, seed=0, classes=3, d=6):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return Labelled(torch.eye(d)[labels] + spread * torch.randn(n, d, generator=g), labels)


def reference(c, train, x):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
    return model.fit(train.features.double().numpy(), train.labels.numpy()).predict(x.double())


def test_predictions_are_those_of_scikit_learn_fitted_to_both_parts():
    train, validation, test = (blobs(n, 0.7, seed) for seed, n in enumerate((90, 45, 300)))
    predicted, c = logistic_probe(train, validation, test.features, CFG, accuracy)
    both = Labelled(*map(torch.cat, zip(train, validation)))
    assert (predicted.numpy() == reference(c, both, test.features)).mean() > 0.99
    assert accuracy(predicted, test.labels) > 0.6


def test_c_is_the_best_on_validation_and_of_equals_the_smallest():
    train, validation = blobs(90, 0.7), blobs(90, 0.7, seed=1)
    grid = np.geomspace(1e-4, 1.0, 3)
    found = [
        (reference(c, train, validation.features) == validation.labels.numpy()).mean() for c in grid
    ]
    assert choose_c(train, validation, CFG, accuracy) == pytest.approx(grid[np.argmax(found)])
    plain = blobs(90, 0.01), blobs(30, 0.01, seed=1)  # all values of C are right on these
    assert choose_c(*plain, CFG, accuracy) == pytest.approx(1e-4)


def test_more_noise_than_images_asks_for_more_regularisation():
    noisy = [blobs(60, 1.0, seed, d=200) for seed in (0, 1)]
    wide = LogisticProbe(c_range=(1e-6, 1e4), n_c=6)
    assert choose_c(*noisy, wide, accuracy) <= 1e-2


def test_c_is_chosen_by_the_metric_that_is_reported():
    seen = []

    def metric(predictions, labels):
        seen.append(len(labels))
        return float(len(seen) == 2)  # the second value is said to be the best

    c = choose_c(blobs(30, 0.5), blobs(21, 0.5, seed=1), CFG, metric)
    assert seen == [21] * 3 and c == pytest.approx(1e-2)


def test_the_test_split_has_no_say(monkeypatch):
    train, validation, test = (blobs(n, 0.7, seed) for seed, n in enumerate((90, 45, 60)))
    fitted, fit = [], logistic._fit

    def spy(model, x, labels):
        fitted.append((len(x), model.C))
        return fit(model, x, labels)

    monkeypatch.setattr(logistic, "_fit", spy)
    first, c = logistic_probe(train, validation, test.features, CFG, accuracy)
    assert [n for n, _ in fitted] == [90] * 3 + [135] and fitted[-1][1] == c
    one_by_one = [
        logistic_probe(train, validation, x[None], CFG, accuracy) for x in test.features[:5]
    ]
    assert [int(p) for p, _ in one_by_one] == first[:5].tolist()
    assert {c for _, c in one_by_one} == {c}


def test_units_of_the_features_do_not_matter():
    train, validation, test = (blobs(n, 0.7, seed) for seed, n in enumerate((90, 45, 60)))
    scale = torch.tensor([1e3, 1e-2, 1, 5, 0.1, 1])
    scaled = [Labelled(part.features * scale + 7, part.labels) for part in (train, validation)]
    found, c = logistic_probe(*scaled, test.features * scale + 7, CFG, accuracy)
    expected, same_c = logistic_probe(train, validation, test.features, CFG, accuracy)
    assert c == same_c and (found == expected).float().mean() > 0.98


def as_images(n, seed):
    labels = np.arange(n) % 2
    images = np.random.default_rng(seed).integers(0, 128, (n, 4, 4, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels * 2] += 127
    return Images(images, labels, np.arange(n), ("red", "blue"))


@pytest.mark.parametrize("metric", [accuracy, mean_per_class])
def test_transfer_score_reads_the_features_of_other_images(metric):
    splits = Splits(as_images(60, 0), as_images(30, 1), as_images(40, 2))
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    how = ChannelStatistics((0.5,) * 3, (0.25,) * 3), CFG, metric, "fp32"
    found = transfer_score(backbone, splits, *how)
    assert found["score"] == 1.0 and found["c"] in np.geomspace(1e-4, 1.0, 3)
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.zeros_(blind[2].weight)
    assert 0.3 < transfer_score(blind, splits, *how)["score"] < 0.7
    swapped = splits._replace(test=as_images(40, 2)[np.arange(40)[::-1]])
    assert transfer_score(backbone, swapped, *how) == found
