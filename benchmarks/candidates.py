"""Candidates per second, CIFAR-shaped UNet, eight per anchor: python benchmarks/candidates.py"""

from functools import partial

import authors
import numpy as np
import report
import torch
from report import Way

from clsp_utils.config import Interpolation, UNetShape
from clsp_utils.data import to_diffusion_range
from clsp_utils.diffusion import build_unet
from clsp_utils.pipeline import Profile
from clsp_utils.positives import interpolate
from clsp_utils.runtime import device

K, STEPS, ETA = 8, 100, 0.1  # the authors'
TIMED = 2  # of the authors' 100 steps


def measure(quick: bool) -> dict:
    cfg = Interpolation(k=K)
    shape, size, rounds = UNetShape(channels=(8, 8)), 8, 1
    if not quick:
        shape, size, rounds = Profile("paper").diffusion.unet, 32, 3
    torch.manual_seed(0)
    where = device()
    unet = build_unet(shape, size).eval().to(where)
    # Random pixels: no operation here takes longer for one image than for another.
    anchors = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)

    def theirs(n: int) -> Way:
        x = to_diffusion_range(torch.from_numpy(anchors[:n])).repeat_interleave(K, 0).to(where)
        noise, g = torch.randn(x.shape, device=where), torch.Generator(where)
        how = (cfg.mix_weight, STEPS, ETA, g, g, TIMED)
        return Way(partial(authors.interpolate, unet, x, noise, *how), n * K * TIMED / STEPS)

    def ours(n: int, precision: str, steps: int = cfg.steps, share: float = 1.0) -> Way:
        how = (cfg.mix_weight, 1000, K, steps, cfg.eta, 0, precision)
        return Way(partial(interpolate, unet, anchors[:n], *how), n * K * share)

    fp32, large = f"+ DPM-Solver++, {cfg.steps} steps", "+ 64 images at a time"
    ways = {
        "authors' way": theirs(2),
        "one encoding of the anchor for its 8 candidates": ours(2, "fp32", TIMED, TIMED / STEPS),
        fp32: ours(2, "fp32"),
    }
    if "bf16" in report.precisions():
        ways |= {"+ bf16": ours(2, "bf16"), large: ours(8, "bf16")}
    rates = report.alternate(ways, rounds)
    n_parameters = sum(p.numel() for p in unet.parameters())
    flops = cfg.steps * flops_of_a_step(shape, size)
    return {
        "what": f"candidates, k = {K}, {size} px, UNet of {n_parameters:,} parameters",
        "baseline": f"fp32, DDIM, {STEPS} steps, the anchor encoded for each candidate, 16 images "
        f"at a time; {TIMED} steps are timed and count as {TIMED}/{STEPS}, since a step costs the "
        f"same at each t",
        "quality": "the UNet is untrained: see candidate_quality.json",
        **report.headline(rates, ratio_fp32=fp32, ratio_bf16=large),
        "share_of_peak": report.share_of_peak(rates, flops, fp32=fp32, bf16=large),
        "ablation": report.ablation(rates, "candidates/s"),
    }


def flops_of_a_step(shape: UNetShape, size: int) -> float:
    """Operations for one candidate at one step, its share of the anchor's encoding included."""
    half, whole = report.unet_flops(shape, size)
    return whole + half / K


if __name__ == "__main__":
    report.main(measure)
