"""Class positives: guidance against its equation, and samples that depend on the label alone."""

import numpy as np
import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.data import to_uint8
from clsp_utils.diffusion import build_unet, sample
from clsp_utils.positives import class_samples
from clsp_utils.runtime import generator

STEPS = 4
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)


@pytest.fixture
def conditional():
    torch.manual_seed(0)
    unet = build_unet(UNetShape(channels=(8, 16), groups=4), 8, n_classes=3).eval()
    torch.nn.init.normal_(unet.class_embedding.weight, std=3)  # classes that differ
    return unet


def test_guidance_against_its_equation(conditional):
    labels, g = torch.tensor([0, 2]), generator(0)
    noise = torch.randn(2, 3, 8, 8, generator=g)
    found = sample(conditional, noise, 2, 0.0, g, "fp32", labels=labels, guidance=1.5)
    x, nobody = noise, torch.tensor([3, 3])
    with torch.no_grad():
        for t, before in ((999, 499), (499, None)):
            with_class, without = (
                conditional(x, t, class_labels=c).sample for c in (labels, nobody)
            )
            eps = with_class + 1.5 * (with_class - without)
            a, a_before = ALPHA_BAR[t], ALPHA_BAR[before] if before else torch.tensor(1.0)
            x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
            x = a_before.sqrt() * x0 + (1 - a_before).sqrt() * eps
    assert (found.int() - to_uint8(x).int()).abs().max() <= 1  # rounding


def test_class_samples_depend_on_the_label_alone(conditional):
    def make(labels):
        return class_samples(conditional, np.array(labels), 2, STEPS, 0.5, 1.0, 7, "fp32")

    first, other = make([0, 1, 2]), make([0, 2, 2])
    assert first.shape == (3, 2, 8, 8, 3) and first.dtype == np.uint8
    assert (first != other).any((1, 2, 3, 4)).tolist() == [False, True, False]
    assert not np.array_equal(first[0, 0], first[0, 1])
