"""Samples of a condition: guidance against its equation, and what the condition decides alone."""

import numpy as np
import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.data import to_uint8
from clsp_utils.diffusion import build_unet, sample, sampling
from clsp_utils.positives import conditional_samples
from clsp_utils.runtime import generator

STEPS = 4
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
SHAPE = UNetShape(channels=(8, 16), groups=4)


@pytest.fixture
def by_class():
    torch.manual_seed(0)
    unet = build_unet(SHAPE, 8, n_classes=3).eval()
    torch.nn.init.normal_(unet.class_embedding.weight, std=3)  # classes that differ
    return unet


@pytest.fixture
def by_vector():
    torch.manual_seed(0)
    unet = build_unet(SHAPE, 8, n_features=5).eval()
    torch.nn.init.normal_(unet.class_embedding.weight)
    return unet


VECTORS = np.random.default_rng(0).standard_normal((3, 5), np.float32)


@pytest.mark.parametrize("kind", ["class", "vector"])
def test_guidance_against_its_equation(kind, by_class, by_vector):
    unet, condition, nothing = {
        "class": (by_class, torch.tensor([0, 2]), torch.tensor([3, 3])),
        "vector": (by_vector, torch.from_numpy(VECTORS[:2]), torch.zeros(2, 5)),
    }[kind]
    g = generator(0)
    noise = torch.randn(2, 3, 8, 8, generator=g)
    found = sample(unet, noise, 2, 0.0, g, "fp32", condition=condition, guidance=1.5)
    x = noise
    with torch.no_grad():
        for t, before in ((999, 499), (499, None)):
            given, without = (unet(x, t, class_labels=c).sample for c in (condition, nothing))
            eps = given + 1.5 * (given - without)
            a, a_before = ALPHA_BAR[t], ALPHA_BAR[before] if before else torch.tensor(1.0)
            x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
            x = a_before.sqrt() * x0 + (1 - a_before).sqrt() * eps
    assert (found.int() - to_uint8(x).int()).abs().max() <= 1  # rounding


def test_without_guidance_only_the_condition_is_computed(by_vector, monkeypatch):
    seen, encode = [], sampling.encode
    monkeypatch.setattr(
        sampling, "encode", lambda net, x, *rest: seen.append(len(x)) or encode(net, x, *rest)
    )
    how = (by_vector, VECTORS, 2, STEPS, 0.0)
    plain = conditional_samples(*how, 0.0, 7, "fp32")
    assert seen == [6] * STEPS
    nearly = conditional_samples(*how, 1e-6, 7, "fp32")
    assert seen == [6] * STEPS + [12] * STEPS
    assert np.abs(plain.astype(int) - nearly).max() <= 1


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_while_w_is_zero_samples_are_unconditional_bit_for_bit(guidance):
    torch.manual_seed(0)
    conditional = build_unet(SHAPE, 8, n_features=5).eval()
    torch.manual_seed(0)
    unconditional = build_unet(SHAPE, 8).eval()
    found = conditional_samples(conditional, VECTORS, 2, STEPS, None, guidance, 7, "fp32")
    g = generator(7, "class samples")
    noise = torch.randn(6, 3, 8, 8, generator=g)
    plain = sample(unconditional, noise, STEPS, None, g, "fp32").numpy()
    if guidance:  # eps + 2 (eps - eps), of which the second half is computed in a larger batch
        assert np.abs(found.reshape(plain.shape).astype(int) - plain).max() <= 1
    else:
        assert np.array_equal(found.reshape(plain.shape), plain)


@pytest.mark.parametrize("kind", ["class", "vector"])
def test_samples_depend_on_their_own_condition_alone(kind, by_class, by_vector):
    def make(rows):
        unet, conditions = (by_class, np.arange(3)) if kind == "class" else (by_vector, VECTORS)
        return conditional_samples(unet, conditions[rows], 2, STEPS, 0.5, 1.0, 7, "fp32")

    first, other = make([0, 1, 2]), make([0, 2, 2])
    assert first.shape == (3, 2, 8, 8, 3) and first.dtype == np.uint8
    assert (first != other).any((1, 2, 3, 4)).tolist() == [False, True, False]
    assert not np.array_equal(first[0, 0], first[0, 1])


def test_an_unknown_class_is_any_class(by_class):
    found = conditional_samples(by_class, np.array([-1, 1]), 1, STEPS, 0.0, 0.0, 7, "fp32")
    none = conditional_samples(by_class, np.array([3, 1]), 1, STEPS, 0.0, 0.0, 7, "fp32")
    assert np.array_equal(found, none)
