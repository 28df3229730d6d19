"""Linear probe, nearest neighbours and scores: against slow loops and scikit-learn."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from clsp_utils.config import Probe
from clsp_utils.data import ChannelStatistics, DataError, Images, split_by_group
from clsp_utils.evaluation import (
    accuracy,
    choose_k,
    held_out_rows,
    knn,
    linear_logits,
    linear_probe,
    mean_per_class,
    probes,
    score,
    top_k_accuracy,
)
from clsp_utils.runtime import generator, seed_for

STATISTICS = ChannelStatistics((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PROBE = Probe(epochs=10, batch=32, neighbours=(1, 5, 20))


def blobs(n, spread, classes=3, seed=0):
    """Features around one corner a class, `(n, 6)`, and labels."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return torch.eye(6)[labels] + spread * torch.randn(n, 6, generator=g), labels


def as_images(images, labels, groups=None):
    labels = np.asarray(labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    return Images(images, labels, groups, tuple("0123456789"))


# kNN ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 7, 50])
def test_knn_against_a_slow_loop_and_scikit_learn(k):
    (train, labels), (test, _) = blobs(200, 0.6), blobs(80, 0.6, seed=1)
    train, test = train * 3, test * 0.2  # lengths must not matter
    slow = []
    for x in test:
        cosines = [float(x @ y / (x.norm() * y.norm())) for y in train]
        votes = [0.0, 0.0, 0.0]
        for i in sorted(range(200), key=cosines.__getitem__)[-k:]:
            votes[labels[i]] += np.exp(cosines[i] / 0.07)
        slow.append(int(np.argmax(votes)))
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    found = knn(train, labels, test, k).tolist()
    assert found == slow
    assert found == reference.fit(train.numpy(), labels.numpy()).predict(test.numpy()).tolist()
    assert len(set(found)) == 3


def test_knn_lets_the_near_outvote_the_many():
    # Two neighbours at cosine 0.6 weigh less than one at cosine 1.
    train = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = torch.tensor([0, 1, 1])
    assert knn(train, labels, torch.tensor([[1.0, 0.0]]), 3).tolist() == [0]
    assert knn(train, labels, torch.tensor([[1.0, 0.0]]), 3, temperature=10.0).tolist() == [1]


def test_knn_with_more_neighbours_than_images_takes_all():
    (train, labels), (test, _) = blobs(9, 0.3), blobs(6, 0.3, seed=1)
    assert torch.equal(knn(train, labels, test, 100), knn(train, labels, test, 9))


def test_choose_k_holds_whole_groups_out():
    # Each feature occurs three times, and a third of the groups has a wrong label. One neighbour
    # looks perfect if a copy of the held-out image remains; with the group held out, many are
    # better.
    features, truth = blobs(120, 0.02)
    wrong = np.random.default_rng(0).random(120) < 0.35
    labels = np.where(wrong, (truth + 1) % 3, truth).repeat(3)
    data = as_images(np.zeros((360, 1)), labels, np.arange(120).repeat(3))
    assert choose_k(features.repeat_interleave(3, 0), data, (1, 60)) == 60


def test_choose_k_finds_fine_structure():
    # Points on an arc whose class changes every ten: many neighbours blur it.
    angle = torch.linspace(0, 1, 400)
    data = as_images(np.zeros((400, 1)), np.arange(400) // 10 % 2)
    features = torch.stack([angle.cos(), angle.sin()], 1)
    assert choose_k(features, data, (300, 3, 200)) == 3


# Linear probe -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spread", "low", "high"), [(0.05, 0.99, 1.0), (1e4, 0.23, 0.43)], ids=["blobs", "noise"]
)
def test_linear_probe_separates_blobs_and_nothing_else(spread, low, high):
    (train, labels), (test, truth) = blobs(300, spread), blobs(600, spread, seed=1)
    predicted = linear_probe(train, labels, test, PROBE, 0)
    assert low <= accuracy(predicted, truth) <= high


def test_linear_probe_does_not_mind_units_and_repeats():
    (train, labels), (test, _) = blobs(300, 0.5), blobs(600, 0.5, seed=1)
    first = linear_probe(train, labels, test, PROBE, 0)
    torch.manual_seed(99)
    assert torch.equal(first, linear_probe(train, labels, test, PROBE, 0))
    scaled = linear_probe(train * 1000 + 7, labels, test * 1000 + 7, PROBE, 0)
    assert (scaled == first).float().mean() > 0.99
    assert not torch.equal(first, linear_probe(train, labels, test, PROBE, 1))


def test_linear_probe_lowers_its_rate_twice(monkeypatch):
    rates = []
    monkeypatch.setattr(probes, "set_lr", lambda optimizer, lr: rates.append(lr))
    train, labels = blobs(30, 0.5)
    linear_probe(train, labels, train, Probe(lr=2.0, epochs=10), 0)
    np.testing.assert_allclose(rates, [2.0] * 6 + [0.2] * 2 + [0.02] * 2)


def test_linear_probe_takes_both_copies():
    # The mirrored copies lie elsewhere, and only training on them shows which class is where.
    train, labels = blobs(300, 0.05)
    mirrored = train.roll(3, 1)
    both = linear_probe(train, labels, mirrored, PROBE, 0, mirrored)
    assert accuracy(both, labels) > 0.99
    assert accuracy(linear_probe(train, labels, train, PROBE, 0, mirrored), labels) > 0.99
    assert accuracy(linear_probe(train, labels, mirrored, PROBE, 0), labels) < 0.7


def test_linear_probe_with_equal_copies_is_the_one_without():
    (train, labels), (test, _) = blobs(300, 0.5), blobs(600, 0.5, seed=1)
    plain = linear_probe(train, labels, test, PROBE, 0)
    assert torch.equal(plain, linear_probe(train, labels, test, PROBE, 0, train.clone()))


def slow_probe(train, labels, test, cfg, seed, weight, bias):
    """Plain SGD, written out: the gradient of the cross-entropy is softmax minus one-hot."""
    for epoch in range(cfg.epochs):
        lr = cfg.lr * 0.1 ** sum(epoch >= share * cfg.epochs for share in (0.6, 0.8))
        order = torch.randperm(len(train), generator=generator(seed, "probe", epoch))
        for rows in order.split(cfg.batch):
            x, one_hot = train[rows], torch.eye(len(bias))[labels[rows]]
            error = ((x @ weight.T + bias).softmax(1) - one_hot) / len(rows)
            weight, bias = weight - lr * error.T @ x, bias - lr * error.sum(0)
    return (test @ weight.T + bias).argmax(1)


THEIRS = dataclasses.replace(PROBE, momentum=0.0, standardise=False, zero_init=False)


def test_the_authors_probe_against_a_slow_loop():
    (train, labels), (test, _) = blobs(300, 0.5), blobs(600, 0.5, seed=1)
    torch.manual_seed(seed_for(3, "probe weights"))
    start = torch.nn.Linear(6, 3)
    torch.manual_seed(99)  # the global state has no say
    expected = slow_probe(train, labels, test, THEIRS, 3, start.weight.data, start.bias.data)
    state = torch.get_rng_state()
    assert torch.equal(linear_probe(train, labels, test, THEIRS, 3), expected)
    assert torch.equal(torch.get_rng_state(), state)
    zeros = torch.zeros(3, 6), torch.zeros(3)
    expected = slow_probe(train, labels, test, THEIRS, 3, *zeros)
    cfg = dataclasses.replace(THEIRS, zero_init=True)
    assert torch.equal(linear_probe(train, labels, test, cfg, 3), expected)


@pytest.mark.parametrize("name, value", [
    ("momentum", 0.0), ("standardise", False), ("zero_init", False),
])  # fmt: skip
def test_each_setting_of_the_probe_changes_it(name, value):
    (train, labels), (test, _) = blobs(60, 1.0), blobs(600, 1.0, seed=1)
    few = dataclasses.replace(PROBE, epochs=1)
    changed = dataclasses.replace(few, **{name: value})
    ours, other = (linear_probe(train + 1, labels, test + 1, cfg, 0) for cfg in (few, changed))
    assert not torch.equal(ours, other)


def test_predictions_are_the_largest_of_the_logits():
    (train, labels), (test, _) = blobs(300, 0.8), blobs(600, 0.8, seed=1)
    logits = linear_logits(train, labels, test, PROBE, 0)
    assert logits.shape == (600, 3)
    assert torch.equal(logits.argmax(1), linear_probe(train, labels, test, PROBE, 0))


# Metrics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_accuracy_is_that_of_scikit_learn(k):
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(400, 10, generator=g), torch.arange(400) % 10
    expected = top_k_accuracy_score(labels, logits, k=k, labels=range(10))
    assert top_k_accuracy(logits, labels, k) == pytest.approx(expected)
    assert top_k_accuracy(logits, labels.numpy(), k) == pytest.approx(expected)


def test_top_k_accuracy_by_hand():
    logits, labels = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]), torch.tensor([1, 0])
    assert [top_k_accuracy(logits, labels, k) for k in (1, 2, 3, 5)] == [0.0, 0.5, 1.0, 1.0]


def test_mean_per_class_is_the_balanced_accuracy_of_scikit_learn():
    g = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 500, True, generator=g)
    predictions = torch.where(torch.rand(500, generator=g) < 0.6, labels, torch.zeros(500).long())
    expected = balanced_accuracy_score(labels, predictions)
    assert mean_per_class(predictions, labels) == pytest.approx(expected, abs=1e-6)
    assert mean_per_class(predictions, labels.numpy()) < accuracy(predictions, labels)


def test_mean_per_class_by_hand():
    labels = torch.tensor([0] * 9 + [4])
    assert mean_per_class(torch.zeros(10).long(), labels) == 0.5
    assert accuracy(torch.zeros(10).long(), labels) == pytest.approx(0.9)


# Scores -------------------------------------------------------------------------------------------


def coloured(n, seed):
    """Two classes, red and blue, with noise."""
    labels = np.arange(n) % 2
    images = np.random.default_rng(seed).integers(0, 128, (n, 4, 4, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels * 2] += 127
    return as_images(images, labels)


def test_score_of_features_that_show_the_class():
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    train, test = coloured(100, 0), coloured(60, 1)
    scores = score(backbone, train, test, STATISTICS, PROBE, 0, "fp32")
    assert scores.keys() == {"linear", "knn", "k"}
    assert scores["linear"] > 0.95 and scores["knn"] > 0.95
    assert scores["k"] in PROBE.neighbours


def test_score_leaves_images_without_a_label_out():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = np.repeat(labels * 100, 12).reshape(-1, 2, 2, 3).astype(np.uint8)
    images = images + rng.integers(0, 20, (60, 2, 2, 3), np.uint8)
    known = as_images(images, labels)
    more = as_images(np.concatenate([images, 255 - images]), np.append(labels, np.full(60, -1)))
    args = ChannelStatistics((0.5,) * 3, (0.25,) * 3), PROBE, 0, "fp32"
    assert score(nn.Flatten(), more, more, *args) == score(nn.Flatten(), known, known, *args)


def test_score_chooses_without_the_test_split():
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    train, test = coloured(100, 0), coloured(60, 1)
    inverted = as_images(test.images, 1 - test.labels)
    args = (STATISTICS, PROBE, 0, "fp32")
    scores, other = (score(backbone, train, part, *args) for part in (test, inverted))
    assert other["k"] == scores["k"]
    for name in ("linear", "knn"):
        assert other[name] == pytest.approx(1 - scores[name])


def test_score_with_flips_cannot_tell_left_from_right():
    labels = np.arange(200) % 2
    images = np.random.default_rng(0).integers(0, 128, (200, 4, 4, 3), dtype=np.uint8)
    images[labels == 0, :, :2] += 127
    images[labels == 1, :, 2:] += 127
    data = as_images(images, labels)
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    args = (backbone, data, data, STATISTICS, PROBE, 0, "fp32")
    plain, flipped = score(*args), score(*args, flip=True)
    assert plain["linear"] > 0.95 and flipped["linear"] < 0.75
    assert flipped["knn"] == plain["knn"]


# What people bring --------------------------------------------------------------------------------


@pytest.mark.parametrize("cosines", [1, 199, 200, 600, 200 * 79, 200 * 80])
@pytest.mark.parametrize("k", [1, 20, 500])
def test_knn_in_blocks_is_knn(monkeypatch, cosines, k):
    (train, labels), (test, _) = blobs(200, 0.6), blobs(80, 0.6, seed=1)
    whole = knn(train, labels, test, k)
    monkeypatch.setattr(probes, "COSINES", cosines)
    assert torch.equal(knn(train, labels, test, k), whole)


def test_knn_of_the_digits_is_one_block():
    assert probes.COSINES >= 4000 * 1000 and probes.COSINES * 4 * 3 < 1e9  # topk needs a copy


@pytest.mark.parametrize("cosines", [150, 1000, 10**6])
def test_knn_never_holds_more_cosines_than_it_may(monkeypatch, cosines):
    (train, labels), (test, _) = blobs(150, 0.6), blobs(80, 0.6, seed=1)
    held, topk = [], torch.Tensor.topk

    def seen(x, *more, **how):
        held.append(x.numel())
        return topk(x, *more, **how)

    monkeypatch.setattr(probes, "COSINES", cosines)
    monkeypatch.setattr(torch.Tensor, "topk", seen)
    knn(train, labels, test, 5)
    assert sum(held) == 150 * 80 and max(held) <= cosines


@pytest.mark.parametrize("labels", [[3] * 40, [-1] * 20 + [2] * 20])
def test_one_class_cannot_be_scored(labels):
    with pytest.raises(DataError, match="labels of at least two classes, with 10 images of each"):
        held_out_rows(as_images(np.zeros((40, 1)), labels))


@pytest.mark.parametrize("n_classes", [2, 5, 40])
def test_one_image_of_each_class_cannot_be_scored(n_classes):
    with pytest.raises(DataError, match="the smallest has 1 and 10 are enough, are too few"):
        held_out_rows(as_images(np.zeros((n_classes, 1)), np.arange(n_classes)))


def test_rows_held_out_are_those_of_the_split():
    labels, groups = np.arange(120) % 3, np.arange(120) // 2 % 30
    data = as_images(np.arange(120), labels[groups], groups)
    for rows, part in zip(held_out_rows(data), split_by_group(data, 0.2)):
        assert rows.tolist() == part.images.tolist()


@pytest.mark.parametrize("flip", [False, True])
def test_probes_compute_on_the_device(monkeypatch, flip):
    # A meta tensor has no values: all goes well until what was found is to come back.
    monkeypatch.setattr(probes, "device", lambda: torch.device("meta"))
    x, labels = torch.randn(12, 5), torch.arange(12) % 3
    mirrored = x.clone() if flip else None
    with pytest.raises(NotImplementedError, match="out of meta tensor"):
        linear_probe(x, labels, x[:4], Probe(epochs=2, batch=4), 0, mirrored)
    with pytest.raises(NotImplementedError, match="out of meta tensor"):
        knn(x, labels, x[:4], 3)
