"""Checks of notebook 03: silencing the middle, always or for a part of the steps."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor

from clsp_utils.book.checks import NO_PERCENT, Wrong, compare, entries, returns_nothing
from clsp_utils.diffusion import Edit, Features, sample
from clsp_utils.runtime import generator


def _features() -> Features:
    g = generator("03")
    h, *skips = (torch.randn(3, 4, 2, 2, generator=g) for _ in range(3))
    return Features(h, tuple(skips), torch.randn(3, 5, generator=g))


def _edited(name: str, edit: Callable) -> tuple[Features, Features]:
    """Features and what an edit makes of them, which is all that it may do to them."""
    features, before = _features(), _features()
    out = edit(features, torch.tensor(400))
    if isinstance(out, Tensor) or not hasattr(out, "skips"):
        raise Wrong(
            f"{name}: return all features, features._replace(h=...), since the decoder needs the "
            f"skips, too"
        )
    if not torch.equal(features.h, before.h):
        raise Wrong(f"{name}: the features that came in were changed; make new ones")
    if not all(map(torch.equal, out.skips, features.skips)):
        raise Wrong(f"{name}: leave the skips as they are; only h is edited")
    if not torch.equal(out.temb, features.temb):
        raise Wrong(f"{name}: leave the time embedding as it is; only h is edited")
    return features, out


def edits(answer: Any, unet: UNet2DModel, noise: Tensor) -> str:
    """03.1, three edits: "silence", "average" over positions, and "leave", which does nothing.

    Args:
        noise: `(B, 3, H, W)`, that is sampled with and without the last.
    """
    silence, average, leave = entries(answer, "silence", "average", "leave")
    features, out = _edited("silence", silence)
    compare(out.h, torch.zeros_like(features.h), otherwise="silence: h must be zero everywhere")
    features, out = _edited("average", average)
    h = features.h
    over = {dim: h.mean(dim, keepdim=True) for dim in (0, 1, (2, 3), (1, 2, 3))}
    mistakes = {
        "average: that is the mean over images; take each channel's own, over positions": (
            over[0].expand_as(h)
        ),
        "average: that is the mean over channels; take the one over positions": (
            over[1].expand_as(h)
        ),
        "average: each channel has a mean of its own": over[1, 2, 3].expand_as(h),
        "average: the decoder expects the shape of h: spread the mean over all positions": (
            over[2, 3]
        ),
        "average: the decoder expects the shape of h, (B, C, h, w)": h.mean((2, 3)),
    }
    compare(out.h, over[2, 3].expand_as(h), mistakes)
    features, out = _edited("leave", leave)
    compare(out.h, h, otherwise="leave: h must stay as it is", within=0)
    pair = [sample(unet, noise, 4, 0.0, generator("03.1"), "fp32", one) for one in (None, leave)]
    if not torch.equal(*pair):
        raise Wrong("leave: the samples differ; return the features unchanged")
    return "only h is edited, and the edit that does nothing gives the same samples, bit for bit"


def chance_level(answer: Any, plain: np.ndarray, bare: np.ndarray) -> str:
    """03.3, how often the judge names the same digit in two images that have nothing in common.

    Args:
        plain, bare: classes `(N,)` that the judge sees in plain samples and in bare backgrounds.
    """
    n = max(plain.max(), bare.max()) + 1
    p, q = (np.bincount(x, minlength=n) / len(x) for x in (plain, bare))
    right = float(p @ q)
    mistakes = {
        "a tenth would be right if all digits were named equally often": 0.1,
        "that is p with itself; the second image is a bare background": float(p @ p),
        "that is q with itself; the first image is a plain sample": float(q @ q),
        "that is the largest share of one digit; sum over all of them": float(q.max()),
        "these are the pairs as they stand; any sample may meet any background": float(
            np.mean(plain[: len(bare)] == bare[: len(plain)])
        ),
    }
    compare(answer, right, mistakes, within=0.005, percent=NO_PERCENT)
    most = int(q.argmax())
    return f"chance is {right:.1%}; in bare backgrounds the judge says {most} in {q[most]:.0%}"


def decided(
    answer: Any,
    sampled: Callable[[Edit], np.ndarray],
    plain: np.ndarray,
    taus: Sequence[int],
    companion: Any,
) -> str:
    """03.4, the edit that silences at t >= tau, and the least tau at which half keep the digit.

    Args:
        sampled: from an edit to images uint8 `(N, H, W, 3)`.
        plain: classes of the same samples without an edit, `(N,)`.
        taus: in rising order, up to 1000, where nothing is silent.
    """
    silence_from, half = entries(answer, "silence_from", "tau")
    made = silence_from(500)
    if not callable(made):
        raise Wrong("silence_from must return an edit, a function of features and t")
    features = _features()
    made(features, torch.tensor(500))  # an empty stub ends here
    if returns_nothing(made, features, torch.tensor(100)):
        raise Wrong("below tau the edit returns nothing: let it return the features as they are")
    silent = [not made(features, torch.tensor(t)).h.any() for t in (100, 499, 500, 900)]
    if silent == [True, True, False, False]:
        raise Wrong("it silences at t < tau, the late steps; the early ones are t >= tau")
    if silent == [False, False, False, True]:
        raise Wrong("the step t == tau is silenced, too")
    if silent != [False, False, True, True]:
        raise Wrong("silence h at all t >= tau, and leave it as it is below")
    if half not in taus:
        raise Wrong(f"tau is one of {list(taus)}")

    def silenced(tau: int) -> Edit:
        def edit(features: Features, t: Tensor) -> Features:
            return features._replace(h=torch.zeros_like(features.h)) if t >= tau else features

        return edit

    def draw() -> np.ndarray:
        return np.stack([sampled(silenced(tau)) for tau in taus])

    settings = {"taus": list(taus), "n": len(plain), "steps": companion.cfg.study.mask_steps}
    samples = companion.cached("silent from tau on", settings, draw)
    kept = np.array([companion.judge.agreement(images, plain) for images in samples])
    at = int(np.argmax(kept >= 0.5))
    if abs(list(taus).index(half) - at) > 1:
        if half < taus[at]:
            raise Wrong(f"at tau = {half} fewer than half keep the digit: measure the curve")
        raise Wrong(f"half keep the digit already at a tau below {half}: measure the curve")
    told = ", ".join(f"{share:.0%} ({tau})" for share, tau in zip(kept, taus, strict=True))
    return f"from tau = {taus[at]} on half keep the digit; for each tau {told}"


CHECKS: dict[str, Callable[..., str]] = {
    "03.1": edits,
    "03.3": chance_level,
    "03.4": decided,
}
