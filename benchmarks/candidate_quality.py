"""Are fast candidates as good as the authors'? On the default data: python benchmarks/candidate_quality.py"""

from collections.abc import Callable
from functools import partial

import authors
import numpy as np
import report
import torch
from scipy.linalg import sqrtm

from clsp_utils import diffusion, evaluate, training
from clsp_utils.candidates import interpolate
from clsp_utils.companion import Companion

K, STEPS, ETA = 2, 100, 0.1  # candidates an anchor here; the authors' steps and eta


def measure(quick: bool) -> dict:
    companion = Companion("smoke" if quick else "laptop")  # makes model and classifier if the store lacks them
    cfg, anchors = companion.cfg.candidates, companion.train[: 64 if quick else 512]
    reference = 10 if quick else STEPS

    def ours(steps: int, eta: float | None, precision: str, k: int = K, seed: int = 0) -> np.ndarray:
        return interpolate(companion.unet, anchors.images, cfg.mix_weight, k, steps, eta, seed, precision)

    def theirs() -> np.ndarray:
        device = companion.unet.device
        g = training.generator(0, "authors", device=device)
        x = diffusion.to_diffusion_range(torch.from_numpy(anchors.images)).repeat_interleave(K, 0).to(device)
        noise = torch.randn(x.shape, generator=g, device=device)
        parts = [
            authors.interpolate(companion.unet, *part, cfg.mix_weight, reference, ETA, g, g)
            for part in zip(x.split(128), noise.split(128))
        ]
        return diffusion.to_uint8(torch.cat(parts)).cpu().numpy().reshape(len(anchors), K, *anchors.images.shape[1:])

    def each_encoded() -> np.ndarray:  # the anchor under noise of its own for each of its candidates
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
    data = features(companion, companion.train.images)
    rows = []
    for name, way in ways.items():
        images = way()
        flat = images.reshape(-1, *images.shape[2:])
        rows.append({
            "way": name,
            "agreement": round(companion.agreement(flat, anchors.labels.repeat(K)), 4),
            "frechet": round(frechet(features(companion, flat), data), 4),
            "diversity": round(float(np.abs(np.diff(images.astype(float), axis=1)).mean()), 2),
        })
        print(rows[-1])
    return {
        "what": f"{len(anchors)} anchors of the default data, {K} candidates each, w = {cfg.mix_weight}, seed 0",
        "agreement": "share in which the classifier sees the anchor's digit",
        "frechet": "distance to the anchors in the classifier's features (not Inception's); smaller is better",
        "diversity": "mean difference of two candidates of one anchor, in grey levels of 255",
        "ways": rows,
    }


def features(companion: Companion, images: np.ndarray) -> np.ndarray:
    """Of the classifier, `(N, D)`."""
    backbone = companion.classifier.backbone
    return evaluate.run_network(backbone, images, companion.statistics, "fp32").double().numpy()


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^1/2) of two sets of features (arXiv 1706.08500)."""
    c_x, c_y = np.cov(x.T), np.cov(y.T)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c_x + c_y - 2 * sqrtm(c_x @ c_y).real))


if __name__ == "__main__":
    report.main(measure)
