"""Settings with the least work that has all steps, and what stands in the place of the images."""

from functools import lru_cache

import torch

from clsp_utils.pipeline import stages

FP32 = {"precision": "fp32"}  # the same on every machine
QUICK = FP32 | {
    "diffusion.steps": 2,
    "candidates.steps": 1,
    "candidates.k": 1,
    "class_candidates.steps": 1,
    "class_candidates.k": 1,
    "rcg_candidates.steps": 1,
    "rcg_candidates.k": 1,
    "cluster_candidates.steps": 1,
    "cluster_candidates.k": 1,
    "pretrain.epochs": 1,
    "classifier.epochs": 1,
    "probe.epochs": 1,
    "transfer.pictures": (100, 100, 100),
    "logistic.n_c": 2,
    "logistic.iterations": 5,
    "few_labels.draws": 1,
}


def put_images(monkeypatch, train, test):
    """Whatever data set is asked for, these images are it."""
    monkeypatch.setattr(stages, "_load", lru_cache(lambda data: (train, test)))
    stages.read_anew()


def equal(one, other):
    """Whether two networks have the same weights."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name].cpu(), second[name].cpu()) for name in first
    )
