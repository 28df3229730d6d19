"""Checks of notebook 05: the losses, and what training with synthetic positives does."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from clsp_utils import evaluation
from clsp_utils.book.checks import Wrong, compare, entries, printed
from clsp_utils.contrastive import clsp_term, nt_xent
from clsp_utils.pipeline import Pretrained
from clsp_utils.runtime import generator

COLLAPSED = 0.1  # spread of projections below which 05.3 calls them one place


def _unit_rows(name: str, count: int, n: int, d: int) -> list[Tensor]:
    """`count` tensors `(n, d)` with unit rows."""
    return list(F.normalize(torch.randn(count, n, d, generator=generator(name)), dim=2))


def nt_xent_in_six_lines(answer: Callable) -> str:
    """05.1, `(z1, z2, temperature) -> loss`."""
    z1, z2 = _unit_rows("05.1", 2, 6, 4)
    n, temperature = len(z1), 0.5
    z, partner = torch.cat([z1, z2]), torch.arange(2 * n).roll(n)
    cosines = z @ z.T
    alone = torch.full((2 * n,), -torch.inf).diag()
    across = z1 @ z2.T / temperature
    rows = torch.arange(2 * n)
    others = (cosines / temperature + alone).clone()
    positives = others[rows, partner]
    others[rows, partner] = -torch.inf
    right = nt_xent(z1, z2, temperature)
    mistakes = {
        "each vector is still compared with itself: leave the diagonal out of the sum": (
            F.cross_entropy(cosines / temperature, partner)
        ),
        "a logit of 0 on the diagonal still counts, as exp(0) = 1: -inf leaves it out": (
            F.cross_entropy((cosines / temperature).fill_diagonal_(0), partner)
        ),
        "a vector with itself counts exp(1 / temperature) in the sum, not 1": (
            ((cosines / temperature).exp().sum(1) - 1).log().mean() - positives.mean()
        ),
        "that is the pull alone; the sum over the others is missing": -positives.mean(),
        "the temperature is missing": nt_xent(z1, z2, 1.0),
        "divide by the temperature, in place of multiplying with it": nt_xent(z1, z2, 2.0),
        "the partner of row i is row i + N, and of row i + N row i": F.cross_entropy(
            cosines / temperature + alone, torch.arange(2 * n).roll(1)
        ),
        "the others of the same view are negatives, too: 2N - 1 others, not N": (
            F.cross_entropy(across, rows[:n]) + F.cross_entropy(across.T, rows[:n])
        )
        / 2,
        "all 2N vectors look for their partner, among all 2N - 1 others": F.cross_entropy(
            across, rows[:n]
        ),
        "the partner belongs to the sum in the denominator, too": (
            others.logsumexp(1) - positives
        ).mean(),
        "divide by 2N: the loss is a mean over all vectors": 2 * n * right,
        "divide by 2N, not by N": 2 * right,
        "the sign is wrong: a loss falls where partners are alike": -right,
    }
    with_gradient = z1.clone().requires_grad_()
    found = answer(with_gradient, z2, temperature)
    compare(found, right, mistakes)
    if not (isinstance(found, Tensor) and found.requires_grad):
        raise Wrong("the value is right, but no gradient flows back: leave it a tensor of torch")
    slow = z1.clone().requires_grad_()
    (expected,) = torch.autograd.grad(nt_xent(slow, z2, temperature), slow)
    (gradient,) = torch.autograd.grad(found, with_gradient)
    compare(gradient, expected, otherwise="the value is right, but its gradient is not")
    same = z1[:1].expand(n, -1)
    compare(answer(same, same, 0.2), math.log(2 * n - 1))
    return "value and gradient are those of the slow loop; all equal gives log(2N - 1)"


def term_and_gradient(answer: Any) -> str:
    """05.2, the CLSP term `(z, z3) -> number` and its gradient `(z, z3) -> (N, D)`."""
    term, gradient = entries(answer, "term", "gradient")
    z, z3 = _unit_rows("05.2", 2, 6, 3)
    right = clsp_term(z, z3)
    mistakes = {
        "the mean is over anchors: sum over the features of each": F.mse_loss(z, z3),
        "divide by N: it is a mean over the anchors": len(z) * right,
        "it is the square of the distance": (z - z3).norm(dim=1).mean(),
        "2 - 2 cos, not 1 - cos": right / 2,
        "this is the mean cosine; the term is 2 - 2 cos": (z * z3).sum(1).mean(),
        "there is no temperature in it": right / 0.2,
    }
    compare(term(z, z3), right, mistakes, part="term")
    variable = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(clsp_term(variable, z3), variable)
    mistakes = {
        "the 1/N of the mean is missing": len(z) * expected,
        "divide by N, not by all N * D numbers: each anchor's features are summed": (
            expected / z.shape[1]
        ),
        "the factor 2 of the square is missing": expected / 2,
        "the sign is wrong: the term grows away from z3": -expected,
        "that is the gradient of 2 - 2 cos, which agrees along the sphere only": -2 * z3 / len(z),
        "give it for each number of z, (N, D)": expected.sum(1),
    }
    compare(gradient(z, z3), expected, mistakes, part="gradient")
    return "both agree with autograd: each z is pulled straight towards its z3"


def collapse(answer: Any, runs: Callable[[], pd.DataFrame]) -> str:
    """05.3, the set of lambda whose projections collapse.

    Args:
        runs: trains and gives columns weight (lambda), spread, rank_me.
    """
    if not isinstance(answer, (set, frozenset, list, tuple)):
        raise Wrong("give a set, such as {0, 100}; set() if none of them does")
    answer, table = set(answer), runs()
    weights = set(table.weight)
    if not answer <= weights:
        raise Wrong(f"give a set of some of {printed(weights)}, such as {{{max(weights):g}}}")
    lines = (
        f"  lambda = {row.weight:g}: spread {row.spread:.3f}, RankMe {row.rank_me:.1f}"
        for row in table.itertuples()
    )
    collapsed = set(table.weight[table.spread < COLLAPSED])
    said = printed(answer) if answer else "none"
    measured = printed(collapsed) if collapsed else "none"
    return "\n".join([f"you said {said}, measured {measured}", *lines])


def right_and_wrong(
    answer: Any,
    companion: Any,
    views: dict[str, Tensor],
    candidates: np.ndarray,
    labels: np.ndarray,
) -> str:
    """05.4, encoder -> mean cosines (right, wrong) of views with candidates of either kind.

    Args:
        views: "view 1" of the anchors and "view 3" of the candidates, partners in the same row.
        candidates: uint8 `(N, H, W, 3)`; labels: `(N,)` of their anchors.
    """
    methods = ("SimCLR", "CLSP-SimCLR")
    found = entries(answer, *methods)
    seen = companion.judge.classify(candidates)
    keeps, told = seen == labels, []
    if keeps.all() or not keeps.any():
        return "here all candidates are of one kind, so there is nothing to compare"
    for method, pair in zip(methods, found, strict=True):
        encoder = companion.get(Pretrained, method=method)
        with torch.inference_mode():
            z1, z3 = encoder(views["view 1"]), encoder(views["view 3"])
            f1, f3 = encoder.backbone(views["view 1"]), encoder.backbone(views["view 3"])
        cosine = (z1 * z3).sum(1).numpy()
        between = F.cosine_similarity(f1, f3).numpy()
        other = (z1 * z3.roll(1, 0)).sum(1).numpy()
        right = _means(cosine, keeps)
        mistakes = {
            "right and wrong are exchanged": right[::-1],
            "take the projections, not the features of the backbone": _means(between, keeps),
            "that is the view of another anchor's candidate": _means(other, keeps),
        }
        hint = "take z of view 1 and of view 3, row by row, then the mean over each kind"
        compare(pair, right, mistakes, hint, within=0.01, part=method)
        told.append(f"{method}: right {right[0]:.2f}, wrong {right[1]:.2f}")
    return f"{'; '.join(told)} ({keeps.mean():.0%} of {len(keeps)} candidates are right)"


def _means(cosine: np.ndarray, keeps: np.ndarray) -> list[float]:
    return [float(cosine[keeps].mean()), float(cosine[~keeps].mean())]


def align_and_spread(answer: Any) -> str:
    """05.5, alignment `(z1, z2) -> number` and uniformity `z -> number`, of any rows."""
    align, uniform = entries(answer, "alignment", "uniformity")
    z1, z2 = 3 * torch.randn(2, 8, 5, generator=generator("05.5"))
    u1, u2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    mistakes = {
        "bring the rows to length 1 first": (z1 - z2).square().sum(1).mean(),
        "it is the square of the distance": (u1 - u2).norm(dim=1).mean(),
        "sum over the features, then the mean over pairs": (u1 - u2).square().mean(),
        "this is the cosine: ||u1 - u2||^2 is 2 - 2 cos": (u1 * u2).sum(1).mean(),
    }
    compare(align(z1, z2), evaluation.alignment(z1, z2), mistakes, part="alignment")
    squares = torch.cdist(u1, u1).square()
    pairs = squares[~torch.eye(len(u1), dtype=torch.bool)]
    mistakes = {
        "leave out the pairs of a row with itself": (-2 * squares).exp().mean().log(),
        "the logarithm is missing": (-2 * pairs).exp().mean(),
        "the factor 2 in the exponent is missing": (-pairs).exp().mean().log(),
        "the exponent holds the square of the distance": (-2 * pairs.sqrt()).exp().mean().log(),
        "take the logarithm of the mean, not the mean of the logarithms": (-2 * pairs).mean(),
        "bring the rows to length 1 first": ((-2 * F.pdist(z1).square()).exp().mean().log()),
    }
    compare(uniform(z1), evaluation.uniformity(z1), mistakes, part="uniformity")
    return "both are the package's; 06 asks whether such numbers foresee accuracy"


CHECKS: dict[str, Callable[..., str]] = {
    "05.1": nt_xent_in_six_lines,
    "05.2": term_and_gradient,
    "05.3": collapse,
    "05.4": right_and_wrong,
    "05.5": align_and_spread,
}
