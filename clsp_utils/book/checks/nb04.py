"""Checks of notebook 04: mixing, and what the mix weight and the window in t do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from clsp_utils.book.checks import NO_PERCENT, Wrong, compare, entries, returns_nothing
from clsp_utils.data import Images, to_diffusion_range, to_uint8
from clsp_utils.diffusion import (
    BETAS,
    Edit,
    Features,
    decode,
    encode,
    encode_noised,
    mix,
    noise_schedule,
)
from clsp_utils.evaluation import background_match
from clsp_utils.pipeline import StudySamples
from clsp_utils.positives import interpolate
from clsp_utils.runtime import generator

REVERSED = "the direction is reversed: w is the noise branch's share, so w = 0.1 is 90 % anchor"


def mixing(answer: Callable) -> str:
    """04.1, `(h, h_anchor, w) -> mixed`."""
    h, h_anchor = torch.randn(2, 2, 4, 3, 3, generator=generator("04.1"))
    for w in (0.25, 0.0, 1.0):
        mistakes = {
            REVERSED: mix(h_anchor, h, w),
            "the anchor's part is missing": w * h,
            "the noise branch's part is missing": (1 - w) * h_anchor,
            "the anchor is added in full: its share is 1 - w": w * h + h_anchor,
        }
        compare(answer(h, h_anchor, w), mix(h, h_anchor, w), mistakes)
    return "w = 0 takes the anchor's middle, w = 1 that of the noise branch"


@torch.inference_mode()
def two_lines(answer: Callable, unet: UNet2DModel, anchors: np.ndarray, w: float, seed: int) -> str:
    """04.2, `(unet, x, x_anchor, t, w, g) -> eps`; anchors: uint8 `(B, H, W, 3)`."""
    x_anchor = to_diffusion_range(torch.from_numpy(anchors)).to(unet.device)
    x = torch.randn(x_anchor.shape, generator=generator(seed, "noise branch")).to(unet.device)
    t, share, g = torch.tensor(400), 0.25, generator("04.2")
    first, second = (answer(unet, x, x_anchor, t, share, g) for _ in range(2))
    h, skips, temb = encode(unet, x, t)
    own = encode_noised(unet, x_anchor, t, generator("04.2"))
    noise = torch.randn(x_anchor.shape, generator=generator("04.2")).to(unet.device)
    hardly = noise_schedule().add_noise(x_anchor, noise, torch.zeros(len(x), dtype=torch.long))
    mixed_skips = tuple(mix(*pair, share) for pair in zip(skips, own.skips, strict=True))
    right = decode(unet, mix(h, own.h, share), skips, temb)
    mistakes = {
        "the skips are the anchor's: with them its own image comes back": decode(
            unet, mix(h, own.h, share), own.skips, temb
        ),
        "only the middle is mixed: the skips are those of the noise branch alone": decode(
            unet, mix(h, own.h, share), mixed_skips, temb
        ),
        REVERSED: decode(unet, mix(own.h, h, share), skips, temb),
        "the anchor must be noised to t before it is encoded": decode(
            unet, mix(h, encode(unet, x_anchor, t).h, share), skips, temb
        ),
        "the anchor is noised to step 0, not to t": decode(
            unet, mix(h, encode(unet, hardly, t).h, share), skips, temb
        ),
        "the anchor is not mixed in": decode(unet, h, skips, temb),
    }
    try:
        compare(first, right, mistakes)
    except Wrong as hint:
        again = answer(unet, x, x_anchor, t, share, generator("04.2"))
        if str(hint) in mistakes:
            raise
        if not torch.equal(again, first):
            raise Wrong("draw the anchor's noise with g: it now comes from elsewhere") from None
        if torch.equal(first, second):
            raise Wrong(
                "each step sees the same noise, or none: draw the anchor's from g, anew each time"
            ) from None
        raise
    ddim = DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=True)
    ddim.set_timesteps(10)
    g = generator(seed, "anchor noise")
    for t in ddim.timesteps:
        x = ddim.step(answer(unet, x, x_anchor, t, w, g), t, x, eta=0.0).prev_sample
    package = interpolate(unet, anchors, w, 1000, 1, 10, 0.0, seed, "fp32")[:, 0]
    off = np.abs(to_uint8(x).cpu().numpy().astype(int) - package).max()
    if off > 1:
        raise Wrong(f"after ten steps the images differ from the package's by {off} grey levels")
    return "ten steps with your lines give the package's candidates, within a grey level"


def promise(answer: Any, curve: pd.DataFrame, companion: Any, shared: dict[str, Any]) -> str:
    """04.3, the agreement at w = 0.9 that the curve promises and that samples have.

    Args:
        curve: columns w, agreement, background_match.
        shared: what `StudySamples` takes besides mix_weight, k and n.
    """
    promised, measured = entries(answer, "promised", "measured")

    def at(w: float, column: str) -> float:
        return float(np.interp(w, curve.w, curve[column]))

    right = at(0.9, "agreement")
    mistakes = {
        "that is the curve at w = 0.1: w = 0.9 leaves 10 % of the anchor": at(0.1, "agreement"),
        "that is the background match": at(0.9, "background_match"),
    }
    line = "interpolate the agreement linearly, with np.interp"
    compare(promised, right, mistakes, line, 2e-3, NO_PERCENT, "promised")
    anchors = companion.study_images

    def sampled(w: float) -> np.ndarray:
        return companion.get(StudySamples, mix_weight=w, k=1, n=len(anchors), **shared)[:, 0]

    truth = companion.judge.agreement(sampled(0.9), anchors.labels)
    mistakes = {
        "that is the promise; sample at w = 0.9 and ask the judge": promised,
        "these samples are at w = 0.1": companion.judge.agreement(sampled(0.1), anchors.labels),
        "that is the background match of the samples": background_match(
            sampled(0.9), anchors.background_or_image
        ),
    }
    compare(measured, truth, mistakes, within=5e-3, percent=NO_PERCENT, part="measured")
    off, half = round(100 * (right - truth)), 1.96 * (truth * (1 - truth) / len(anchors)) ** 0.5
    side = f"{abs(off)} points too {'high' if off > 0 else 'low'}" if off else "right"
    if off and abs(right - truth) <= half:
        side += f", which may be chance: {len(anchors)} samples are known to ± {100 * half:.0f}"
    return (
        f"promised {right:.0%}, measured {truth:.0%} (chance {companion.data.train.chance:.0%}): "
        f"the straight line is {side}"
    )


def window(
    answer: Any,
    sampled: Callable[[Edit], np.ndarray],
    mixed: Callable[[], Edit],
    few: Images,
    lows: list[int],
) -> str:
    """04.4, the edit that acts at t >= low only, and the background match at each low.

    Args:
        sampled: from an edit to images uint8 `(N, H, W, 3)`.
        mixed: makes the edit that mixes the anchors `few` in.
    """
    only_from, match = entries(answer, "only_from", "match")

    def silence(features: Features, t: Tensor) -> Features:
        return features._replace(h=torch.zeros_like(features.h))

    features = Features(torch.ones(1), (), torch.ones(1))
    made = only_from(500, silence)
    if not callable(made):
        raise Wrong("only_from must return an edit, a function of features and t")
    made(features, torch.tensor(500))  # an empty stub ends here
    if returns_nothing(made, features, torch.tensor(100)):
        raise Wrong("below `low` the edit returns nothing: let it return the features as they are")
    edited = {t: not made(features, torch.tensor(t)).h.any() for t in (100, 499, 500, 900)}
    if edited == {100: True, 499: True, 500: False, 900: False}:
        raise Wrong("it acts below `low`; here the anchor takes part early, at t >= low")
    if not edited[500] and edited[900]:
        raise Wrong("the step t == low belongs to the window, too")
    if edited != {100: False, 499: False, 500: True, 900: True}:
        raise Wrong("the edit must act at all t >= low, and leave the features as they are below")
    if not isinstance(match, dict) or set(match) != set(lows):
        raise Wrong(f"match needs an entry for each low of {lows}")

    def reference(low: int) -> float:
        edit = mixed()
        images = sampled(lambda features, t: edit(features, t) if t >= low else features)
        return background_match(images, few.background_or_image)

    truth = [reference(low) for low in lows]
    compare([match[low] for low in lows], truth, within=0.05, part="match")
    seen = ", ".join(f"{x:.2f} (t >= {low})" for low, x in zip(lows, truth, strict=True))
    return f"background match {seen}; compare the curve above, of the windows below"


def proxy(answer: Callable, curve: pd.DataFrame, results: Path) -> str:
    """04.5, a number that says how good candidates may be, from agreement and background match.

    Args:
        curve: columns w, agreement, background_match.
        results: the table of notebook 06 with columns w, linear_mean, if there is one.
    """
    if not answer(0.9, 0.5) > answer(0.3, 0.5):  # also where the lesser of two numbers counts
        raise Wrong("more agreement must give more: a positive of another content is wrong")
    if not answer(0.9, 0.5) > answer(0.9, 0.9):
        raise Wrong("more background match must give less: the anchor itself matches best of all")
    values = [answer(row.agreement, row.background_match) for row in curve.itertuples()]
    w = curve.w.iloc[int(np.argmax(values))]
    if not results.exists():
        return f"it chooses w = {w:g}; run notebook 06, then this cell again, to see how w trains"
    trained = pd.read_csv(results).set_index("w").linear_mean
    nearest = min(trained.index, key=lambda other: abs(other - w))
    best = trained.idxmax()
    return (
        f"it chooses w = {w:g}; in notebook 06 w = {nearest:g} reaches {trained[nearest]:.3f}, "
        f"and the best of them, w = {best:g}, {trained[best]:.3f}"
    )


CHECKS: dict[str, Callable[..., str]] = {
    "04.1": mixing,
    "04.2": two_lines,
    "04.3": promise,
    "04.4": window,
    "04.5": proxy,
}
