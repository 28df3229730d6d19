"""Checks of notebook 08: positives of clusters, and guidance."""

from collections.abc import Callable
from typing import Any

import torch

from clsp_utils.book.checks import NO_PERCENT, compare
from clsp_utils.runtime import generator

SIZES = (40, 15, 5)  # anchors of each class in the cluster


def agreement(answer: Any) -> str:
    """08.1, the agreement of samples of a cluster with its anchors."""
    n = sum(SIZES)
    right = sum(size**2 for size in SIZES) / n**2
    mistakes = {
        "that is the purity, the share of the largest class": max(SIZES) / n,
        "each class counts by its size, not as a third": 1 / 3,
        "divide once more: both the anchor and the sample are drawn from the cluster": n * right,
        "that is the chance to differ": 1 - right,
    }
    compare(answer, right, mistakes, within=5e-3, percent=NO_PERCENT)
    return f"{right:.3f}, less than the purity of {max(SIZES) / n:.3f}"


def guidance(answer: Callable) -> str:
    """08.2, `(eps_condition, eps_none, g) -> eps`."""
    condition, none = torch.randn(2, 2, 3, 4, 4, generator=generator("08.2"))
    for g in (0.5, 2.0, 0.0):
        mistakes = {
            "the direction is reversed: guidance goes beyond the condition": (
                (1 + g) * none - g * condition
            ),
            "that is a mean of the two: guidance goes beyond the condition": (
                (1 - g) * condition + g * none
            ),
            "the weights must sum to 1: take away g times what is predicted without": (
                (1 + g) * condition
            ),
            "at g = 0 the condition is left alone: its share is 1 + g": g * (condition - none),
            "at g = 0 the condition counts in full: start from it": none + g * (condition - none),
        }
        compare(answer(condition, none, g), (1 + g) * condition - g * none, mistakes)
    return "g = 0 is the condition alone; more of it goes beyond what training saw"


CHECKS: dict[str, Callable[..., str]] = {"08.1": agreement, "08.2": guidance}
