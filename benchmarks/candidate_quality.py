"""Are fast candidates as good as the authors'? python benchmarks/candidate_quality.py"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import authors
import numpy as np
import report
import torch

from clsp_utils.data import to_diffusion_range, to_uint8
from clsp_utils.evaluation import frechet
from clsp_utils.pipeline import Companion
from clsp_utils.positives import interpolate
from clsp_utils.runtime import generator

K, STEPS, ETA = 2, 100, 0.1  # candidates an anchor here; the authors' steps and eta


def measure(quick: bool) -> dict:
    companion = Companion("smoke" if quick else "laptop")
    # The UNet and the classifier are made if the store lacks them.
    unet, judge = companion.unet, replace(companion.judge, precision="fp32")
    cfg, train = companion.cfg.candidates, companion.data.train
    anchors = train[: 64 if quick else 512]
    w, reference = cfg.mix_weight, 10 if quick else STEPS

    def ours(
        steps: int, eta: float | None, precision: str, k: int = K, seed: int = 0
    ) -> np.ndarray:
        return interpolate(unet, anchors.images, w, 1000, k, steps, eta, seed, precision)

    def theirs() -> np.ndarray:
        g = generator(0, "authors", device=unet.device)
        x = to_diffusion_range(torch.from_numpy(anchors.images)).repeat_interleave(K, 0)
        x = x.to(unet.device)
        noise = torch.randn(x.shape, generator=g, device=unet.device)
        parts = [
            authors.interpolate(unet, *part, w, reference, ETA, g, g)
            for part in zip(x.split(128), noise.split(128), strict=True)
        ]
        images = to_uint8(torch.cat(parts)).cpu().numpy()
        return images.reshape(len(anchors), K, *anchors.images.shape[1:])

    def each_encoded() -> np.ndarray:
        # Each candidate has its own encoding of the anchor, under noise of its own.
        return np.concatenate([ours(cfg.steps, None, "fp32", 1, seed) for seed in range(K)], 1)

    ways: dict[str, Callable[[], np.ndarray]] = {
        "authors' way": theirs,
        "one encoding of the anchor, clean image clipped": partial(ours, reference, ETA, "fp32"),
        f"DDIM, {cfg.steps} steps": partial(ours, cfg.steps, ETA, "fp32"),
        f"DPM-Solver++, {cfg.steps} steps, an encoding for each candidate": each_encoded,
        f"DPM-Solver++, {cfg.steps} steps": partial(ours, cfg.steps, None, "fp32"),
    }
    if "bf16" in report.precisions():
        ways["+ bf16"] = partial(ours, cfg.steps, None, "bf16")
    data = judge.features(train.images)
    rows = []
    for name, way in ways.items():
        images = way()
        flat = images.reshape(-1, *images.shape[2:])
        row = {
            "way": name,
            "agreement": round(companion.judge.agreement(flat, anchors.labels.repeat(K)), 4),
            "frechet": round(frechet(judge.features(flat), data), 4),
            "diversity": round(float(np.abs(np.diff(images.astype(float), axis=1)).mean()), 2),
        }
        print(row)
        rows.append(row)
    return {
        "what": f"{len(anchors)} anchors of the default data, {K} candidates each, w = {w}, seed 0",
        "agreement": "share in which the classifier sees the anchor's digit",
        "frechet": "distance to the anchors in the classifier's features (not Inception's); "
        "smaller is better",
        "diversity": "mean difference of two candidates of one anchor, in grey levels of 255",
        "ways": rows,
    }


if __name__ == "__main__":
    report.main(measure)
