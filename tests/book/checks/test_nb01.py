"""The checks of notebook 01 on right answers, and on each mistake that they name."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clsp_utils.config import Data
from clsp_utils.data import load
from clsp_utils.diffusion import min_snr_weight, noise_schedule

ALPHA_BAR = noise_schedule().alphas_cumprod


def column(x):
    return x.view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    "answer, part",
    [
        (lambda x, e, t, a: column(a[t]).sqrt() * x + column(1 - a[t]).sqrt() * e, "✓"),
        (lambda x, e, t, a: a[t].sqrt() * x + (1 - a[t]).sqrt() * e, "stretched over the columns"),
        (lambda x, e, t, a: column(a[t]) * x + column(1 - a[t]) * e, "square roots are missing"),
        (lambda x, e, t, a: column(a[t]).sqrt() * e + column(1 - a[t]).sqrt() * x, "exchanged"),
        (lambda x, e, t, a: column(a[t]).sqrt() * x + (1 - column(a[t]).sqrt()) * e, "root of 1 -"),
        (lambda x, e, t, a: a[t[0]].sqrt() * x + (1 - a[t[0]]).sqrt() * e, "a t of its own"),
        (lambda x, e, t, a: x, "off by"),
        (lambda x, e, t, a: x[0], "the shape is"),
    ],
)
def test_noising(said, answer, part):
    assert part in said("01.1", answer)


QUIZ = {
    "noised": np.zeros((2, 3, 8, 8, 3), np.uint8),
    "labels": np.array([1, 2, 3, 4, 5, 6]),
    "times": [500, 100],
    "companion": SimpleNamespace(
        judge=SimpleNamespace(classify=lambda x: np.array([1, 2, 0, 0, 0, 6])),
        data=SimpleNamespace(train=SimpleNamespace(n_classes_present=10)),
    ),
}


@pytest.mark.parametrize(
    "answer, part",
    [
        ({500: [1, 2, 3], 100: [4, 0, 0]}, "t = 500: you 3 of 3, the classifier 2 of 3"),
        ({500: [1, 2, 3], 100: [4, 0, 0]}, "t = 100: you 1 of 3, the classifier 1 of 3"),
        ({500: [1, 2, 3], 100: []}, "not yet"),
        ({500: [1, 2], 100: [4, 0, 0]}, "t = 500: 2 labels for 3 images"),
        ({500: "123", 100: np.array([4, 0, 0])}, "t = 500: you 3 of 3"),
        ({500: ["1", "2", "3"], 100: (4, 0, 0)}, "t = 500: you 3 of 3"),
        ({500: [1, 2, 3], 100: 4}, "t = 100: a list of 3 labels is expected"),
        ({500: ["one", 2, 3], 100: [4, 0, 0]}, "t = 500: a list of 3 labels is expected"),
        ({500: {1, 2, 3}, 100: [4, 0, 0]}, "t = 500: a set has no order"),
        ({500: [1, 2, 3]}, "a dictionary with 500, 100"),
    ],
)
def test_names(said, answer, part):
    assert part in said("01.2", answer, **QUIZ)


def test_names_without_labels(said):
    answer = {500: [1, 2, 3], 100: [4, 0, 0]}
    text = said("01.2", answer, **QUIZ | {"labels": np.array([1, 2, 3, 4, 5, -1])})
    assert text.startswith("✗") and "have a label" in text


T = torch.arange(0, 1000, 10)
ERRORS = 1 / (1 + T / 100)
WEIGHT = min_snr_weight(noise_schedule(), T, 5.0)
SNR = ALPHA_BAR[T] / (1 - ALPHA_BAR[T])


def sums(x):
    return [x[quarter == T // 250].sum().item() for quarter in range(4)]


def shares(x):
    return (np.array(sums(x)) / x.sum().item()).tolist()


@pytest.mark.parametrize(
    "plain, weighted, part",
    [
        (shares(ERRORS), shares(ERRORS * WEIGHT), "✓"),
        ([x + 0.02 for x in shares(ERRORS)], shares(ERRORS * WEIGHT), "✓"),
        (shares(ERRORS), None, "not yet"),
        (shares(ERRORS * WEIGHT), shares(ERRORS), "plain: these are the shares of min-SNR"),
        (shares(ERRORS), shares(ERRORS), "min-SNR: these are the shares of plain"),
        ([100 * x for x in shares(ERRORS)], shares(ERRORS * WEIGHT), "not percent"),
        (shares(ERRORS), [round(100 * x) for x in shares(ERRORS * WEIGHT)], "min-SNR: give shares"),
        (sums(ERRORS), shares(ERRORS * WEIGHT), "plain: divide by the sum"),
        (np.cumsum(shares(ERRORS)), shares(ERRORS * WEIGHT), "own share"),
        (shares(ERRORS), shares(ERRORS * SNR.clamp(max=5)), "divided by SNR"),
        (shares(ERRORS)[:3], shares(ERRORS * WEIGHT), "the shape is (3,)"),
    ],
)
def test_loss_shares(said, plain, weighted, part):
    text = said("01.3", {"plain": plain, "min-SNR": weighted}, errors=ERRORS, t=T)
    assert part in text


def test_means_are_no_shares(said):
    answer = {"plain": np.array(sums(4 * ERRORS)) / 25, "min-SNR": shares(ERRORS * WEIGHT)}
    assert "plain: these are means" in said("01.3", answer, errors=4 * ERRORS, t=T)


def ddim(x, eps, a_t, a_s):
    guess = ((x - (1 - a_t).sqrt() * eps) / a_t.sqrt()).clamp(-1, 1)
    return a_s.sqrt() * guess + (1 - a_s).sqrt() * eps


def free(x, eps, a_t, a_s):
    return a_s.sqrt() * (x - (1 - a_t).sqrt() * eps) / a_t.sqrt() + (1 - a_s).sqrt() * eps


def with_other_noise(x, eps, a_t, a_s):
    guess = ((x - (1 - a_t).sqrt() * eps) / a_t.sqrt()).clamp(-1, 1)
    return a_s.sqrt() * guess + (1 - a_s).sqrt() * (x - a_t.sqrt() * guess) / (1 - a_t).sqrt()


def numpy_ddim(x, eps, a_t, a_s):
    return ddim(x, eps, a_t, a_s).numpy()


def undivided(x, eps, a_t, a_s):
    return a_s.sqrt() * (x - (1 - a_t).sqrt() * eps).clamp(-1, 1) + (1 - a_s).sqrt() * eps


def with_new_noise(x, eps, a_t, a_s):
    return a_s.sqrt() * clean(x, eps, a_t, a_s) + (1 - a_s).sqrt() * torch.randn_like(x)


def to_one(x, eps, a_t, a_s):
    return a_s.sqrt() * clean(x, eps, a_t, a_s).clamp(min=0) + (1 - a_s).sqrt() * eps


def clean(x, eps, a_t, a_s):
    return ((x - (1 - a_t).sqrt() * eps) / a_t.sqrt()).clamp(-1, 1)


@pytest.mark.parametrize(
    "answer, part",
    [
        (ddim, "✓"),
        (numpy_ddim, "✓"),
        (undivided, "divide by it"),
        (with_new_noise, "not with new noise"),
        (to_one, "not to [0, 1]"),
        (lambda x, eps, a_t, a_s: ddim(x, eps, a_s, a_t), "are exchanged"),
        (clean, "noise it again"),
        (
            lambda x, eps, a_t, a_s: a_s.sqrt() * clean(x, eps, a_t, a_s) + (1 - a_t).sqrt() * eps,
            "the noise is weaker than at t",
        ),
        (
            lambda x, eps, a_t, a_s: a_s * clean(x, eps, a_t, a_s) + (1 - a_s) * eps,
            "square roots are missing",
        ),
        (lambda x, eps, a_t, a_s: ddim(x, -eps, a_t, a_s), "minus the noise"),
        (free, "not clipped"),
        (lambda x, eps, a_t, a_s: free(x, eps, a_t, a_s).clamp(-1, 1), "not the noisy image"),
        (with_other_noise, "leave eps as it was"),
    ],
)
def test_ddim_step(said, unet, answer, part):
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert part in said("01.4", answer, unet=unet, noise=noise)


def edges(images):
    x = images.astype(np.float32)
    edge = np.abs(np.diff(x, axis=1))[:, :, :-1] + np.abs(np.diff(x, axis=2))[:, :-1]
    edge = edge.sum(3).reshape(len(x), -1)
    return edge / (np.linalg.norm(edge, axis=1, keepdims=True) + 1e-6)


@pytest.fixture(scope="module")
def digits():
    train, test = load(Data(limit=300))
    return {"train": train, "test": test, "samples": test.images[:20]}


@pytest.mark.parametrize(
    "answer, part",
    [
        (edges, "✓"),
        (lambda images: torch.from_numpy(edges(images)).view(len(images), 15, 15), "✓"),
        (lambda images: None, "not yet"),
        (lambda images: images, "still follows the background"),
        (lambda images: images.mean(3), "lightness is a colour"),
        (lambda images: np.ones((len(images), 3)), "all images come to the same"),
        (lambda images: edges(images)[:, :3], "the strokes are lost"),
        (lambda images: edges(images) * np.nan, "not finite"),
        (lambda images: edges(images).T, "rows came out"),
    ],
)
def test_strokes(said, digits, answer, part):
    assert part in said("01.5", answer, **digits)
