"""The checks of notebook 04 on right answers, and on each mistake that they name."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from clsp_utils.diffusion import decode, encode, encode_noised, noise_schedule
from clsp_utils.evaluation import background_match
from clsp_utils.runtime import generator


@pytest.mark.parametrize(
    "answer, part",
    [
        (lambda h, a, w: w * h + (1 - w) * a, "✓"),
        (lambda h, a, w: torch.lerp(a, h, w), "✓"),
        (lambda h, a, w: (1 - w) * h + w * a, "the direction is reversed"),
        (lambda h, a, w: w * h, "the anchor's part is missing"),
        (lambda h, a, w: (1 - w) * a, "the noise branch's part is missing"),
        (lambda h, a, w: w * h + a, "the anchor is added in full"),
        (lambda h, a, w: h, "off by"),
    ],
)
def test_mixing(said, answer, part):
    assert part in said("04.1", answer)


def lines(mixes=None, of_anchor=None, anchor_skips=False):
    """An answer to 04.2; by default the right one."""
    mixes = mixes or (lambda h, a, w: w * h + (1 - w) * a)
    of_anchor = of_anchor or encode_noised

    def answer(unet, x, x_anchor, t, w, g):
        h, skips, temb = encode(unet, x, t)
        own = of_anchor(unet, x_anchor, t, g)
        return decode(unet, mixes(h, own.h, w), own.skips if anchor_skips else skips, temb)

    return answer


def mixed_skips(unet, x, x_anchor, t, w, g):
    (h, skips, temb), own = encode(unet, x, t), encode_noised(unet, x_anchor, t, g)
    both = tuple(w * one + (1 - w) * other for one, other in zip(skips, own.skips))
    return decode(unet, w * h + (1 - w) * own.h, both, temb)


def mixed_pixels(unet, x, x_anchor, t, w, g):
    return decode(unet, *encode(unet, w * x + (1 - w) * x_anchor, t))


def noised_to_zero(unet, x, t, g):
    noise = torch.randn(x.shape, generator=g)
    zero = torch.zeros(len(x), dtype=torch.long)
    return encode(unet, noise_schedule().add_noise(x, noise, zero), t)


@pytest.mark.parametrize(
    "answer, part",
    [
        (lines(), "✓"),
        (lambda *given: None, "not yet"),
        (lines(anchor_skips=True), "the skips are the anchor's"),
        (mixed_skips, "only the middle is mixed"),
        (mixed_pixels, "each step sees the same noise, or none"),
        (lines(lambda h, a, w: (1 - w) * h + w * a), "the direction is reversed"),
        (lines(of_anchor=lambda unet, x, t, g: encode(unet, x, t)), "must be noised to t"),
        (lines(of_anchor=noised_to_zero), "noised to step 0"),
        (lines(lambda h, a, w: h), "the anchor is not mixed in"),
        (
            lines(of_anchor=lambda unet, x, t, g: encode_noised(unet, x, t, generator("mine"))),
            "each step sees the same noise, or none",
        ),
        (
            lines(
                of_anchor=lambda unet, x, t, g: encode_noised(unet, x, t, torch.default_generator)
            ),
            "draw the anchor's noise with g",
        ),
        (lines(lambda h, a, w: h + a), "off by"),
    ],
)
def test_two_lines(said, unet, answer, part):
    anchors = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    with torch.inference_mode():
        assert part in said("04.2", answer, unet=unet, anchors=anchors, w=0.4, seed=0)


CURVE = pd.DataFrame(
    {
        "w": [0.0, 0.2, 0.8, 1.0],
        "agreement": [0.95, 0.85, 0.5, 0.1],
        "background_match": [0.9, 0.7, 0.3, 0.0],
    }
)


class Eight(SimpleNamespace):
    def __len__(self):
        return 8


def samples(stage, mix_weight, k, n, **shared):
    """Eight images whose first number is the share that keeps the label."""
    assert k == 1 and n == 8 and shared == {"steps": 4}
    return np.full((8, 1, 4, 4, 3), 1 - mix_weight)


COMPANION = SimpleNamespace(
    study_images=Eight(labels=np.arange(8), background_or_image=np.zeros((8, 4, 4, 3))),
    data=SimpleNamespace(train=SimpleNamespace(chance=0.1)),
    judge=SimpleNamespace(agreement=lambda images, labels: float(images[0, 0, 0, 0])),
    get=samples,
)


@pytest.mark.parametrize(
    "promised, measured, part",
    [
        (
            0.3,
            0.1,
            "✓ 04.3: promised 30%, measured 10% (chance 10%): "
            "the straight line is 20 points too high, which may be chance: 8 samples are known to "
            "± 21\n",
        ),
        (0.3, None, "not yet"),
        (0.9, 0.1, "that is the curve at w = 0.1"),
        (0.15, 0.1, "that is the background match"),
        (30, 0.1, "promised: give a share in [0, 1], not percent"),
        (0.3, 10, "measured: give a share in [0, 1], not percent"),
        (0.5, 0.1, "with np.interp"),
        (0.3, 0.3, "that is the promise"),
        (0.3, 0.9, "these samples are at w = 0.1"),
        (0.3, 0.0, "the background match of the samples"),
    ],
)
def test_promise(said, promised, measured, part):
    answer = {"promised": promised, "measured": measured}
    text = said("04.3", answer, curve=CURVE, companion=COMPANION, shared={"steps": 4})
    assert part in text


LOWS = [100, 300]
FEW = SimpleNamespace(background_or_image=np.random.default_rng(0).random((20, 4, 4, 3)))


def mixed():
    return lambda features, t: features._replace(h=2 * features.h)


def sampled(edit):
    """Images that follow the background the better, the more steps the edit acts at."""
    features = SimpleNamespace(h=torch.ones(1))
    features._replace = lambda h: SimpleNamespace(h=h)
    acts = sum(edit(features, torch.tensor(t)).h.item() - 1 for t in (50, 200, 400))
    other = np.random.default_rng(1).random((20, 4, 4, 3))
    return acts * FEW.background_or_image + (3 - acts) * other


def only_if(says):
    return lambda low, edit: lambda features, t: edit(features, t) if says(t, low) else features


def match_of(says):
    return {
        low: background_match(sampled(only_if(says)(low, mixed())), FEW.background_or_image)
        for low in LOWS
    }


def early(t, low):
    return t >= low


@pytest.mark.parametrize(
    "only_from, match, part",
    [
        (only_if(early), match_of(early), "✓"),
        (only_if(early), None, "not yet"),
        (lambda low, edit: None, match_of(early), "not yet"),
        (lambda low, edit: lambda features, t: None, match_of(early), "not yet"),
        (
            lambda low, edit: lambda features, t: edit(features, t) if t >= low else None,
            match_of(early),
            "below `low` the edit returns nothing",
        ),
        (only_if(lambda t, low: t < low), match_of(early), "it acts below `low`"),
        (only_if(lambda t, low: t > low), match_of(early), "t == low belongs to the window"),
        (lambda low, edit: edit, match_of(early), "leave the features as they are below"),
        (lambda low, edit: torch.ones(1), match_of(early), "must return an edit"),
        (only_if(early), {100: 0.5}, "an entry for each low"),
        (only_if(early), {100: 1.0, 300: -1.0}, "off by"),
    ],
)
def test_window(said, only_from, match, part):
    answer = {"only_from": only_from, "match": match}
    given = {"sampled": sampled, "mixed": mixed, "few": FEW, "lows": LOWS}
    assert part in said("04.4", answer, **given)


@pytest.mark.parametrize(
    "answer, part",
    [
        (lambda agreement, match: agreement * (1 - match), "✓ 04.5: it chooses w = 0.8; run"),
        (lambda agreement, match: min(agreement, 1 - match), "✓ 04.5: it chooses w = "),
        (lambda agreement, match: agreement + match, "more background match must give less"),
        (lambda agreement, match: agreement, "more background match must give less"),
        (lambda agreement, match: -match, "more agreement must give more"),
        (lambda agreement, match: None, "not yet"),
    ],
)
def test_proxy(said, tmp_path, answer, part):
    assert part in said("04.5", answer, curve=CURVE, results=tmp_path / "none.csv")


def test_proxy_beside_what_training_gives(said, tmp_path):
    results = tmp_path / "results.csv"
    pd.DataFrame({"w": [0.1, 0.7], "linear_mean": [0.8, 0.75]}).to_csv(results, index=False)
    text = said("04.5", lambda agreement, match: agreement - match, curve=CURVE, results=results)
    assert "w = 0.8; in notebook 06 w = 0.7 reaches 0.750, and the best of them, w = 0.1" in text
