"""The checks of notebook 05 on right answers, and on each mistake that they name."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clsp_utils import evaluation
from clsp_utils.contrastive import clsp_term, nt_xent


def logits(z1, z2, temperature, diagonal=-torch.inf):
    z = torch.cat([z1, z2])
    itself = torch.eye(len(z), dtype=torch.bool)
    return (z @ z.T / temperature).masked_fill(itself, diagonal)


def partners(n):
    return torch.arange(2 * n).roll(n)


def with_itself(z1, z2, temperature):
    z = torch.cat([z1, z2])
    return F.cross_entropy(z @ z.T / temperature, partners(len(z1)))


def one_way(z1, z2, temperature):
    return F.cross_entropy(z1 @ z2.T / temperature, torch.arange(len(z1)))


def without_partner(z1, z2, temperature):
    x, partner = logits(z1, z2, temperature), partners(len(z1))[:, None]
    return (x.scatter(1, partner, -torch.inf).logsumexp(1) - x.gather(1, partner)[:, 0]).mean()


def with_one_less(z1, z2, temperature):
    z, positives = torch.cat([z1, z2]), (z1 * z2).sum(1) / temperature
    return ((z @ z.T / temperature).exp().sum(1) - 1).log().mean() - positives.mean()


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    "answer, part",
    [
        (nt_xent, "✓"),
        (lambda a, b, t: F.cross_entropy(logits(a, b, t), partners(len(a))), "✓"),
        (lambda a, b, t: F.cross_entropy(logits(a, b, t, -1e9), partners(len(a))), "✓"),
        (with_itself, "compared with itself"),
        (
            lambda a, b, t: F.cross_entropy(logits(a, b, t, 0), partners(len(a))),
            "a logit of 0 on the diagonal still counts",
        ),
        (
            lambda a, b, t: F.cross_entropy(logits(a, b, t), partners(len(a)), reduction="none"),
            "one number is expected, and the shape of this is (12,)",
        ),
        (lambda a, b, t: nt_xent(a, b, 1.0), "the temperature is missing"),
        (lambda a, b, t: nt_xent(a, b, 1 / t), "divide by the temperature"),
        (
            lambda a, b, t: F.cross_entropy(logits(a, b, t), torch.arange(2 * len(a)).roll(1)),
            "the partner of row i is row i + N",
        ),
        (one_way, "all 2N vectors look for their partner"),
        (lambda a, b, t: (one_way(a, b, t) + one_way(b, a, t)) / 2, "of the same view are"),
        (without_partner, "the partner belongs to the sum"),
        (with_one_less, "counts exp(1 / temperature) in the sum, not 1"),
        (lambda a, b, t: -(a * b).sum(1).mean() / t, "that is the pull alone"),
        (lambda a, b, t: 2 * len(a) * nt_xent(a, b, t), "a mean over all vectors"),
        (lambda a, b, t: 2 * nt_xent(a, b, t), "divide by 2N, not by N"),
        (lambda a, b, t: -nt_xent(a, b, t), "the sign is wrong"),
        (lambda a, b, t: nt_xent(a, b, t).item(), "no gradient flows back"),
        (lambda a, b, t: nt_xent(a.detach(), b, t), "no gradient flows back"),
        (lambda a, b, t: WrongGradient.apply(nt_xent(a, b, t)), "its gradient is not"),
    ],
)
def test_nt_xent(said, answer, part):
    assert part in said("05.1", answer)


def gradient(z, z3):
    return 2 * (z - z3) / len(z)


@pytest.mark.parametrize(
    "term, derivative, part",
    [
        (clsp_term, gradient, "✓"),
        (lambda z, z3: (2 - 2 * (z * z3).sum(1)).mean(), gradient, "✓"),
        (clsp_term, lambda z, z3: None, "not yet"),
        (F.mse_loss, gradient, "sum over the features"),
        (lambda z, z3: (z - z3).square().sum(), gradient, "a mean over the anchors"),
        (lambda z, z3: (z - z3).norm(dim=1).mean(), gradient, "the square of the distance"),
        (lambda z, z3: (1 - (z * z3).sum(1)).mean(), gradient, "not 1 - cos"),
        (lambda z, z3: (z * z3).sum(1).mean(), gradient, "the mean cosine"),
        (lambda z, z3: clsp_term(z, z3) / 0.2, gradient, "no temperature"),
        (clsp_term, lambda z, z3: 2 * (z - z3), "1/N of the mean is missing"),
        (clsp_term, lambda z, z3: 2 * (z - z3) / z.numel(), "gradient: divide by N, not by all"),
        (clsp_term, lambda z, z3: (z - z3) / len(z), "the factor 2"),
        (clsp_term, lambda z, z3: 2 * (z3 - z) / len(z), "the sign is wrong"),
        (clsp_term, lambda z, z3: -2 * z3 / len(z), "along the sphere only"),
        (clsp_term, lambda z, z3: gradient(z, z3).sum(1), "for each number of z"),
    ],
)
def test_term_and_gradient(said, term, derivative, part):
    assert part in said("05.2", {"term": term, "gradient": derivative})


def runs():
    columns = {"weight": [0, 1, 10, 100], "spread": [0.9, 0.5, 0.01, 0.0]}
    return pd.DataFrame(columns).assign(rank_me=[20.0, 10.0, 1.1, 1.0])


@pytest.mark.parametrize(
    "answer, part",
    [
        ({10, 100}, "✓ 05.3: you said [10, 100], measured [10, 100]\n  lambda = 0: spread 0.900"),
        (set(), "✓ 05.3: you said none, measured [10, 100]"),
        (None, "not yet"),
        ({5}, "a set of some of [0, 1, 10, 100]"),
        ([10, 100], "✓ 05.3: you said [10, 100], measured [10, 100]"),
        ({}, "give a set, such as {0, 100}"),
        (10, "give a set, such as {0, 100}"),
    ],
)
def test_collapse(said, answer, part):
    assert part in said("05.3", answer, runs=runs)


def test_nothing_is_trained_before_there_is_a_guess(said):
    for answer in (None, 10, "10", {}):
        text = said("05.3", answer, runs=lambda: pytest.fail("was trained"))
        assert "not yet" in text or "give a set" in text


class Network(nn.Module):
    """Projections and features of views that are vectors."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.backbone, self.projector = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return F.normalize(self.projector(self.backbone(x)), dim=1)


NETWORKS = {"SimCLR": Network(0), "CLSP-SimCLR": Network(1)}
VIEWS = dict(
    zip(("view 1", "view 3"), torch.randn(2, 10, 6, generator=torch.Generator().manual_seed(0)))
)
LABELS, SEEN = np.arange(10), np.array([0, 1, 2, 3, 4, 5, 0, 0, 0, 0])


def means(cosine):
    return (cosine[SEEN == LABELS].mean().item(), cosine[SEEN != LABELS].mean().item())


def cosines(of=lambda network, z1, z3: (z1 * z3).sum(1)):
    with torch.no_grad():
        return {
            name: means(of(network, network(VIEWS["view 1"]), network(VIEWS["view 3"])))
            for name, network in NETWORKS.items()
        }


@pytest.mark.parametrize(
    "answer, part",
    [
        (cosines(), "✓"),
        ({"SimCLR": cosines()["SimCLR"], "CLSP-SimCLR": None}, "not yet"),
        ({name: pair[::-1] for name, pair in cosines().items()}, "SimCLR: right and wrong are"),
        (
            cosines(
                lambda net, z1, z3: F.cosine_similarity(
                    net.backbone(VIEWS["view 1"]), net.backbone(VIEWS["view 3"])
                )
            ),
            "not the features of the backbone",
        ),
        (cosines(lambda net, z1, z3: (z1 * z3.roll(1, 0)).sum(1)), "another anchor's candidate"),
        (cosines() | {"CLSP-SimCLR": (0, 0)}, "CLSP-SimCLR: take z of view 1 and of view 3"),
        ({"SimCLR": (1, 2)}, "a dictionary with SimCLR, CLSP-SimCLR"),
    ],
)
def test_right_and_wrong(said, answer, part):
    companion = SimpleNamespace(
        judge=SimpleNamespace(classify=lambda images: SEEN),
        get=lambda stage, method: NETWORKS[method],
    )
    given = {"companion": companion, "views": VIEWS, "candidates": None, "labels": LABELS}
    assert part in said("05.4", answer, **given)
    if "✓" in part:
        assert "nothing to compare" in said("05.4", answer, **given | {"labels": SEEN})


def unit(z):
    return F.normalize(z, dim=1)


def pairs(z):
    return torch.pdist(unit(z)).square()


@pytest.mark.parametrize(
    "align, uniform, part",
    [
        (evaluation.alignment, evaluation.uniformity, "✓"),
        (evaluation.alignment, lambda z: (-2 * pairs(z)).exp().mean().log(), "✓"),
        (lambda a, b: None, evaluation.uniformity, "not yet"),
        (lambda a, b: (a - b).square().sum(1).mean(), None, "not yet"),
        (lambda a, b: (a - b).square().sum(1).mean(), max, "alignment: bring the rows to length"),
        (lambda a, b: (unit(a) - unit(b)).norm(dim=1).mean(), max, "the square of the distance"),
        (lambda a, b: F.mse_loss(unit(a), unit(b)), max, "sum over the features"),
        (lambda a, b: (unit(a) * unit(b)).sum(1).mean(), max, "this is the cosine"),
        (
            evaluation.alignment,
            lambda z: (-2 * torch.cdist(unit(z), unit(z)).square()).exp().mean().log(),
            "a row with itself",
        ),
        (evaluation.alignment, lambda z: (-2 * pairs(z)).exp().mean(), "the logarithm is missing"),
        (evaluation.alignment, lambda z: (-pairs(z)).exp().mean().log(), "the factor 2"),
        (
            evaluation.alignment,
            lambda z: (-2 * pairs(z).sqrt()).exp().mean().log(),
            "the exponent holds the square",
        ),
        (evaluation.alignment, lambda z: (-2 * pairs(z)).mean(), "not the mean of the logarithms"),
        (
            evaluation.alignment,
            lambda z: (-2 * torch.pdist(z).square()).exp().mean().log(),
            "uniformity: bring the rows to length 1",
        ),
    ],
)
def test_align_and_spread(said, align, uniform, part):
    assert part in said("05.5", {"alignment": align, "uniformity": uniform})
