"""Few labels: which images keep theirs, by counting, and what a probe makes of them."""

import dataclasses

import numpy as np
import pytest
import torch

from clsp_utils.config import Probe
from clsp_utils.data import Images
from clsp_utils.evaluation import accuracy, few_label_accuracy, few_labels, few_rows, linear_probe
from clsp_utils.evaluation.probes import ProbeFeatures
from clsp_utils.runtime import seed_for

PROBE = Probe(epochs=20, batch=32)


def as_images(labels, groups=None):
    labels = np.asarray(labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    return Images(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, groups, tuple("0123456789"))


# Three pictures of each of 400 strokes, ten classes, in random order.
ORDER = np.random.default_rng(0).permutation(1200)
STROKES = as_images(np.repeat(np.arange(400) % 10, 3)[ORDER], np.repeat(np.arange(400), 3)[ORDER])


@pytest.mark.parametrize("share, of_each", [
    (0.01, 1), (0.1, 4), (0.25, 10), (0.5, 20), (1.0, 40), (0.0, 1), (1e-9, 1),
])  # fmt: skip
def test_every_class_keeps_as_many_strokes_and_of_each_one_picture(share, of_each):
    rows = few_rows(STROKES, share, 0)
    assert np.bincount(STROKES.labels[rows]).tolist() == [of_each] * 10
    assert len(np.unique(STROKES.groups[rows])) == len(rows) == 10 * of_each
    assert (np.diff(rows) > 0).all()


def test_a_small_class_keeps_at_least_one_and_at_most_all():
    data = as_images([0] * 300 + [1] * 97 + [7] * 3)
    assert (
        np.bincount(data.labels[few_rows(data, 0.01, 0)], minlength=8)[[0, 1, 7]].tolist()
        == [1] * 3
    )
    kept = np.bincount(data.labels[few_rows(data, 0.1, 0)], minlength=8)
    assert kept[[0, 1, 7]].tolist() == [13, 13, 3] and kept.sum() == 29


def test_draws_repeat_with_their_seed_and_differ_without():
    first, again, other = (few_rows(STROKES, 0.1, seed) for seed in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()
    seen = np.concatenate([few_rows(STROKES, 0.1, seed) for seed in range(200)])
    counts = np.bincount(STROKES.groups[seen], minlength=400)
    assert counts.min() > 0 and abs(counts.mean() - 20) < 1e-9, "every stroke is drawn in its turn"


def blobs(labels, spread, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.as_tensor(labels)
    return torch.eye(12)[labels] + spread * torch.randn(len(labels), 12, generator=g)


def test_accuracy_is_the_mean_of_probes_on_the_rows_that_are_drawn():
    test = as_images(np.arange(100) % 10)
    x = ProbeFeatures(blobs(STROKES.labels, 0.4, 0), blobs(test.labels, 0.4, 1), None)
    raw = dataclasses.replace(PROBE, standardise=False)
    labels, expected = torch.from_numpy(STROKES.labels), []
    for draw in range(3):
        rows = few_rows(STROKES, 0.1, seed_for(5, "few labels", 0.1, draw))
        predicted = linear_probe(x.train[rows], labels[rows], x.test, raw, 5)
        expected.append(accuracy(predicted, test.labels))
    found = few_label_accuracy(x, STROKES, test, 0.1, 3, raw, 5)
    assert found == sum(expected) / 3 and len(set(expected)) > 1


def test_more_labels_are_better():
    test = as_images(np.arange(500) % 10)
    x = ProbeFeatures(blobs(STROKES.labels, 0.5, 0), blobs(test.labels, 0.5, 1), None)
    few, more = (few_label_accuracy(x, STROKES, test, share, 3, PROBE, 0) for share in (0.01, 0.5))
    assert few + 0.1 < more


def test_features_are_standardised_by_all_images_not_by_the_few():
    # One feature is 0 in most images; by the few it would be divided by nothing.
    test = as_images(np.arange(300) % 10)
    rare = (torch.rand(1500, generator=torch.Generator().manual_seed(2)) < 0.02).float()[:, None]
    train = torch.cat([blobs(STROKES.labels, 0.1, 0), rare[:1200]], 1)
    other = torch.cat([blobs(test.labels, 0.1, 1), rare[1200:]], 1)
    found = few_label_accuracy(ProbeFeatures(train, other, None), STROKES, test, 0.01, 3, PROBE, 0)
    assert found > 0.9


def test_mirrored_features_are_those_of_the_same_rows(monkeypatch):
    seen = []

    def probe(train, labels, test, cfg, seed, mirrored):
        seen.append((train, mirrored))
        return torch.zeros(len(test), dtype=torch.int64)

    monkeypatch.setattr(few_labels, "linear_probe", probe)
    train = torch.arange(1200.0)[:, None]
    raw = dataclasses.replace(PROBE, standardise=False)
    x = ProbeFeatures(train, train[:100], -train)
    few_label_accuracy(x, STROKES, as_images(np.zeros(100, np.int64)), 0.1, 2, raw, 0)
    assert len(seen) == 2 and all(torch.equal(a, -b) for a, b in seen)
