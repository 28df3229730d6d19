"""Images a second of diffusion training, CIFAR-shaped UNet: python benchmarks/diffusion_step.py"""

from pathlib import Path
from tempfile import TemporaryDirectory

import authors
import numpy as np
import report
import torch
from report import Way

from clsp_utils import config, data, diffusion
from clsp_utils.config import LAPTOP, PAPER, Diffusion, UNet

STEPS = 2  # timed at a time


def measure(quick: bool) -> dict:
    shape, size, batch, rounds, long = (UNet(channels=(8, 8)), 8, 8, 1, 6) if quick else (PAPER.diffusion.unet, 32, 64, 2, 150)
    train, _ = data.load(config.Data(size=size))
    # The authors' objective: every t weighs the same, and no middle is exchanged or silenced.
    cfg = Diffusion(
        unet=shape, steps=STEPS, batch=batch, lr=2e-4, flip=True, snr_gamma=0, second_noise=0, silent_middle=0
    )
    view = authors.flipped(0.5, ([0.5] * 3, [0.5] * 3))
    batches = iter(authors.loader(authors.OneView(train.images, train.labels, view), batch, endless=True))

    def theirs(precision: str) -> Way:
        torch.manual_seed(0)
        method = authors.Diffusion(diffusion.build_unet(shape, size), batches, cfg.lr, cfg.clip, precision)
        return Way(lambda: [method.step() for _ in range(STEPS)], STEPS * batch)

    def losses_of(settings: Diffusion, images: np.ndarray, precision: str) -> np.ndarray:
        with TemporaryDirectory() as work:
            return diffusion.train(settings, images, 0, Path(work), precision)[1]

    def ours(precision: str) -> Way:
        return Way(lambda: losses_of(config.change(cfg, warmup=1), train.images, precision), STEPS * batch)

    ways = {"authors' way": theirs("fp32"), "package, fp32": ours("fp32")}
    if "bf16" in report.precisions():
        ways |= {"authors' way, bf16": theirs("bf16"), "package, bf16": ours("bf16")}
    rates = report.alternate(ways, rounds)
    # More steps with the laptop's UNet; both precisions see the same images, noises and times.
    small, settings = data.load(LAPTOP.data)[0], config.change(LAPTOP.diffusion, steps=long, warmup=long // 10 + 1)
    losses = {precision: losses_of(settings, small.images, precision) for precision in report.precisions()}
    tail = {precision: float(x[-long // 3 :].mean()) for precision, x in losses.items()}
    print(f"loss, mean of the last {long // 3} of {long} steps: {tail}")
    return {
        "what": f"diffusion training, batch {batch}, {size} px",
        "baseline": "fp32, Adam, the average of the weights one tensor at a time, PIL flips, one DataLoader "
        "worker a core; of the package a whole call is timed, the building of the UNet in it",
        **report.headline(rates, ratio_fp32="package, fp32", ratio_bf16="package, bf16"),
        "ablation": report.ablation(rates, "images/s"),
        "loss": {"what": "the laptop's UNet; end: mean of the last third", "steps": long, "first": {p: float(x[0]) for p, x in losses.items()}, "end": tail},
    }


if __name__ == "__main__":
    report.main(measure)
