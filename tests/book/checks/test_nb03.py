"""The checks of notebook 03 on right answers, and on each mistake that they name."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch


def silence(features, t):
    return features._replace(h=torch.zeros_like(features.h))


def average(features, t):
    return features._replace(h=features.h.mean((2, 3), keepdim=True).expand_as(features.h))


def leave(features, t):
    return features


RIGHT = {"silence": silence, "average": average, "leave": leave}


def mean_over(dim, keepdim=True):
    def edit(features, t):
        mean = features.h.mean(dim, keepdim=keepdim)
        return features._replace(h=mean.expand_as(features.h) if keepdim else mean)

    return edit


def silence_in_place(features, t):
    features.h.zero_()
    return features


@pytest.mark.parametrize(
    "changed, part",
    [
        ({}, "✓"),
        ({"silence": lambda features, t: None}, "not yet"),
        ({"silence": lambda features, t: torch.zeros_like(features.h)}, "return all features"),
        ({"silence": silence_in_place}, "make new ones"),
        ({"silence": leave}, "silence: h must be zero"),
        (
            {"silence": lambda f, t: silence(f, t)._replace(skips=tuple(0 * s for s in f.skips))},
            "silence: leave the skips",
        ),
        (
            {"silence": lambda f, t: silence(f, t)._replace(temb=0 * f.temb)},
            "silence: leave the time embedding",
        ),
        ({"average": mean_over(0)}, "average: that is the mean over images"),
        ({"average": mean_over(1)}, "average: that is the mean over channels"),
        ({"average": mean_over((1, 2, 3))}, "average: each channel has a mean of its own"),
        (
            {"average": lambda f, t: f._replace(h=f.h.mean((2, 3), keepdim=True))},
            "spread the mean over all positions",
        ),
        ({"average": mean_over((2, 3), keepdim=False)}, "the shape of h, (B, C, h, w)"),
        ({"leave": silence}, "leave: h must stay"),
        (
            {"leave": lambda f, t: f if t == 400 else silence(f, t)},
            "leave: the samples differ",
        ),
    ],
)
def test_edits(said, unet, changed, part):
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert part in said("03.1", RIGHT | changed, unet=unet, noise=noise)


PLAIN = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
BARE = np.array([0, 1, 1, 1, 1, 1, 1, 1, 2, 2])
P, Q = np.array([0.4, 0.2, 0.4]), np.array([0.1, 0.7, 0.2])


@pytest.mark.parametrize(
    "answer, part",
    [
        (P @ Q, "✓ 03.3: chance is 26.0%; in bare backgrounds the judge says 1 in 70%"),
        (P @ Q + 0.004, "✓"),
        (100 * P @ Q, "not percent"),
        (0.1, "a tenth would be right"),
        (P @ P, "p with itself"),
        (Q @ Q, "q with itself"),
        (0.7, "the largest share"),
        (np.mean(PLAIN == BARE), "pairs as they stand"),
        (0.6, "off by"),
    ],
)
def test_chance_level(said, answer, part):
    assert part in said("03.3", answer, plain=PLAIN, bare=BARE)


TAUS = [100, 300, 500, 1000]


def sampled(edit):
    """The digit of an image stays where the middle spoke at 4, 3, 2 or 1 of these steps."""
    features = SimpleNamespace(h=torch.ones(1))
    features._replace = lambda h: SimpleNamespace(h=h)
    spoke = sum(bool(edit(features, torch.tensor(t)).h.all()) for t in (50, 200, 400, 900))
    return np.array([spoke >= 1, spoke >= 2, spoke >= 3, spoke >= 4])


DECIDED = {
    "sampled": sampled,
    "plain": np.array([1, 1, 1, 1]),
    "taus": TAUS,
    "companion": SimpleNamespace(
        judge=SimpleNamespace(agreement=lambda images, labels: np.mean(images == labels)),
        cached=lambda name, settings, make: make(),
        cfg=SimpleNamespace(study=SimpleNamespace(mask_steps=4)),
    ),
}


def silence_if(says):
    """tau -> an edit that silences at the steps of which `says(t, tau)` is true."""
    return lambda tau: lambda f, t: f._replace(h=0 * f.h) if says(t, tau) else f


FROM = silence_if(lambda t, tau: t >= tau)


@pytest.mark.parametrize(
    "edit, tau, part",
    [
        (FROM, 300, "✓ 03.4: from tau = 300 on half keep the digit; for each tau 25% (100), 50%"),
        (FROM, 100, "✓"),  # within a step of the grid
        (FROM, 500, "✓"),
        (FROM, 1000, "already at a tau below 1000"),
        (FROM, None, "not yet"),
        (FROM, 250, "tau is one of [100, 300, 500, 1000]"),
        (lambda tau: None, 300, "not yet"),
        (lambda tau: lambda f, t: None, 300, "not yet"),
        (
            lambda tau: lambda f, t: silence(f, t) if t >= tau else None,
            300,
            "below tau the edit returns nothing",
        ),
        (lambda tau: silence, 300, "silence h at all t >= tau"),
        (lambda tau: torch.zeros(1), 300, "must return an edit"),
        (silence_if(lambda t, tau: t < tau), 300, "the early ones are t >= tau"),
        (silence_if(lambda t, tau: t > tau), 300, "t == tau is silenced, too"),
    ],
)
def test_decided(said, edit, tau, part):
    assert part in said("03.4", {"silence_from": edit, "tau": tau}, **DECIDED)
