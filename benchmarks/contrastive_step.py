"""Samples per second of CLSP-SimCLR, ResNet-18, 32 px: python benchmarks/contrastive_step.py"""

from pathlib import Path
from tempfile import TemporaryDirectory

import authors
import numpy as np
import report
import torch
from report import Way

from clsp_utils.config import Backbone, SimCLR, ThirdView
from clsp_utils.contrastive import augment, pretrain, training_flops
from clsp_utils.data import ChannelStatistics
from clsp_utils.pipeline import Profile
from clsp_utils.positives import draw_candidates
from clsp_utils.runtime import device, generator, upload

STATISTICS = ChannelStatistics((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
PAPER = Profile("paper").simclr
VIEWS = PAPER.views
STEPS, BATCHES = 2, 8  # timed at a time: training steps, batches of the loader alone


def measure(quick: bool) -> dict:
    batch, size, rounds = (8, 8, 1) if quick else (256, 32, 2)
    backbone = PAPER.backbone
    if quick:
        backbone = Backbone(layers=(1,), width=8, hidden=16, projection=8)
    cfg = SimCLR(
        backbone=backbone,
        views=VIEWS,
        epochs=1,
        batch=batch,
        lr=0.05,
        warmup=0.0,
        third_view=ThirdView(ramp=0.0),
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCHES * batch, size, size, 3), dtype=np.uint8)
    bank = rng.integers(0, 256, (len(images), 8, size, size, 3), dtype=np.uint8)
    samples = authors.SixViews(images, bank, authors.pipeline(VIEWS, size, STATISTICS))

    # Training. The authors' loader goes on without end: while a step computes, its workers make as
    # many views as the step took.
    batches = iter(authors.loader(samples, batch, endless=True))
    labels = np.zeros(len(images), np.int64)

    def theirs(precision: str) -> Way:
        method = authors.Contrastive(cfg, batches, precision)
        return Way(lambda: [method.step() for _ in range(STEPS)], STEPS * batch)

    def ours(precision: str) -> Way:
        def run() -> None:
            n = STEPS * batch
            anchors = (images[:n], labels[:n], STATISTICS)
            with TemporaryDirectory() as work:
                pretrain("CLSP-SimCLR", cfg, *anchors, 0, Path(work), precision, bank[:n])

        return Way(run, STEPS * batch)

    ways = {"authors' way": theirs("fp32"), "package, fp32": ours("fp32")}
    if "bf16" in report.precisions():
        ways |= {"authors' way, bf16": theirs("bf16"), "package, bf16": ours("bf16")}
    rates = report.alternate(ways, rounds)

    # Loader and views alone.
    epoch = authors.loader(samples, batch)
    pixels, where = torch.from_numpy(images), device()
    g, drawn = generator(0, device=where), generator(0)

    def our_epoch() -> None:
        for rows in torch.randperm(len(pixels), generator=drawn).split(batch):
            x = pixels[rows]
            for source in (x, x, draw_candidates(bank, rows, drawn)):
                augment(upload(source, where), VIEWS, STATISTICS, g)

    loaders = {
        "authors' loader": Way(lambda: [None for _ in epoch], len(images)),
        "package's": Way(our_epoch, len(images)),
    }
    loader_rates = report.alternate(loaders, 2 * rounds)
    unit, fp32, bf16 = "samples/s", "package, fp32", "package, bf16"
    flops = 3 * training_flops(backbone, size)
    return {
        "what": f"CLSP-SimCLR, batch {batch}, three views of {size} px",
        "baseline": "fp32, six PIL pipelines a sample, one DataLoader worker a core; of the "
        "package a whole call is timed, the building of the encoder in it",
        **report.headline(rates, ratio_fp32=fp32, ratio_bf16=bf16),
        "share_of_peak": report.share_of_peak(rates, flops, fp32=fp32, bf16=bf16),
        **report.headline(loader_rates, ratio_loader="package's"),
        "ablation": report.ablation(rates, unit),
        "loader": report.ablation(loader_rates, unit),
    }


if __name__ == "__main__":
    report.main(measure)
