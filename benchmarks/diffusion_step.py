"""Images per second of diffusion training, 32 px: python benchmarks/diffusion_step.py"""

from pathlib import Path
from tempfile import TemporaryDirectory

import authors
import numpy as np
import report
import torch
from report import Way

from clsp_utils.config import Data, Diffusion, UNetShape, change
from clsp_utils.data import ChannelStatistics, load
from clsp_utils.diffusion import build_unet, train
from clsp_utils.pipeline import Profile

STEPS = 2  # timed at a time


def measure(quick: bool) -> dict:
    shape, size, batch, rounds, long = UNetShape(channels=(8, 8)), 8, 8, 1, 6
    if not quick:
        shape, size, batch, rounds, long = Profile("paper").diffusion.unet, 32, 64, 2, 150
    anchors, _ = load(Data(size=size))
    # The authors' objective: every t weighs the same.
    cfg = Diffusion(unet=shape, steps=STEPS, batch=batch, lr=2e-4, flip=True, snr_gamma=0.0)
    view = authors.flipped(0.5, ChannelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    samples = authors.OneView(anchors.images, anchors.labels, view)
    batches = iter(authors.loader(samples, batch, endless=True))

    def theirs(precision: str) -> Way:
        torch.manual_seed(0)
        method = authors.Diffusion(build_unet(shape, size), batches, cfg.lr, cfg.clip, precision)
        return Way(lambda: [method.step() for _ in range(STEPS)], STEPS * batch)

    def losses_of(settings: Diffusion, images: np.ndarray, precision: str) -> np.ndarray:
        with TemporaryDirectory() as work:
            return train(settings, images, 0, Path(work), precision)[1]

    def ours(precision: str) -> Way:
        once = change(cfg, warmup=1)
        return Way(lambda: losses_of(once, anchors.images, precision), STEPS * batch)

    ways = {"authors' way": theirs("fp32"), "package, fp32": ours("fp32")}
    if "bf16" in report.precisions():
        ways |= {"authors' way, bf16": theirs("bf16"), "package, bf16": ours("bf16")}
    rates = report.alternate(ways, rounds)
    # More steps with the laptop's UNet; both precisions see the same images, noises and times.
    laptop = Profile("laptop")
    settings = change(laptop.diffusion, steps=long, warmup=long // 10 + 1)
    images = laptop.data.train.images
    losses = {name: losses_of(settings, images, name) for name in report.precisions()}
    first = {precision: float(x[0]) for precision, x in losses.items()}
    tail = {precision: float(x[-long // 3 :].mean()) for precision, x in losses.items()}
    what = "the laptop's UNet; end: mean of the last third"
    print(f"loss, mean of the last {long // 3} of {long} steps: {tail}")
    return {
        "what": f"diffusion training, batch {batch}, {size} px",
        "baseline": "fp32, Adam, the average of the weights one tensor at a time, PIL flips, one "
        "DataLoader worker a core; of the package a whole call is timed, the building of the UNet "
        "in it",
        **report.headline(rates, ratio_fp32="package, fp32", ratio_bf16="package, bf16"),
        "ablation": report.ablation(rates, "images/s"),
        "loss": {"what": what, "steps": long, "first": first, "end": tail},
    }


if __name__ == "__main__":
    report.main(measure)
