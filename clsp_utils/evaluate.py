"""How good is an encoder, and can the difference be trusted? Works on cached features.

The backbone runs once over each image; linear probe and kNN then read the features. No choice is
made on the images that a score is reported on.
"""

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils import training
from clsp_utils.config import Probe
from clsp_utils.data import Images, split_by_group
from clsp_utils.views import normalise, to_float


@torch.inference_mode()
def run_network(
    net: nn.Module, images: np.ndarray, statistics: tuple, precision: str, batch: int = 1000
) -> Tensor:
    """Runs `net` over images, uint8 `(N, H, W, 3)`, normalised by `statistics`; fp32 `(N, D)`."""
    device = training.device()
    before = next((parameter.device for parameter in net.parameters()), device)
    net = net.to(device)
    out = []
    with training.autocast(device, precision):
        for i in range(0, len(images), batch):
            x = torch.tensor(images[i : i + batch], device=device)
            out.append(net(normalise(to_float(x), statistics)).float().cpu())
    net.to(before)
    return torch.cat(out)


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    cfg: Probe,
    seed: int,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Predictions `(M,)` of a linear classifier trained on frozen features `(N, D)`.

    SGD with momentum 0.9, the learning rate falling to a tenth at 60 % and at 80 % of the epochs
    (method, section 2). Features are standardised with the training features' mean and deviation.

    Args:
        mirrored: features of the mirrored training images; each epoch then takes, image by image,
            one of the two at random.
    """
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / std, (test - mean) / std
    if mirrored is not None:
        mirrored = (mirrored - mean) / std
    classifier = nn.Linear(train.shape[1], int(train_labels.max()) + 1)
    nn.init.zeros_(classifier.weight), nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.SGD(classifier.parameters(), cfg.lr, momentum=0.9)
    for epoch in range(cfg.epochs):
        passed = sum(epoch >= share * cfg.epochs for share in (0.6, 0.8))
        training.set_lr(optimizer, cfg.lr * 0.1**passed)
        g = training.generator(seed, "probe", epoch)
        order = torch.randperm(len(train), generator=g)
        x = train
        if mirrored is not None:
            x = torch.where(torch.rand(len(train), 1, generator=g) < 0.5, mirrored, train)
        for rows in order.split(cfg.batch):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x[rows]), train_labels[rows]).backward()
            optimizer.step()
    with torch.inference_mode():
        return classifier(test).argmax(1)


def knn(train: Tensor, train_labels: Tensor, test: Tensor, k: int, temperature: float = 0.07) -> Tensor:
    """Predictions `(M,)` of k nearest neighbours by cosine, weighted by `exp(cos / temperature)`."""
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    cosine, nearest = (test @ train.T).topk(min(k, len(train)), dim=1)
    votes = torch.zeros(len(test), int(train_labels.max()) + 1)
    votes.scatter_add_(1, train_labels[nearest], (cosine / temperature).exp())
    return votes.argmax(1)


def held_out_rows(data: Images) -> tuple[Tensor, Tensor]:
    """Rows of the training images, `(kept, held)`: a fifth is held out, by group."""
    numbered = Images(np.arange(len(data)), data.labels, data.groups, data.class_names)
    kept, held = split_by_group(numbered, 0.2)
    return torch.from_numpy(kept.images), torch.from_numpy(held.images)


def held_out_knn(features: Tensor, data: Images, neighbours: tuple[int, ...]) -> dict[int, float]:
    """kNN accuracy for each k on a fifth of the training images, held out by group."""
    kept, held = held_out_rows(data)
    labels = torch.from_numpy(data.labels)
    return {
        k: accuracy(knn(features[kept], labels[kept], features[held], k), labels[held])
        for k in neighbours
    }


def choose_k(features: Tensor, data: Images, neighbours: tuple[int, ...]) -> int:
    """The k of kNN that is best on held-out training images."""
    scores = held_out_knn(features, data, neighbours)
    return max(scores, key=scores.get)


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    return (predictions == torch.as_tensor(labels)).float().mean().item()


def score(
    backbone: nn.Module,
    train: Images,
    test: Images,
    statistics: tuple,
    cfg: Probe,
    seed: int,
    precision: str,
    flip: bool = False,
) -> dict:
    """Linear and kNN top-1 of a frozen backbone: `{"linear", "knn", "k"}`, shares in [0, 1].

    Images without a label are left out. With `flip` the linear classifier trains on images that are
    mirrored at random.
    """
    train, test = train.labelled, test.labelled
    features = [run_network(backbone, part.images, statistics, precision) for part in (train, test)]
    mirrored = None
    if flip:
        mirrored = run_network(backbone, train.images[:, :, ::-1].copy(), statistics, precision)
    labels = [torch.from_numpy(part.labels) for part in (train, test)]
    k = choose_k(features[0], train, cfg.neighbours)
    predicted = linear_probe(features[0], labels[0], features[1], cfg, seed, mirrored)
    return {
        "linear": accuracy(predicted, labels[1]),
        "knn": accuracy(knn(features[0], labels[0], features[1], k), labels[1]),
        "k": k,
    }


def interval(values, level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval of independent values (one a seed)."""
    values = np.asarray(values, float)
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)


def paired(table: pd.DataFrame, metric: str, method: str, rival: str) -> dict:
    """Difference of two methods over the seeds that both have, with a paired t test.

    Args:
        table: rows with columns "method", "seed" and `metric`.

    Returns:
        method, rival, metric, difference (mean), half_width (95 %), p, seeds, and wins (seeds in
        which `method` is ahead).
    """
    wide = table.pivot(index="seed", columns="method", values=metric)[[method, rival]].dropna()
    difference = wide[method] - wide[rival]
    mean, half = interval(difference)
    p = stats.ttest_rel(wide[method], wide[rival]).pvalue
    return {
        "method": method, "rival": rival, "metric": metric, "difference": mean, "half_width": half,
        "p": float(p), "seeds": len(wide), "wins": int((difference > 0).sum()),
    }


def background_match(images: np.ndarray, background: np.ndarray) -> float:
    """How far the margins of images follow given backgrounds: mean correlation, in [-1, 1].

    Compared are the two outer columns left and right, which content seldom reaches: for each of
    their pixels and channels, the correlation over the images. 1 = same background, 0 = chance.

    Args:
        images: uint8 `(N, H, W, 3)`; background: `(N, H, W, 3)`, any linear scale.
    """
    columns = [0, 1, -2, -1]
    a, b = (x[:, :, columns].reshape(len(x), -1).astype(np.float64) for x in (images, background))
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(((a * b).sum(0) / np.where(norm > 0, norm, 1)).mean())
