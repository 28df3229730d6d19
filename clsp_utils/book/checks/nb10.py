"""Checks of notebook 10: an encoder to take home, and what copies do to a score."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils.book.checks import NO_PERCENT, compare, entries
from clsp_utils.data import NORMALISATION, normalise, to_float


@torch.inference_mode()
def turned(answer: Any, encoder: nn.Module, pictures: Tensor) -> str:
    """10.1, mean cosine of right features and of those of inputs with CIFAR-10's constants.

    Args:
        encoder: normalises by itself; its `backbone` does not.
        pictures: uint8 `(B, H, W, 3)`.
    """
    right, x = encoder(pictures), to_float(pictures)
    foreign = encoder.backbone(normalise(x, NORMALISATION["cifar10"]))
    without = encoder.backbone(x)
    loud = encoder.backbone(normalise(255 * x, NORMALISATION["cifar10"]))

    def cosine(features: Tensor) -> Tensor:
        return F.cosine_similarity(right, features).mean()

    mistakes = {
        "that is the encoder with itself: feed encoder.backbone, which does not normalise": 1.0,
        "these inputs are not normalised at all": cosine(without),
        "the pictures are uint8: bring them to [0, 1] first, with to_float": cosine(loud),
        "bring the features to length 1: a cosine is at most 1": (right * foreign).sum(1).mean(),
        "that is 1 minus the cosine": 1 - cosine(foreign),
    }
    compare(answer, cosine(foreign), mistakes, within=6e-4)  # as it is printed, or nearer
    return f"{cosine(foreign):.3f}, where 1 is no change; so the exported encoder normalises itself"


def copies(answer: Any) -> str:
    """10.2, the score with a fifth of copies, where 0.6 is right without, and what is too much."""
    score, too_good = entries(answer, "score", "too good")
    share, without = 0.2, 0.6
    right = share + (1 - share) * without
    mistakes = {
        "that is without copies; the copies are right": without,
        "only the pictures without a copy can be wrong": share + without,
        "the copies count too, and are right": (1 - share) * without,
        "a picture with a copy is right, whatever the others are": 1 - share * without,
    }
    sum_of_both = "the copies are right, of the others 60 %"
    compare(score, right, mistakes, sum_of_both, 1e-3, NO_PERCENT, "score")
    mistakes = {
        "not all copies are gained, 60 % of them would have been right anyway": share,
        "the difference of the two scores, not its ratio to one of them": (
            (right - without) / without
        ),
        "what is said minus what is true": without - right,
    }
    difference = "the score minus 0.6"
    compare(too_good, right - without, mistakes, difference, 1e-3, NO_PERCENT, "too good")
    return f"it says {right:.2f}, which is {right - without:.2f} too good"


CHECKS: dict[str, Callable[..., str]] = {"10.1": turned, "10.2": copies}
