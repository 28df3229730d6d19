"""The checks of notebook 11 on right answers, and on each mistake that they name."""

import math

import pytest
import torch

from clsp_utils.contrastive import cacr, mv_dhel, mv_info_nce


def parts(u, temperature, itself=False, own_view=False, orders=2):
    """Negatives (V, M) and positives (M,), as sums of exponentials."""
    similar = torch.exp(u @ u.mT / temperature)
    others = similar.sum(2) - (0 if itself else similar.diagonal(dim1=1, dim2=2))
    pairs = torch.exp(torch.einsum("aid,bid->abi", u, u) / temperature)
    both = pairs.sum((0, 1)) - (0 if own_view else pairs.diagonal(dim1=0, dim2=1).sum(1))
    return others, both / orders


def by_hand(u, temperature, **changes):
    others, pairs = parts(u, temperature, **changes)
    return (others.log().sum(0) - pairs.log()).mean()


def log_of_sum(u, temperature):
    others, pairs = parts(u, temperature)
    return (others.sum(0).log() - pairs.log()).mean()


def mean_of_views(u, temperature):
    others, pairs = parts(u, temperature)
    return (others.log().mean(0) - pairs.log()).mean()


@pytest.mark.parametrize(
    "answer, part",
    [
        (mv_dhel, "✓"),
        (by_hand, "✓"),
        (lambda u, t: None, "not yet"),
        (lambda u, t: by_hand(u, t, itself=True), "leave out j = i"),
        (lambda u, t: by_hand(u, t, own_view=True), "leave out l = l'"),
        (lambda u, t: by_hand(u, t, orders=1), "each pair of views counts once"),
        (log_of_sum, "the logarithm for each view"),
        (mean_of_views, "in place of averaging"),
        (mv_info_nce, "of the same view"),
        (lambda u, t: by_hand(u, 1.0), "the temperature is missing"),
        (lambda u, t: -by_hand(u, t), "the sign is wrong"),
        (lambda u, t: u.shape[1] * by_hand(u, t), "a mean over the anchors"),
    ],
)
def test_mv_dhel(said, answer, part):
    assert part in said("11.1", answer)


@pytest.mark.parametrize(
    "answer, part",
    [
        (math.exp(1.5) / (math.exp(0.5) + math.exp(1.5)), "✓ 11.2: 0.731; two equal views and"),
        (None, "not yet"),
        (0.269, "the farther positive gets the larger"),
        (0.75, "a softmax has exponentials"),
        (1 / (1 + math.exp(-2.0)), "squared already"),
        (1 / (1 + math.exp(0.5**0.5 - 1.5**0.5)), "and stay so"),
        (math.exp(1.5), "divide by the sum"),
        (73, "not percent"),
    ],
)
def test_weight(said, answer, part):
    assert part in said("11.2", answer, attraction=lambda u: cacr(u, 1.0, 1.0)[1])
