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
from clsp_utils.losses import info_nce, nearest, neighbour_nce, nt_xent, redundancy, sup_con


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


class MoCoV2(SimCLR):
    """Two views, symmetric InfoNCE against one queue of past keys a view (arXiv 2003.04297)."""

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        self.twin = momentum_copy(self.encoder)
        self.start, self.end = cfg.key_momentum, cfg.key_momentum_end
        self.queue = Queue(2, cfg.queue, cfg.encoder.projection)

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        with torch.no_grad():
            self.keys = [processes.gather(k) for k in self.twin(torch.cat(views[:2])).chunk(2)]
        return 0.5 * sum(
            info_nce(z[i], self.keys[1 - i], self.queue.rows[1 - i], self.temperature) for i in (0, 1)
        )

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.queue.push(self.keys)
        momentum = self.end - (self.end - self.start) * 0.5 * (1 + np.cos(np.pi * progress))
        momentum_update(self.twin, self.encoder, momentum)


class NNCLR(SimCLR):
    """The positive of a view is the nearest past embedding of its partner (arXiv 2104.14548)."""

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        self.predictor = predictor(cfg.encoder)
        self.queue = Queue(1, cfg.queue, cfg.encoder.projection)

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        self.keys = z[0].detach()
        predictions = [F.normalize(self.predictor(own).float(), dim=1) for own in z[:2]]
        return 0.5 * sum(self.neighbour_loss(z[1 - i].detach(), predictions[i]) for i in (0, 1))

    def neighbour_loss(self, z: Tensor, predictions: Tensor) -> Tensor:
        """One view's embeddings `(N, D)` against the other view's predictions `(N, D)`."""
        return neighbour_nce(nearest(z, self.queue.rows[0], 1)[:, 0], predictions, self.temperature)

    def after_step(self, progress: float) -> None:
        self.queue.push([self.keys])


class All4One(NNCLR):
    """NNCLR, its contrast with a centroid of neighbours, and redundancy reduction (arXiv 2303.09417).

    A transformer turns the nearest past embeddings into one centroid. The three terms weigh the same;
    the paper's own weights belong to its longer schedules.
    """

    neighbours, layers = 5, 1

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        width = cfg.encoder.projection
        heads = math.gcd(width, 8)  # must divide the width
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.attention = nn.TransformerEncoder(layer, self.layers, enable_nested_tensor=False)

    def neighbour_loss(self, z: Tensor, predictions: Tensor) -> Tensor:
        found = nearest(z, self.queue.rows[0], self.neighbours)
        centroid = F.normalize(self.attention(found)[:, 0].float(), dim=1)
        return (
            neighbour_nce(found[:, 0], predictions, self.temperature)
            + neighbour_nce(centroid, predictions, self.temperature)
            + redundancy(found[:, 0], predictions)
        )


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
        if self.base is not MoCoV2:
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
