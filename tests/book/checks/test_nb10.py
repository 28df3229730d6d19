"""The checks of notebook 10 on right answers, and on each mistake that they name."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clsp_utils.data import NORMALISATION, ChannelStatistics, normalise, to_float


class Exported(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU())

    def forward(self, pictures):
        own = ChannelStatistics((0.2, 0.5, 0.7), (0.1, 0.3, 0.2))
        return self.backbone(normalise(to_float(pictures), own))


ENCODER = Exported()
PICTURES = torch.randint(256, (5, 4, 4, 3), dtype=torch.uint8)
FOREIGN = NORMALISATION["cifar10"]


def cosine(x):
    with torch.inference_mode():
        return F.cosine_similarity(ENCODER(PICTURES), ENCODER.backbone(x)).mean().item()


def product(x):
    with torch.inference_mode():
        return (ENCODER(PICTURES) * ENCODER.backbone(x)).sum(1).mean().item()


NORMAL = normalise(to_float(PICTURES), FOREIGN)


@pytest.mark.parametrize(
    "answer, part",
    [
        (cosine(NORMAL), "✓"),
        (round(cosine(NORMAL), 3), "✓"),
        (None, "not yet"),
        (1.0, "the encoder with itself"),
        (cosine(to_float(PICTURES)), "not normalised at all"),
        (cosine(normalise(255 * to_float(PICTURES), FOREIGN)), "to [0, 1] first"),
        (product(NORMAL), "a cosine is at most 1"),
        (1 - cosine(NORMAL), "1 minus the cosine"),
    ],
)
def test_turned(said, answer, part):
    assert part in said("10.1", answer, encoder=ENCODER, pictures=PICTURES)


@pytest.mark.parametrize(
    "score, too_good, part",
    [
        (0.68, 0.08, "✓ 10.2: it says 0.68, which is 0.08 too good"),
        (0.68, None, "not yet"),
        (0.6, 0.08, "that is without copies"),
        (0.8, 0.08, "can be wrong"),
        (0.48, 0.08, "the copies count too"),
        (68, 8, "not percent"),
        (0.88, 0.08, "whatever the others are"),
        (0.7, 0.08, "of the others 60 %"),
        (0.68, 0.2, "would have been right anyway"),
        (0.68, 0.08 / 0.6, "not its ratio to one of them"),
        (0.68, 8, "too good: give a share in [0, 1], not percent"),
        (0.68, -0.08, "minus what is true"),
        (0.68, 0.1, "the score minus 0.6"),
    ],
)
def test_copies(said, score, too_good, part):
    assert part in said("10.2", {"score": score, "too good": too_good})
