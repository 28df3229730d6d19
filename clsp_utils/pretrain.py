"""One training loop for every contrastive method.

A method is a small module that owns its networks and turns projections into a loss. What differs
between methods beyond that is which third view they see: none, one more augmentation of the anchor
(the control), or an augmentation of a synthetic positive (CLSP).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from clsp_utils import training
from clsp_utils.config import Pretrain
from clsp_utils.encoders import Encoder, momentum_copy, momentum_update
from clsp_utils.losses import clsp_term, info_nce, nt_xent
from clsp_utils.views import augment


class SimCLR(nn.Module):
    """Two views, NT-Xent (arXiv 2002.05709)."""

    n_views = 2

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__()
        self.temperature = cfg.temperature
        self.encoder = Encoder(cfg.encoder)

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        return nt_xent(z[0], z[1], self.temperature)

    def after_step(self, progress: float) -> None:
        """`progress` is the share of the run that is done, in (0, 1]."""


class MoCoV2(SimCLR):
    """Two views, symmetric InfoNCE against one queue of past keys a view (arXiv 2003.04297)."""

    def __init__(self, cfg: Pretrain, n_classes: int):
        super().__init__(cfg, n_classes)
        self.twin = momentum_copy(self.encoder)
        self.start, self.end = cfg.key_momentum, cfg.key_momentum_end
        queues = F.normalize(torch.randn(2, cfg.queue, cfg.encoder.projection), dim=2)
        self.register_buffer("queues", queues)
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    def loss(self, z: list[Tensor], views: list[Tensor], labels: Tensor) -> Tensor:
        with torch.no_grad():
            self.keys = self.twin(torch.cat(views[:2])).chunk(2)
        return 0.5 * sum(
            info_nce(z[i], self.keys[1 - i], self.queues[1 - i], self.temperature) for i in (0, 1)
        )

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        n, size = len(self.keys[0]), self.queues.shape[1]
        slots = (self.position + torch.arange(n, device=self.queues.device)) % size
        for queue, keys in zip(self.queues, self.keys):
            queue[slots] = keys
        self.position.add_(n).remainder_(size)
        momentum = self.end - (self.end - self.start) * 0.5 * (1 + np.cos(np.pi * progress))
        momentum_update(self.twin, self.encoder, momentum)


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
    third: str | None = None  # None, "view" (of the anchor) or "synthetic" (of a candidate)

    @property
    def ignores(self) -> tuple[str, ...]:
        """Settings of `Pretrain` that do not shape the result."""
        names = () if self.third else ("clsp_weight", "clsp_ramp")
        if self.base is not MoCoV2:
            names += ("queue", "key_momentum", "key_momentum_end")
        return names if self.base is not Supervised else (*names, "temperature")


METHODS = {
    "SimCLR": Recipe(SimCLR, "simclr"),
    "third view": Recipe(SimCLR, "simclr", "view"),
    "CLSP-SimCLR": Recipe(SimCLR, "simclr", "synthetic"),
    "MoCoV2": Recipe(MoCoV2, "moco"),
    "CLSP-MoCoV2": Recipe(MoCoV2, "moco", "synthetic"),
    "supervised": Recipe(Supervised, "classifier"),
}


def build(cfg: Pretrain, n_classes: int) -> nn.Module:
    """The method's module, weights drawn from `cfg.seed` alone, so that methods start alike."""
    with torch.random.fork_rng():
        torch.manual_seed(training.seed_for(cfg.seed, "weights"))
        return METHODS[cfg.method].base(cfg, n_classes)


def pretrain(
    cfg: Pretrain,
    images: np.ndarray,
    labels: np.ndarray,
    statistics: tuple,
    work: Path,
    precision: str,
    bank: np.ndarray | None = None,
) -> tuple[Encoder, np.ndarray]:
    """Trains an encoder; resumes from `work` if an earlier run was cut off there.

    Anchors, their order and the first two views depend on the seed only, so that methods with the
    same seed are paired.

    Args:
        images: anchors, uint8 `(N, H, W, 3)`; labels: `(N,)`, read by "supervised" alone.
        statistics: mean and standard deviation of the data set, in [0, 1].
        bank: candidates, uint8 `(N, k, H, W, 3)`; may be memory-mapped. CLSP methods need it.

    Returns:
        The encoder in eval mode, on the CPU, and the loss of every step.

    Raises:
        training.Diverged: the loss is not finite.
    """
    recipe = METHODS[cfg.method]
    if recipe.third == "synthetic" and bank is None:
        raise ValueError(f"method={cfg.method!r} needs a candidate bank.")
    device = training.device()
    method = build(cfg, int(labels.max()) + 1).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        method.encoder.parameters(), cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay
    )
    batch = min(cfg.batch, len(images))
    per_epoch = len(images) // batch
    total = cfg.epochs * per_epoch
    losses = torch.zeros(total)
    checkpoint = training.Checkpoint(work, {"method": method, "optimizer": optimizer}, losses)
    start = checkpoint.restore()
    images, labels = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)

    method.train()
    for step in tqdm(range(start, total), cfg.method, initial=start, total=total, leave=False):
        epoch, i = divmod(step, per_epoch)
        if i == 0 or step == start:
            order = torch.randperm(len(images), generator=training.generator(cfg.seed, "order", epoch))
        anchors = order[i * batch : (i + 1) * batch]
        x = images[anchors].to(device, non_blocking=True)
        g = training.generator(cfg.seed, "views", step, device=device)
        views = [augment(x, cfg.views, statistics, g) for _ in range(method.n_views)]
        if recipe.third:
            source = x
            if recipe.third == "synthetic":
                source = draw_candidates(bank, anchors, training.generator(cfg.seed, "candidates", step))
                source = source.to(device, non_blocking=True)
            g = training.generator(cfg.seed, "third view", step, device=device)
            views.append(augment(source, cfg.views, statistics, g))
        with training.autocast(device, precision):
            stacked = torch.cat(views).contiguous(memory_format=torch.channels_last)
            z = list(method.encoder(stacked).chunk(len(views)))
            loss = method.loss(z, views, labels[anchors].to(device))
            if recipe.third:
                weight = cfg.clsp_weight * min(1.0, (step + 1) / (1 + cfg.clsp_ramp * total))
                loss = loss + weight * clsp_term(z[1], z[2])
        training.set_lr(optimizer, cfg.lr * training.warmup_cosine(step, total, cfg.warmup * per_epoch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step((step + 1) / total)
        checkpoint.after_step(step, loss.item(), f"{recipe.settings}.lr={cfg.lr:g}")
    return method.encoder.to("cpu", memory_format=torch.contiguous_format).eval(), losses.numpy()


def draw_candidates(bank: np.ndarray, anchors: Tensor, g: torch.Generator) -> Tensor:
    """One candidate of each anchor, drawn at random: uint8 `(B, H, W, 3)`."""
    pick = torch.randint(bank.shape[1], (len(anchors),), generator=g)
    return torch.from_numpy(bank[anchors.numpy(), pick.numpy()])
