"""Checks of notebook 11: losses of more than two views."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clsp_utils import contrastive
from clsp_utils.book.checks import NO_PERCENT, compare, printed
from clsp_utils.runtime import generator


def mv_dhel(answer: Callable) -> str:
    """11.1, `(u, temperature) -> loss`, u of unit rows `(V, M, D)`."""
    u = F.normalize(torch.randn(3, 6, 5, generator=generator("11.1")), dim=2)
    temperature = 0.5
    similar = u @ u.mT / temperature  # (V, M, M), within a view
    itself = torch.eye(u.shape[1], dtype=torch.bool)
    others = similar.masked_fill(itself, -torch.inf).logsumexp(2)
    across = torch.einsum("aid,bid->iab", u, u) / temperature
    views = across.masked_fill(torch.eye(len(u), dtype=torch.bool), -torch.inf)
    pairs = views.logsumexp((1, 2)) - math.log(2)
    right = contrastive.mv_dhel(u, temperature)
    mistakes = {
        "an anchor is no negative for itself: leave out j = i": (
            similar.logsumexp(2).sum(0) - pairs
        ).mean(),
        "a view is no positive for itself: leave out l = l'": (
            others.sum(0) - across.logsumexp((1, 2)) + math.log(2)
        ).mean(),
        "each pair of views counts once, l < l'": right - math.log(2),
        "take the logarithm for each view, then the sum": (others.logsumexp(0) - pairs).mean(),
        "add up the views, in place of averaging": (others.mean(0) - pairs).mean(),
        "the negatives are those of the same view": contrastive.mv_info_nce(u, temperature),
        "the temperature is missing": contrastive.mv_dhel(u, 1.0),
        "the sign is wrong: a loss falls where views are alike": -right,
        "it is a mean over the anchors": len(u[0]) * right,
    }
    found = answer(u, temperature)
    compare(found, right, mistakes)
    return f"the package's value, {printed(float(right))}"


def weight(answer: Any, attraction: Callable[[Tensor], Tensor]) -> str:
    """11.2, the p+ of a view at squared distance 1.5, beside one at 0.5, for t+ = 1.

    Args:
        attraction: from u `(V, M, D)` to the mean p+ of each view.
    """
    right = 1 / (1 + math.exp(-1.0))
    mistakes = {
        "the farther positive gets the larger weight: softmax of + t d": 1 - right,
        "a softmax has exponentials: not 1.5 / (0.5 + 1.5)": 0.75,
        "the distances are squared already": 1 / (1 + math.exp(-(1.5**2 - 0.5**2))),
        "the distances are squared, and stay so": 1 / (1 + math.exp(-(1.5**0.5 - 0.5**0.5))),
        "divide by the sum of both exponentials": math.exp(1.5),
    }
    compare(answer, right, mistakes, within=5e-3, percent=NO_PERCENT)
    u = F.normalize(torch.randn(2, 8, 16, generator=generator("11.2")), dim=2)
    shares = ", ".join(f"{share:.2f}" for share in attraction(torch.stack([u[0], u[0], u[1]])))
    return f"{right:.3f}; two equal views and a far third get {shares}"


CHECKS: dict[str, Callable[..., str]] = {"11.1": mv_dhel, "11.2": weight}
