"""The methods: each owns its networks and turns projections into a loss.

`n_views` says how many augmented views of an anchor it sees. What differs between methods beyond the
loss is the third view: none, one more augmentation of the anchor (the control), or an augmentation
of a synthetic positive (CLSP).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils import processes, training
from clsp_utils.config import Pretrain
from clsp_utils.encoders import Encoder, momentum_copy, momentum_update, predictor
from clsp_utils.losses import feature_contrast, info_nce, nearest, neighbour_nce, nt_xent, sup_con


class SimCLR(nn.Module):
    """Two views, NT-Xent (arXiv 2002.05709)."""

    n_views = 2

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__()
        self.temperature = cfg.temperature
        self.encoder = Encoder(cfg.encoder)

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            z: projections of each view, `(N, D)`, unit-norm rows, of the whole batch.
            views: the views of this process's share, `(N / world, 3, H, W)` each.
            labels: `(N,)`, for the methods that read them.
        """
        return nt_xent(z[0], z[1], self.temperature)

    def after_step(self, progress: float) -> None:
        """`progress` is the share of the run that is done, in (0, 1]."""


class SupCon(SimCLR):
    """Two views; all images of a class are positives of each other (arXiv 2004.11362)."""

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        return sup_con(torch.cat(z[:2]), torch.cat([labels, labels]), self.temperature)


class Queue(nn.Module):
    """Past embeddings, unit-norm rows `(n, K, D)`: n queues that move together, oldest out first."""

    def __init__(self, n: int, size: int, dimension: int):
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(n, size, dimension), dim=2))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, new: list[Tensor]) -> None:
        """Replaces the oldest rows of each queue by `(N, D)`, N at most K."""
        n, size = len(new[0]), self.rows.shape[1]
        slots = (self.position + torch.arange(n, device=self.rows.device)) % size
        for queue, rows in zip(self.rows, new):
            queue[slots] = rows
        self.position.add_(n).remainder_(size)


class Twin(nn.Module):
    """MoCo's key encoder: a copy that follows the encoder by a momentum, which rises by a cosine."""

    def __init__(self, encoder: nn.Module, cfg: Pretrain):
        super().__init__()
        self.encoder = momentum_copy(encoder)
        self.start, self.end = cfg.key_momentum, cfg.key_momentum_end

    @torch.no_grad()
    def keys(self, views: list[Tensor]) -> list[Tensor]:
        """Embeddings of the first two views, `(N, D)` each, of the whole batch."""
        return [processes.gather(k) for k in self.encoder(torch.cat(views[:2])).chunk(2)]

    @torch.no_grad()
    def follow(self, encoder: nn.Module, progress: float) -> None:
        momentum = self.end - (self.end - self.start) * 0.5 * (1 + np.cos(np.pi * progress))
        momentum_update(self.encoder, encoder, momentum)


class MoCoV2(SimCLR):
    """Two views, symmetric InfoNCE against one queue of past keys a view (arXiv 2003.04297)."""

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        self.twin = Twin(self.encoder, cfg)
        self.queue = Queue(2, cfg.queue, cfg.encoder.projection)

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        self.keys = self.twin.keys(views)
        return 0.5 * sum(
            info_nce(z[i], self.keys[1 - i], self.queue.rows[1 - i], self.temperature) for i in (0, 1)
        )

    def after_step(self, progress: float) -> None:
        self.queue.push(self.keys)
        self.twin.follow(self.encoder, progress)


class NNCLR(SimCLR):
    """The positive of a view is the nearest past embedding of its partner (arXiv 2104.14548)."""

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        self.predictor = predictor(cfg.encoder)
        self.queue = Queue(1, cfg.queue, cfg.encoder.projection)

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        self.keys = z[0].detach()
        found = [nearest(own.detach(), self.queue.rows[0], 1)[:, 0] for own in z[:2]]
        return self.contrast(found, self.predictions(z))

    def predictions(self, z: list[Tensor]) -> list[Tensor]:
        """The predictor's answers to the first two views, unit-norm rows `(N, D)` each."""
        return [F.normalize(self.predictor(own).float(), dim=1) for own in z[:2]]

    def contrast(self, targets: list[Tensor], found: list[Tensor]) -> Tensor:
        """Each view's targets `(N, D)` must find what the *other* view has in the same row; mean of both."""
        return sum(neighbour_nce(targets[i], found[1 - i], self.temperature) for i in (0, 1)) / 2

    def after_step(self, progress: float) -> None:
        self.queue.push([self.keys])


class All4One(NNCLR):
    """Contrast of neighbours, of their centroids, and of features (arXiv 2303.09417).

    A slowly moving copy of the encoder makes the keys that find the neighbours and fill the queue. A
    transformer summarises a key's neighbours, nearest first, in the first of its outputs; the centroid
    of one view must find that of the other, in which a prediction has taken the first place and moved
    the neighbours on by one. No dropout in the transformer, unlike in the paper.
    """

    neighbours, layers = 5, 3
    weights = (0.5, 0.5, 5.0)  # neighbours, centroids, features

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        self.twin = Twin(self.encoder, cfg)
        self.second_predictor = predictor(cfg.encoder)
        width = cfg.encoder.projection
        heads = math.gcd(width, 8)  # must divide the width
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.attention = nn.TransformerEncoder(layer, self.layers, enable_nested_tensor=False)
        self.register_buffer("positions", sinusoids(self.neighbours, width))

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        keys = self.twin.keys(views)
        self.keys = keys[0]
        found = [nearest(k, self.queue.rows[0], self.neighbours) for k in keys]
        own_centroids = [self.centroids(rows) for rows in found]
        shifted = [
            self.centroids(torch.cat([self.second_predictor(own)[:, None], rows[:, :-1]], 1))
            for own, rows in zip(z, found)
        ]
        terms = (
            self.contrast([rows[:, 0] for rows in found], self.predictions(z)),
            self.contrast(own_centroids, shifted),
            feature_contrast(keys, z[1::-1]),
        )
        return sum(weight * term for weight, term in zip(self.weights, terms))

    def centroids(self, rows: Tensor) -> Tensor:
        """Embeddings `(N, n, D)` to one unit-norm centroid each, `(N, D)`."""
        return F.normalize(self.attention(rows + self.positions)[:, 0].float(), dim=1)

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.twin.follow(self.encoder, progress)


def sinusoids(n: int, width: int) -> Tensor:
    """Positions 0 to n - 1 as sines and cosines of falling frequency, `(n, width)` (arXiv 1706.03762)."""
    pairs = torch.arange(width) // 2
    angles = torch.arange(n)[:, None] / 10_000 ** (2 * pairs / width)
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos())


class Supervised(nn.Module):
    """One view and its label: the classifier that judges candidates, no contrast at all."""

    n_views = 1

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__()
        self.encoder = Encoder(cfg.encoder)
        self.encoder.projector = nn.Linear(self.encoder.backbone.n_features, n_classes)
        self.encoder.unit_norm = False

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        return F.cross_entropy(z[0].float(), labels)

    def after_step(self, progress: float) -> None:
        pass


@dataclass(frozen=True)
class Recipe:
    """What a method's name stands for: the base loss and where its third view comes from."""

    base: type[nn.Module]
    settings: str  # the field of the profile that holds its settings
    third: str | None = None  # None, "view" (of the anchor), "synthetic" (a candidate), "class" (a sample of its class)

    @property
    def needs_labels(self) -> bool:
        return self.base in (Supervised, SupCon)

    @property
    def needs_bank(self) -> bool:
        return self.third in ("synthetic", "class")

    @property
    def ignores(self) -> tuple[str, ...]:
        """Settings of `Pretrain` that do not shape the result."""
        names = () if self.third else ("clsp_weight", "clsp_ramp")
        if self.base not in (MoCoV2, All4One):
            names += ("key_momentum", "key_momentum_end")
        if not issubclass(self.base, (MoCoV2, NNCLR)):
            names += ("queue",)
        return names if self.base is not Supervised else (*names, "temperature")


METHODS = {
    "SimCLR": Recipe(SimCLR, "simclr"),
    "third view": Recipe(SimCLR, "simclr", "view"),
    "CLSP-SimCLR": Recipe(SimCLR, "simclr", "synthetic"),
    "class positives": Recipe(SimCLR, "simclr", "class"),
    "SupCon": Recipe(SupCon, "simclr"),
    "NNCLR": Recipe(NNCLR, "simclr"),
    "All4One": Recipe(All4One, "simclr"),
    "MoCoV2": Recipe(MoCoV2, "moco"),
    "CLSP-MoCoV2": Recipe(MoCoV2, "moco", "synthetic"),
    "supervised": Recipe(Supervised, "classifier"),
}


def build(cfg: Pretrain, n_classes: int) -> nn.Module:
    """The method's module, weights drawn from `cfg.seed` alone, so that methods start alike."""
    with torch.random.fork_rng():
        torch.manual_seed(training.seed_for(cfg.seed, "weights"))
        return METHODS[cfg.method].base(cfg, n_classes)
