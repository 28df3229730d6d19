"""The authors' way, built anew from the paper's description: what the benchmarks compare with.

fp32 throughout; images through PIL, one at a time, in the workers of a DataLoader. Networks and
losses are the package's, so that only the way of using them differs. Costs that their code has and
that buy nothing but bytes (a projector nobody reads, a momentum pass thrown away) are left out.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch
from diffusers import UNet2DModel
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from clsp_utils.config import Probe, SimCLR, Views
from clsp_utils.contrastive import Encoder, clsp_term, nt_xent
from clsp_utils.data import ChannelStatistics
from clsp_utils.diffusion import decode, encode
from clsp_utils.runtime import autocast, device, set_lr

ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


@torch.no_grad()
def interpolate(
    unet: UNet2DModel,
    anchors: Tensor,
    noise: Tensor,
    mix_weight: float,
    steps: int,
    eta: float,
    g: Generator,
    anchor_noise: Generator,
    only: int | None = None,
) -> Tensor:
    """DDIM with the anchor's features, the anchor encoded for each candidate at each step.

    Args:
        anchors: `(B, 3, H, W)` in [-1, 1], an anchor of k candidates k times.
        noise: `(B, 3, H, W)` standard normal.
        only: stop after so many of the steps. A step costs the same at each t.

    Returns:
        `(B, 3, H, W)`, not clipped.
    """
    x = noise
    for t in list(range(999, -1, -1000 // steps))[:only]:
        features = encode(unet, x, t)
        h = features.h
        if mix_weight < 1:
            fresh = torch.randn(anchors.shape, generator=anchor_noise, device=anchors.device)
            noised = ALPHA_BAR[t].sqrt() * anchors + (1 - ALPHA_BAR[t]).sqrt() * fresh
            h = mix_weight * h + (1 - mix_weight) * encode(unet, noised, t).h
        eps = decode(unet, h, features.skips, features.temb)
        a = ALPHA_BAR[t]
        before = t - 1000 // steps
        a_before = ALPHA_BAR[before] if before >= 0 else torch.tensor(1.0)
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        sigma = eta * ((1 - a_before) / (1 - a) * (1 - a / a_before)).sqrt()
        x = a_before.sqrt() * x0 + (1 - a_before - sigma**2).sqrt() * eps
        x = x + sigma * torch.randn(x.shape, generator=g, device=x.device)
    return x


def pipeline(cfg: Views, size: int, statistics: ChannelStatistics) -> transforms.Compose:
    """One random view of one PIL image."""
    jitter = transforms.ColorJitter(cfg.brightness, cfg.contrast, cfg.saturation, cfg.hue)
    steps = [
        transforms.RandomResizedCrop(size, scale=cfg.crop_area),
        transforms.RandomApply([jitter], cfg.p_jitter),
        transforms.RandomHorizontalFlip(cfg.p_flip),
        transforms.RandomGrayscale(cfg.p_grey),
        transforms.ToTensor(),
        transforms.Normalize(*statistics),
    ]
    return transforms.Compose(steps)


class SixViews(Dataset):
    """Six views a sample, three of the anchor and three of a candidate, of which three are used."""

    def __init__(self, images: np.ndarray, bank: np.ndarray, view: transforms.Compose):
        self.images, self.bank, self.view = images, bank, view

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> list[Tensor]:
        k = torch.randint(self.bank.shape[1], ())
        sources = [Image.fromarray(self.images[i]), Image.fromarray(self.bank[i, k])]
        views = [self.view(source) for source in sources for _ in range(3)]
        return [views[0], views[1], views[3]]


class OneView(Dataset):
    """One view a sample, and its label."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, view: transforms.Compose):
        self.images, self.labels, self.view = images, labels, view

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.view(Image.fromarray(self.images[i])), self.labels[i]


def flipped(p: float, statistics: ChannelStatistics) -> transforms.Compose:
    """What linear evaluation and diffusion do to an image: mirror it at random, scale it."""
    steps = [transforms.RandomHorizontalFlip(p), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(*statistics)])


def loader(data: Dataset, batch: int, endless: bool = False) -> DataLoader:
    """Shuffled batches from as many workers as there are cores, kept from epoch to epoch."""
    order = RandomSampler(data, replacement=endless, num_samples=10**8 if endless else None)
    workers = len(os.sched_getaffinity(0))
    return DataLoader(data, batch, sampler=order, num_workers=workers, persistent_workers=True)


class Contrastive:
    """CLSP-SimCLR; `step()` takes one batch from the loader and makes one step."""

    def __init__(self, cfg: SimCLR, batches: Iterator, precision: str = "fp32"):
        self.cfg, self.batches, self.precision = cfg, batches, precision
        self.device = device()
        self.encoder = Encoder(cfg.backbone).train().to(self.device)
        self.optimizer = torch.optim.SGD(
            self.encoder.parameters(), cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay
        )

    def step(self) -> None:
        views = [view.to(self.device) for view in next(self.batches)]
        with autocast(self.device, self.precision):
            z = self.encoder(torch.cat(views)).chunk(3)
            loss = nt_xent(z[0], z[1], self.cfg.temperature)
            loss = loss + self.cfg.third_view.weight * clsp_term(z[0], z[2])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()


class LinearEvaluation:
    """A linear classifier on a frozen backbone, which runs over all images in every epoch.

    Args:
        heads: classifiers to train side by side on the same passes.
    """

    def __init__(self, backbone: nn.Module, heads: list[nn.Module], cfg: Probe):
        self.device = device()
        self.backbone = backbone.eval().to(self.device)
        self.heads, self.cfg = nn.ModuleList(heads), cfg
        self.optimizer = torch.optim.SGD(self.heads.parameters(), cfg.lr, momentum=0.9)

    def epoch(self, epoch: int, batches: DataLoader) -> None:
        passed = sum(epoch >= share * self.cfg.epochs for share in (0.6, 0.8))
        set_lr(self.optimizer, self.cfg.lr * 0.1**passed)
        for x, labels in batches:
            with torch.no_grad():
                features = self.backbone(x.to(self.device)).cpu()
            loss = sum(F.cross_entropy(head(features), labels) for head in self.heads)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def accuracies(self, batches: DataLoader) -> list[float]:
        """Top-1 of each head, in [0, 1]."""
        right, n = torch.zeros(len(self.heads)), 0
        for x, labels in batches:
            features = self.backbone(x.to(self.device)).cpu()
            predicted = [head(features).argmax(1) for head in self.heads]
            right += torch.tensor([(classes == labels).sum() for classes in predicted])
            n += len(labels)
        return (right / n).tolist()


class Diffusion:
    """DDPM training of a UNet; `step()` takes one batch from the loader and makes one step."""

    def __init__(
        self, unet: UNet2DModel, batches: Iterator, lr: float, clip: float, precision: str = "fp32"
    ):
        self.device = device()
        self.unet, self.batches = unet.train().to(self.device), batches
        self.clip, self.precision = clip, precision
        self.average = {name: p.detach().clone() for name, p in unet.named_parameters()}
        self.optimizer = torch.optim.Adam(unet.parameters(), lr)

    def step(self, ema_decay: float = 0.9999) -> None:
        x = next(self.batches)[0].to(self.device)
        t = torch.randint(1000, (len(x),))
        a = ALPHA_BAR[t].view(-1, 1, 1, 1).to(self.device)
        noise = torch.randn_like(x)
        with autocast(self.device, self.precision):
            predicted = self.unet(a.sqrt() * x + (1 - a).sqrt() * noise, t.to(self.device)).sample
        loss = F.mse_loss(predicted.float(), noise)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), self.clip)
        self.optimizer.step()
        with torch.no_grad():
            for name, p in self.unet.named_parameters():
                self.average[name].mul_(ema_decay).add_(p, alpha=1 - ema_decay)
        loss.item()
