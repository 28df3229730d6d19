"""Linear evaluation, time and accuracy against the slow way: python benchmarks/linear_evaluation.py"""

from pathlib import Path
from tempfile import TemporaryDirectory

import authors
import numpy as np
import report
import torch
from report import Way
from torch import nn

from clsp_utils import config, data, evaluate, pretrain, training
from clsp_utils.config import LAPTOP, PAPER, Encoder, Pretrain, Probe


class Standardise(nn.Module):
    """Features to mean 0 and deviation 1, as the package's probe does."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.mean, self.std = features.mean(0), features.std(0) + 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def measure(quick: bool) -> dict:
    cfg = Probe(epochs=3) if quick else Probe()
    size = 8 if quick else 32
    train, test = data.load(config.Data(size=size, limit=200 if quick else 1500))
    statistics = train.statistics
    n_classes = len(train.class_names)

    # Time. An epoch of the slow way takes as long as another: part of one is timed.
    timed, rounds = (100, 1) if quick else (512, 2)
    shape = Encoder(layers=(1,), width=8) if quick else PAPER.simclr.encoder
    torch.manual_seed(0)
    backbone = pretrain.build(Pretrain(encoder=shape), n_classes).encoder.backbone.eval()
    slow = authors.LinearEvaluation(backbone, [nn.Linear(backbone.n_features, n_classes)], cfg)
    part = authors.loader(authors.OneView(train.images[:timed], train.labels[:timed], authors.flipped(0.5, statistics)), cfg.batch)
    ways = {"authors' way": Way(lambda: slow.epoch(0, part), timed / (len(train) * cfg.epochs))}
    for precision in report.precisions():
        def run(precision: str = precision) -> None:
            evaluate.score(backbone, train, test, statistics, cfg, 0, precision, flip=True)

        ways[f"package, {precision}"] = Way(run, 1.0)
    rates = report.alternate(ways, rounds)
    return {
        "what": f"linear evaluation, {len(train)} images, {len(test)} to test, {train.images.shape[1]} px",
        "baseline": f"fp32, the backbone in each of {cfg.epochs} epochs, PIL flips, one DataLoader worker a core; "
        f"{timed} images are timed; the package's time has its kNN in it, the authors' not",
        **report.headline(rates, ratio_fp32="package, fp32", ratio_bf16="package, bf16"),
        "ablation": report.ablation(rates, "evaluations/s"),
        "accuracy": accuracy(*data.load(config.Data(limit=200 if quick else 0)), cfg, quick),
    }


def accuracy(train: data.Images, test: data.Images, cfg: Probe, quick: bool) -> dict:
    """Top-1 in percent of the slow way, run in full, and of the package, on SimCLR of the laptop profile.

    Both mirror the training images at random: wrong for digits, but what is compared here.
    """
    statistics, precision = train.statistics, report.precisions()[-1]
    view, plain = (authors.flipped(p, statistics) for p in (0.5, 0.0))
    with TemporaryDirectory() as work:
        encoder, _ = pretrain.pretrain(
            config.change(LAPTOP.simclr, epochs=1) if quick else LAPTOP.simclr, train.images, train.labels, statistics, Path(work), precision
        )
    features = evaluate.run_network(encoder.backbone, train.images, statistics, "fp32")
    seeds = range(2 if quick else 5)
    head = lambda: nn.Linear(features.shape[1], len(train.class_names))  # noqa: E731
    standardised = [nn.Sequential(Standardise(features), head()) for _ in seeds]
    slow = authors.LinearEvaluation(encoder.backbone, [head(), *standardised], cfg)
    batches = authors.loader(authors.OneView(train.images, train.labels, view), cfg.batch)
    for epoch in range(cfg.epochs):
        slow.epoch(epoch, batches)
    raw, *theirs = slow.accuracies(authors.loader(authors.OneView(test.images, test.labels, plain), cfg.batch))
    ours = [
        evaluate.score(encoder.backbone, train, test, statistics, cfg, seed, precision, flip=True)["linear"]
        for seed in seeds
    ]
    result = {
        "slow": 100 * raw,
        "slow, standardised features": report.spread([100 * x for x in theirs]),
        "package": report.spread([100 * x for x in ours]),
        "difference": round(100 * float(np.mean(ours) - np.mean(theirs)), 2),
        "note": f"{len(seeds)} classifiers each, by their seeds; difference: of the means, with standardised features",
    }
    print(result)
    return result


if __name__ == "__main__":
    report.main(measure)
