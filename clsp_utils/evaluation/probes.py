"""How good is an encoder? A linear classifier and nearest neighbours read its frozen features.

No choice is made on the images that a score is reported on.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils.config import Probe
from clsp_utils.data import ChannelStatistics, DataError, Images, split_rows
from clsp_utils.evaluation.features import extract_features
from clsp_utils.runtime import device, generator, seed_for, set_lr

COSINES = 2**26  # of kNN that are in memory at a time: 256 MiB


def linear_logits(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    cfg: Probe,
    seed: int,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Logits of a linear classifier that was trained on frozen features.

    SGD, the learning rate falling to a tenth at 60 % and at 80 % of the epochs. By default with
    momentum, on standardised features, from zero; the authors' probe, which the profiles `gpu` and
    `paper` take, does without all three.

    Args:
        train: features `(N, D)`; train_labels: `(N,)`, from 0 on.
        test: features `(M, D)`.
        mirrored: features `(N, D)` of the mirrored training images; each epoch then takes, image by
            image, one of the two at random.

    Returns:
        `(M, classes)`, on the CPU, a column for each class up to the largest of the training
        labels.
    """
    where, n_classes = device(), int(train_labels.max()) + 1
    train, train_labels, test = train.to(where), train_labels.to(where), test.to(where)
    mirrored = None if mirrored is None else mirrored.to(where)
    if cfg.standardise:
        mean, std = train.mean(0), train.std(0) + 1e-6
        train, test = (train - mean) / std, (test - mean) / std
        if mirrored is not None:
            mirrored = (mirrored - mean) / std
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "probe weights"))
        classifier = nn.Linear(train.shape[1], n_classes)
    if cfg.zero_init:
        nn.init.zeros_(classifier.weight), nn.init.zeros_(classifier.bias)
    classifier.to(where)
    optimizer = torch.optim.SGD(classifier.parameters(), cfg.lr, momentum=cfg.momentum)
    for epoch in range(cfg.epochs):
        passed = sum(epoch >= share * cfg.epochs for share in (0.6, 0.8))
        set_lr(optimizer, cfg.lr * 0.1**passed)
        g = generator(seed, "probe", epoch)
        order = torch.randperm(len(train), generator=g).to(where)
        x = train
        if mirrored is not None:
            turned = torch.rand(len(train), 1, generator=g) < 0.5
            x = torch.where(turned.to(where), mirrored, train)
        for rows in order.split(cfg.batch):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x[rows]), train_labels[rows]).backward()
            optimizer.step()
    with torch.inference_mode():
        return classifier(test).cpu()


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    cfg: Probe,
    seed: int,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Classes `(M,)` that the classifier of `linear_logits` predicts; arguments as there."""
    return linear_logits(train, train_labels, test, cfg, seed, mirrored).argmax(1)


def knn(
    train: Tensor, train_labels: Tensor, test: Tensor, k: int, temperature: float = 0.07
) -> Tensor:
    """Predictions of k nearest neighbours by cosine, weighted by `exp(cos / temperature)`.

    Args:
        train: features `(N, D)`; train_labels: `(N,)`, from 0 on.
        test: features `(M, D)`.
        k: neighbours that vote; all N where there are fewer.

    Returns:
        Classes `(M,)`, on the CPU.
    """
    where, n_classes = device(), int(train_labels.max()) + 1
    train, test = (F.normalize(features.to(where), dim=1) for features in (train, test))
    train_labels, predictions = train_labels.to(where), []
    for some in test.split(max(1, COSINES // len(train))):
        cosine, nearest = (some @ train.T).topk(min(k, len(train)), dim=1)
        votes = torch.zeros(len(some), n_classes, device=where)
        votes.scatter_add_(1, train_labels[nearest], (cosine / temperature).exp())
        predictions.append(votes.argmax(1).cpu())
    return torch.cat(predictions)


def held_out_rows(data: Images) -> tuple[Tensor, Tensor]:
    """Rows of the training images, `(kept, held)`: a fifth is held out, by group.

    Raises:
        DataError: no score can come of these labels.
    """
    if data.n_classes_present < 2:
        raise DataError(
            f"Scores need labels of at least two classes, with 10 images of each or more, and "
            f"these {len(data)} images are of {data.n_classes_present}: put them in a folder per "
            f"class, or only train on them, which needs no labels."
        )
    kept, held = split_rows(data, 0.2)
    return torch.from_numpy(kept), torch.from_numpy(held)


def held_out_knn(features: Tensor, data: Images, neighbours: tuple[int, ...]) -> dict[int, float]:
    """kNN accuracy for each k on a fifth of the training images, held out by group.

    Args:
        features: `(N, D)` of the images of `data`, all of which have labels.
        neighbours: the k to try.

    Returns:
        k -> accuracy in [0, 1].
    """
    kept, held = held_out_rows(data)
    labels = torch.from_numpy(data.labels)
    return {
        k: accuracy(knn(features[kept], labels[kept], features[held], k), labels[held])
        for k in neighbours
    }


def choose_k(features: Tensor, data: Images, neighbours: tuple[int, ...]) -> int:
    """The k of kNN that is best on held-out training images; arguments as of `held_out_knn`."""
    scores = held_out_knn(features, data, neighbours)
    return max(scores, key=scores.__getitem__)


def accuracy(predictions: Tensor, labels: Tensor | np.ndarray) -> float:
    """Share of predictions `(N,)` that equal the labels `(N,)`, in [0, 1]."""
    return (predictions == torch.as_tensor(labels)).float().mean().item()


def mean_per_class(predictions: Tensor, labels: Tensor | np.ndarray) -> float:
    """Mean of each class's own accuracy, in [0, 1]: a small class counts as much as a large one.

    Args:
        predictions, labels: classes `(N,)`; those that the labels hold count.
    """
    labels = torch.as_tensor(labels)
    own = [accuracy(predictions[labels == one], labels[labels == one]) for one in labels.unique()]
    return sum(own) / len(own)


def top_k_accuracy(logits: Tensor, labels: Tensor | np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k largest logits, in [0, 1]; 1 where k is all.

    Args:
        logits: `(N, classes)`; labels: `(N,)`.
    """
    largest = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (largest == torch.as_tensor(labels)[:, None]).any(1).float().mean().item()


class ProbeFeatures(NamedTuple):
    """Features `(N, D)` and `(M, D)`, and `(N, D)` of the mirrored training images or None."""

    train: Tensor
    test: Tensor
    mirrored: Tensor | None


def probe_features(
    backbone: nn.Module,
    train: Images,
    test: Images,
    statistics: ChannelStatistics,
    precision: str,
    flip: bool = False,
) -> ProbeFeatures:
    """Features of both splits, and of the mirrored training images if probes are to `flip` them."""
    how = statistics, precision
    mirrored = train.images[:, :, ::-1].copy() if flip else None
    return ProbeFeatures(
        extract_features(backbone, train.images, *how),
        extract_features(backbone, test.images, *how),
        None if mirrored is None else extract_features(backbone, mirrored, *how),
    )


def score(
    backbone: nn.Module,
    train: Images,
    test: Images,
    statistics: ChannelStatistics,
    cfg: Probe,
    seed: int,
    precision: str,
    flip: bool = False,
) -> dict[str, float]:
    """Linear and kNN top-1 of a frozen backbone. Images without a label are left out.

    Args:
        flip: the linear classifier trains on images that are mirrored at random.

    Returns:
        "linear" and "knn", shares in [0, 1], and "k", chosen on held-out training images.
    """
    train, test = train.labelled, test.labelled
    x = probe_features(backbone, train, test, statistics, precision, flip)
    labels = torch.from_numpy(train.labels)
    k = choose_k(x.train, train, cfg.neighbours)
    predicted = linear_probe(x.train, labels, x.test, cfg, seed, x.mirrored)
    return {
        "linear": accuracy(predicted, test.labels),
        "knn": accuracy(knn(x.train, labels, x.test, k), test.labels),
        "k": k,
    }
