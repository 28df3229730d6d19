"""Linear evaluation where only a few of the training images have a label."""

from dataclasses import replace

import numpy as np
import torch

from clsp_utils.config import Probe
from clsp_utils.data import Images
from clsp_utils.evaluation.probes import ProbeFeatures, accuracy, linear_probe
from clsp_utils.runtime import seed_for


def few_rows(data: Images, share: float, seed: int) -> np.ndarray:
    """Rows of images that keep their label: a share of the groups, one image of each.

    So copies of one stroke count once. Every class gets as many, at least one, and all that it has
    where that is fewer.

    Args:
        data: all of its images have a label. A group counts for the class of its first image.
        share: of the groups, in [0, 1].

    Returns:
        `(n,)`, ascending.
    """
    groups, first = np.unique(data.groups, return_index=True)
    labels = data.labels[first]
    classes = np.unique(labels)
    n = max(1, round(share * len(groups) / len(classes)))
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(first[labels == one])[:n] for one in classes]))


def few_label_accuracy(
    features: ProbeFeatures,
    train: Images,
    test: Images,
    share: float,
    draws: int,
    cfg: Probe,
    seed: int,
) -> float:
    """Linear top-1 with a share of the labels, in [0, 1]: mean of several draws of the rows.

    Where the probe standardises features, it is by all training features, for which no label is
    needed: what is constant in a few images is not in others.

    Args:
        features: of the images of `train` and `test`, all of which have a label.
        share: of the training labels, see `few_rows`.
        seed: of rows and probes.
    """
    x = features
    if cfg.standardise:
        mean, std = x.train.mean(0), x.train.std(0) + 1e-6
        x = ProbeFeatures(*(part if part is None else (part - mean) / std for part in x))
    cfg, labels, found = replace(cfg, standardise=False), torch.from_numpy(train.labels), []
    for draw in range(draws):
        rows = few_rows(train, share, seed_for(seed, "few labels", share, draw))
        mirrored = None if x.mirrored is None else x.mirrored[rows]
        predicted = linear_probe(x.train[rows], labels[rows], x.test, cfg, seed, mirrored)
        found.append(accuracy(predicted, test.labels))
    return sum(found) / len(found)
