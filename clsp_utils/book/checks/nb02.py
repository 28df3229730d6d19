"""Checks of notebook 02: reading the middle of the UNet, and reading a t-SNE."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from torch import Tensor
from torch.nn import functional as F

from clsp_utils import diffusion, evaluation
from clsp_utils.book.checks import Wrong, compare, entries, printed
from clsp_utils.data import Images
from clsp_utils.runtime import generator


def pool(answer: Callable) -> str:
    """02.1, `(h, size) -> (B, C * size * size)`."""
    h = torch.randn(3, 5, 8, 8, generator=generator("02.1"))
    for size in (2, 4, 1, 8):
        side = 8 // size
        blocks = h.view(3, 5, size, side, size, side)
        mean = blocks.mean((3, 5))
        mistakes = {
            "flatten it to (B, C * size * size)": mean,
            "channels first: all positions of the first channel, then those of the second": (
                mean.permute(0, 2, 3, 1).flatten(1)
            ),
            "go through the blocks row by row, not column by column": mean.mT.flatten(1),
            "average, in place of summing": blocks.sum((3, 5)).flatten(1),
            "average, in place of taking the largest": blocks.amax((3, 5)).flatten(1),
            "average over each block, in place of taking one of its positions": (
                h[:, :, ::side, ::side].flatten(1)
            ),
            "average neighbours: a block is 8 / size positions wide, in a row": (
                h.view(3, 5, side, size, side, size).mean((2, 4)).flatten(1)
            ),
            "this is the average over all positions, at every size": h.mean((2, 3)),
        }
        compare(answer(h, size), diffusion.pool(h, size), mistakes)
    return "the same as adaptive average pooling, from one position to all 64"


def knn(answer: Callable) -> str:
    """02.2, `(train, labels, test, k) -> classes`."""
    g = generator("02.2")
    scale = 0.1 + 0.4 * torch.rand(400, 1, generator=g)
    train, test = (scale * torch.randn(400, 4, generator=g)).split((300, 100))
    labels, k = torch.randint(5, (300,), generator=g), 7
    cosine = F.normalize(train, dim=1) @ F.normalize(test, dim=1).T

    def sharp(similar: Tensor) -> Tensor:
        return torch.exp(similar / 0.07)

    def vote(similar: Tensor, weights: Callable, count: int = k) -> Tensor:
        best, rows = similar.topk(count, dim=0)
        return (F.one_hot(labels)[rows] * weights(best)[..., None]).sum(0).argmax(1)

    right = evaluation.knn(train, labels, test, k)
    best, rows = cosine.topk(k, dim=0)
    lost = torch.zeros(len(test), int(labels.max()) + 1)
    lost[torch.arange(len(test)), labels[rows]] += sharp(best)
    mistakes = {
        "these are rows of anchors; ask for their labels": rows[0],
        "votes[...] += keeps one of several votes for a class: add them up by scatter_add_": (
            lost.argmax(1)
        ),
        "compare by cosine: bring the rows to length 1 first": vote(train @ test.T, sharp),
        "bring the rows of the anchors to length 1, too": vote(
            train @ F.normalize(test, dim=1).T, sharp
        ),
        "bring the rows of the images that ask to length 1, too": vote(
            F.normalize(train, dim=1) @ test.T, sharp
        ),
        "these are the least similar ones: the largest cosine is the nearest": vote(
            -cosine, lambda least: sharp(-least)
        ),
        "each vote weighs exp(cos / 0.07); here all count alike": vote(cosine, torch.ones_like),
        "divide the cosine by 0.07": vote(cosine, lambda cos: torch.exp(cos * 0.07)),
        "only the nearest one votes; k of them should": vote(cosine, sharp, 1),
        "all anchors vote, not the k nearest": vote(cosine, sharp, len(train)),
    }
    told = "another class for some images, and no usual mistake explains it"
    compare(answer(train, labels, test, k), right, mistakes, told)
    return "the same classes as the package's kNN"


def shuffle(
    answer: Callable, h: tuple[Tensor, Tensor], labels: tuple[np.ndarray, np.ndarray], k: int
) -> str:
    """02.4, `(h, per_image, g) -> h` with its positions in another order.

    Args:
        h: of training and of test images, `(N, C, h, w)`; labels: theirs.
    """
    probe = torch.randn(6, 4, 3, 3, generator=generator("02.4"))
    for per_image in (False, True):
        out = torch.as_tensor(answer(probe, per_image, generator("order")))
        if out.shape != probe.shape:
            raise Wrong(f"the shape {tuple(probe.shape)} must stay, and is {tuple(out.shape)}")
        before, after = probe.flatten(2), out.flatten(2)
        if torch.equal(out, probe):
            raise Wrong("nothing has moved")
        if torch.equal(before.sort(1).values, after.sort(1).values):
            raise Wrong("these are the channels in another order; move the positions")
        if not torch.equal(before.sort(2).values, after.sort(2).values):
            raise Wrong("each channel of an image must keep its numbers, in other positions")
        # Where each number came from: no two of a channel are alike.
        source = (after[..., :, None] == before[..., None, :]).float().argmax(3)
        if (source != source[:, :1]).any():
            raise Wrong("all channels of a position must move together")
        alike = bool((source == source[:1]).all())
        if per_image and alike:
            raise Wrong("with per_image each image needs an order of its own")
        if not per_image and not alike:
            raise Wrong("without per_image the order must be the same for all images")
    n, train_labels = len(h[0]), torch.from_numpy(labels[0])

    def accuracy(both: Tensor) -> float:
        x, y = both.flatten(1)[:n], both.flatten(1)[n:]
        return evaluation.accuracy(evaluation.knn(x, train_labels, y, k), labels[1])

    both = torch.cat(h)
    before = accuracy(both)
    one, own = (
        accuracy(torch.as_tensor(answer(both, each, generator("order")))) for each in (False, True)
    )
    return f"kNN {before:.2f} as it is, {one:.2f} in one order for all, {own:.2f} in each its own"


def knows(
    answer: Any, average: tuple[Tensor, Tensor], train: Images, test: Images, companion: Any
) -> str:
    """02.5, what the average of h knows: R2 of the background's colour, accuracy of the digit.

    Args:
        average: of training and of test images, `(N, C)`.
    """
    background, digit = entries(answer, "background", "digit")
    x, y = (part.numpy() for part in average)
    colour, truth = (part.background_or_image.mean((1, 2)) for part in (train, test))
    fitted = LinearRegression().fit(x, colour)
    right = r2_score(truth, fitted.predict(y))
    correlations = np.diag(np.corrcoef(truth.T, fitted.predict(y).T)[:3, 3:])
    within, percent = 0.03, "give a share of 1, not percent"
    mistakes = {
        "score it on the test images, which the regression has not seen": r2_score(
            colour, fitted.predict(x)
        ),
        "that is a correlation; R2 is a share of the variance": correlations.mean(),
    }
    compare(background, right, mistakes, "", within, percent, "background")
    labels = torch.from_numpy(train.labels)

    def linear(features: Tensor) -> Tensor:
        probe = companion.cfg.probe
        return evaluation.linear_probe(average[0], labels, features, probe, companion.seed)

    share = evaluation.accuracy(linear(average[1]), test.labels)
    by_knn = evaluation.knn(average[0], labels, average[1], companion.cfg.study.n_neighbours)
    mistakes = {
        "that is the kNN; ask the linear classifier": evaluation.accuracy(by_knn, test.labels),
        "score it on the test images": evaluation.accuracy(linear(average[0]), labels),
    }
    compare(digit, share, mistakes, "", within, percent, "digit")
    return (
        f"of the background's colour the average knows {right:.0%} of the variance; the digit it "
        f"names in {share:.0%} (chance {train.chance:.0%})"
    )


# Letter -> whether the maps of noise license the sentence, and why.
SENTENCES = {
    "A": (False, "the points are noise without groups, so groups in a map prove nothing"),
    "B": (True, "the same noise looks grouped or not as the perplexity says"),
    "C": (False, "t-SNE keeps who is near, not how far apart clouds are"),
    "D": (False, "t-SNE evens out densities: each point gets equally many neighbours"),
    "E": (True, "a kNN in the features asks them, and not the map"),
    "F": (True, "it is seen at several perplexities, and counted besides"),
}


def licensed(answer: Any) -> str:
    """02.6, the letters of the sentences that t-SNE licenses."""
    if not isinstance(answer, (set, frozenset, list, tuple)) or not set(answer) <= set(SENTENCES):
        raise Wrong(f"give a set of some of {printed(set(SENTENCES))}")
    for letter, (holds, why) in SENTENCES.items():
        if (letter in answer) != holds:
            verdict = "is licensed" if holds else "is not licensed"
            raise Wrong(f"{letter} {verdict}: {why}")
    return "those sentences, and no others"


CHECKS: dict[str, Callable[..., str]] = {
    "02.1": pool,
    "02.2": knn,
    "02.4": shuffle,
    "02.5": knows,
    "02.6": licensed,
}
