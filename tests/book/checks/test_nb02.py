"""The checks of notebook 02 on right answers, and on each mistake that they name."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch.nn import functional as F

from clsp_utils import evaluation
from clsp_utils.config import Data, Probe
from clsp_utils.data import load


def cut(h, size):
    """h in size x size blocks: the axes 3 and 5 go over a block."""
    side = h.shape[2] // size
    return h.view(*h.shape[:2], size, side, size, side)


@pytest.mark.parametrize(
    "answer, part",
    [
        (lambda h, size: F.adaptive_avg_pool2d(h, size).flatten(1), "✓"),
        (lambda h, size: cut(h, size).mean((3, 5)).flatten(1), "✓"),
        (lambda h, size: cut(h, size).mean((3, 5)), "flatten it"),
        (
            lambda h, size: cut(h, size).mean((3, 5)).permute(0, 2, 3, 1).flatten(1),
            "channels first",
        ),
        (lambda h, size: cut(h, size).mean((3, 5)).mT.flatten(1), "not column by column"),
        (lambda h, size: cut(h, size).sum((3, 5)).flatten(1), "in place of summing"),
        (lambda h, size: F.adaptive_max_pool2d(h, size).flatten(1), "taking the largest"),
        (lambda h, size: h[:, :, :: 8 // size, :: 8 // size].flatten(1), "one of its positions"),
        (
            lambda h, size: h.view(3, 5, 8 // size, size, 8 // size, size).mean((2, 4)).flatten(1),
            "average neighbours",
        ),
        (lambda h, size: h.mean((2, 3)), "at every size"),
    ],
)
def test_pool(said, answer, part):
    assert part in said("02.1", answer)


def vote(cosine, labels, k, weigh):
    best, rows = cosine.topk(k, dim=1)
    votes = torch.zeros(len(cosine), 5)
    return votes.scatter_add_(1, labels[rows], weigh(best)).argmax(1)


def sharp(cosine):
    return (cosine / 0.07).exp()


def cosines(train, test):
    return F.normalize(test, dim=1) @ F.normalize(train, dim=1).T


def one_vote_a_class(cosine, labels, k):
    best, rows = cosine.topk(k, dim=1)
    votes = torch.zeros(len(cosine), 5)
    votes[torch.arange(len(cosine))[:, None], labels[rows]] += sharp(best)
    return votes.argmax(1)


@pytest.mark.parametrize(
    "answer, part",
    [
        (lambda x, y, z, k: vote(cosines(x, z), y, k, sharp), "✓"),
        (evaluation.knn, "✓"),
        (lambda x, y, z, k: vote(z @ x.T, y, k, sharp), "bring the rows to length 1 first"),
        (lambda x, y, z, k: vote(F.normalize(z, dim=1) @ x.T, y, k, sharp), "of the anchors"),
        (lambda x, y, z, k: vote(z @ F.normalize(x, dim=1).T, y, k, sharp), "that ask"),
        (
            lambda x, y, z, k: vote(-cosines(x, z), y, k, lambda c: sharp(-c)),
            "the least similar ones",
        ),
        (lambda x, y, z, k: vote(cosines(x, z), y, k, torch.ones_like), "all count alike"),
        (
            lambda x, y, z, k: vote(cosines(x, z), y, k, lambda c: (c * 0.07).exp()),
            "divide the cosine",
        ),
        (lambda x, y, z, k: vote(cosines(x, z), y, 1, sharp), "only the nearest"),
        (lambda x, y, z, k: vote(cosines(x, z), y, len(x), sharp), "all anchors vote"),
        (lambda x, y, z, k: cosines(x, z).argmax(1), "these are rows of anchors"),
        (lambda x, y, z, k: one_vote_a_class(cosines(x, z), y, k), "keeps one of several votes"),
        (lambda x, y, z, k: y[:100], "another class for some images"),
    ],
)
def test_knn(said, answer, part):
    assert part in said("02.2", answer)


def shuffle(h, per_image, g):
    x = h.flatten(2)
    if per_image:
        moved = [one[:, torch.randperm(x.shape[2], generator=g)] for one in x]
        return torch.stack(moved).view(h.shape)
    return x[:, :, torch.randperm(x.shape[2], generator=g)].view(h.shape)


def shuffle_in_place(h, per_image, g):
    x = h.flatten(2)  # shares its numbers with h
    for i in range(len(x) if per_image else 1):
        rows = i if per_image else slice(None)
        x[rows] = x[rows][..., torch.randperm(x.shape[2], generator=g)]
    return x.view(h.shape)


def each_channel(h, per_image, g):
    return torch.cat([shuffle(h[:, [c]], per_image, g) for c in range(h.shape[1])], 1)


@pytest.mark.parametrize(
    "answer, part",
    [
        (shuffle, "✓"),
        (shuffle_in_place, "✓"),
        (lambda h, per_image, g: shuffle(h, per_image, g).numpy(), "✓"),
        (lambda h, per_image, g: shuffle(h, False, g), "needs an order of its own"),
        (lambda h, per_image, g: shuffle(h, True, g), "the same for all images"),
        (lambda h, per_image, g: h, "nothing has moved"),
        (lambda h, per_image, g: h.flip(1), "the channels in another order"),
        (lambda h, per_image, g: h.flip(0), "each channel of an image must keep"),
        (each_channel, "must move together"),
        (lambda h, per_image, g: shuffle(h, per_image, g).flatten(2), "the shape (6, 4, 3, 3)"),
    ],
)
def test_shuffle(said, answer, part):
    g = torch.Generator().manual_seed(0)
    h = (torch.randn(40, 4, 3, 3, generator=g), torch.randn(20, 4, 3, 3, generator=g))
    labels = (np.arange(40) % 3, np.arange(20) % 3)
    assert part in said("02.4", answer, h=h, labels=labels, k=5)


@pytest.fixture(scope="module")
def averages():
    """A feature that knows the colour well and the digit a bit, and what is in it."""
    train, test = load(Data(limit=300))
    x = [
        torch.from_numpy(
            np.concatenate(
                [
                    part.background.mean((1, 2)) ** 2,
                    part.images[:, ::5, ::5, 0].reshape(-1, 16) / 255,
                ],
                axis=1,
            )
        ).float()
        for part in (train, test)
    ]
    cfg = SimpleNamespace(probe=Probe(epochs=20), study=SimpleNamespace(n_neighbours=5))
    companion = SimpleNamespace(cfg=cfg, seed=0)
    colour = [part.background.mean((1, 2)) for part in (train, test)]
    fitted = LinearRegression().fit(x[0], colour[0])
    labels = torch.from_numpy(train.labels)
    by_linear = [evaluation.linear_probe(x[0], labels, one, cfg.probe, 0) for one in x]
    predicted = fitted.predict(x[1])
    found = {
        "r2": fitted.score(x[1], colour[1]),
        "r2 of train": fitted.score(x[0], colour[0]),
        "correlation": np.mean(
            [np.corrcoef(colour[1][:, i], predicted[:, i])[0, 1] for i in range(3)]
        ),
        "linear": evaluation.accuracy(by_linear[1], test.labels),
        "linear on train": evaluation.accuracy(by_linear[0], labels),
        "knn": evaluation.accuracy(evaluation.knn(x[0], labels, x[1], 5), test.labels),
    }
    return found, {"average": tuple(x), "train": train, "test": test, "companion": companion}


@pytest.mark.parametrize(
    "background, digit, part",
    [
        (lambda f: f["r2"], lambda f: f["linear"], "✓"),
        (lambda f: None, lambda f: f["linear"], "not yet"),
        (lambda f: 100 * f["r2"], lambda f: f["linear"], "background: give a share"),
        (lambda f: f["r2"], lambda f: 100 * f["linear"], "digit: give a share"),
        (lambda f: f["r2"], lambda f: f["knn"], "ask the linear classifier"),
        (lambda f: f["r2"], lambda f: f["linear on train"], "digit: score it on the test images"),
    ],
)
def test_knows(said, averages, background, digit, part):
    found, given = averages
    assert abs(found["knn"] - found["linear"]) > 0.03 < found["linear on train"] - found["linear"]
    answer = {"background": background(found), "digit": digit(found)}
    assert part in said("02.5", answer, **given)


def test_knows_what_is_no_r2(said):
    """Of few images, on which a regression learns much by heart."""
    g = torch.Generator().manual_seed(0)
    train, test = (part[np.arange(40)] for part in load(Data(limit=300)))
    x = tuple(torch.randn(40, 20, generator=g) for _ in range(2))
    x = tuple(
        torch.cat([a[:, 3:], torch.from_numpy(part.background.mean((1, 2))) + 0.2 * a[:, :3]], 1)
        for a, part in zip(x, (train, test))
    )
    colour = [part.background.mean((1, 2)) for part in (train, test)]
    fitted = LinearRegression().fit(x[0], colour[0])
    predicted = fitted.predict(x[1])
    correlation = np.mean([np.corrcoef(colour[1][:, i], predicted[:, i])[0, 1] for i in range(3)])
    cfg = SimpleNamespace(probe=Probe(epochs=2), study=SimpleNamespace(n_neighbours=5))
    given = {"average": x, "train": train, "test": test}
    given["companion"] = SimpleNamespace(cfg=cfg, seed=0)
    of_train = fitted.score(x[0], colour[0])
    assert of_train - 0.03 > fitted.score(x[1], colour[1]) < correlation - 0.03
    for value, part in ((of_train, "has not seen"), (correlation, "that is a correlation")):
        assert part in said("02.5", {"background": value, "digit": 0.1}, **given)


@pytest.mark.parametrize(
    "answer, part",
    [
        ({"B", "E", "F"}, "✓"),
        ({"A", "B", "E", "F"}, "A is not licensed"),
        ({"E", "F"}, "B is licensed"),
        ({"B", "C", "E", "F"}, "C is not licensed"),
        ({"B", "D", "E", "F"}, "D is not licensed"),
        ({"B", "F"}, "E is licensed"),
        ({"B", "E"}, "F is licensed"),
        ({"X"}, "a set of some of"),
        ("BEF", "a set of some of"),
    ],
)
def test_licensed(said, answer, part):
    assert part in said("02.6", answer)


@pytest.mark.parametrize(
    "answer, part",
    [
        (["B", "E", "F"], "✓"),
        ("BEF", "a set of some of ['A', 'B', 'C', 'D', 'E', 'F']"),
        (["B", "G"], "a set of some of"),
    ],
)
def test_letters_in_a_list_are_a_set_as_well(said, answer, part):
    assert part in said("02.6", answer)
