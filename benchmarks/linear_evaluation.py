"""Time and accuracy of linear evaluation: python benchmarks/linear_evaluation.py"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import authors
import numpy as np
import report
import torch
from report import Way
from torch import nn

from clsp_utils.config import Backbone, Data, Probe, SimCLR, change
from clsp_utils.contrastive import build_method, pretrain
from clsp_utils.data import Images, load
from clsp_utils.evaluation import extract_features, score
from clsp_utils.pipeline import Profile


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
    train, test = load(Data(size=size, limit=200 if quick else 1500))
    statistics = train.statistics
    n_classes = len(train.class_names)

    # Time. An epoch of the slow way takes as long as another: part of one is timed.
    timed, rounds = (100, 1) if quick else (512, 2)
    shape = Backbone(layers=(1,), width=8) if quick else Profile("paper").simclr.backbone
    torch.manual_seed(0)
    encoder = build_method("SimCLR", SimCLR(backbone=shape), n_classes, 0).encoder
    backbone = encoder.backbone.eval()
    slow = authors.LinearEvaluation(backbone, [nn.Linear(backbone.n_features, n_classes)], cfg)
    view = authors.flipped(0.5, statistics)
    samples = authors.OneView(train.images[:timed], train.labels[:timed], view)
    part = authors.loader(samples, cfg.batch)
    ways = {"authors' way": Way(lambda: slow.epoch(0, part), timed / (len(train) * cfg.epochs))}
    for precision in report.precisions():
        how = (statistics, cfg, 0, precision)
        run = partial(score, backbone, train, test, *how, flip=True)
        ways[f"package, {precision}"] = Way(run, 1.0)
    rates = report.alternate(ways, rounds)
    return {
        "what": f"linear evaluation, {len(train)} images, {len(test)} to test, {size} px",
        "baseline": f"fp32, the backbone in each of {cfg.epochs} epochs, PIL flips, one DataLoader "
        f"worker a core; {timed} images are timed; the package's time has its kNN in it, the "
        f"authors' not",
        **report.headline(rates, ratio_fp32="package, fp32", ratio_bf16="package, bf16"),
        "ablation": report.ablation(rates, "evaluations/s"),
        "accuracy": accuracy(*load(Data(limit=200 if quick else 0)), cfg, quick),
    }


def accuracy(train: Images, test: Images, cfg: Probe, quick: bool) -> dict:
    """Top-1 in percent of the slow way, run in full, and of the package.

    The encoder is SimCLR of the laptop profile. Both mirror the training images at random: wrong
    for digits, but what is compared here.
    """
    statistics, precision = train.statistics, report.precisions()[-1]
    view, plain = (authors.flipped(p, statistics) for p in (0.5, 0.0))
    simclr = Profile("laptop").simclr
    if quick:
        simclr = change(simclr, epochs=1)
    anchors = (train.images, train.labels, statistics)
    with TemporaryDirectory() as work:
        encoder, _ = pretrain("SimCLR", simclr, *anchors, 0, Path(work), precision)
    features = extract_features(encoder.backbone, train.images, statistics, "fp32")
    seeds = range(2 if quick else 5)
    head = partial(nn.Linear, features.shape[1], len(train.class_names))
    standardised = [nn.Sequential(Standardise(features), head()) for _ in seeds]
    slow = authors.LinearEvaluation(encoder.backbone, [head(), *standardised], cfg)
    batches = authors.loader(authors.OneView(train.images, train.labels, view), cfg.batch)
    for epoch in range(cfg.epochs):
        slow.epoch(epoch, batches)
    to_test = authors.OneView(test.images, test.labels, plain)
    raw, *theirs = slow.accuracies(authors.loader(to_test, cfg.batch))
    ours = [
        score(encoder.backbone, train, test, statistics, cfg, seed, precision, True)["linear"]
        for seed in seeds
    ]
    result = {
        "slow": 100 * raw,
        "slow, standardised features": report.spread([100 * x for x in theirs]),
        "package": report.spread([100 * x for x in ours]),
        "difference": round(100 * float(np.mean(ours) - np.mean(theirs)), 2),
        "note": f"{len(seeds)} classifiers each, by their seeds; difference: of the means, with "
        "standardised features",
    }
    print(result)
    return result


if __name__ == "__main__":
    report.main(measure)
