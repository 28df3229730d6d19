"""ResNet with the stem that small images need, projector, predictor."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from clsp_utils.config import Backbone
from clsp_utils.contrastive.fast_conv import Conv2d


def build_backbone(cfg: Backbone) -> ResNet:
    """torchvision's ResNet with a 3x3 stem: `(B, 3, H, W)` to `(B, n_features)`.

    Width 64 and four levels are the published networks; small images do with less.
    """
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[cfg.block]
    net = ResNet(block, [1, 1, 1, 1])
    net.inplanes = cfg.width
    net.conv1 = nn.Conv2d(3, cfg.width, 3, stride=cfg.stem_stride, padding=1, bias=False)
    net.bn1 = nn.BatchNorm2d(cfg.width)
    if not cfg.max_pool:
        net.maxpool = nn.Identity()
    for i in range(4):
        level = nn.Identity()
        if i < len(cfg.layers):
            level = net._make_layer(block, cfg.width * 2**i, cfg.layers[i], stride=1 + (i > 0))
        setattr(net, f"layer{i + 1}", level)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            m.__class__ = Conv2d  # torchvision has no argument for it
            # torchvision starts its convolutions like this, too.
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    net.n_features = net.inplanes
    net.fc = nn.Identity()
    return net


class Encoder(nn.Module):
    """Backbone f and projector g: `z = g(f(x)) / ||g(f(x))||`, `(B, 3, H, W)` to `(B, D)`."""

    unit_norm = True

    def __init__(self, cfg: Backbone):
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.n_features, cfg.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(cfg.hidden, cfg.projection),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Projections, with unit-norm rows unless `unit_norm` is off."""
        z = self.projector(self.backbone(x)).float()
        return F.normalize(z, dim=1) if self.unit_norm else z


class Joined(nn.Module):
    """Features of encoders side by side, `(B, 3, H, W)` to `(B, sum of n_features)`; no projector.

    Args:
        encoders: each an `Encoder`, or itself joined.
    """

    def __init__(self, *encoders: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(part for one in encoders for part in backbones(one))

    @property
    def backbone(self) -> nn.Module:
        """Itself: what is read of any encoder."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The features of all parts, first to last."""
        return torch.cat([part(x) for part in self.parts], 1)


def backbones(encoder: nn.Module) -> list[nn.Module]:
    """The backbones whose features an encoder gives, first to last."""
    return list(encoder.parts) if isinstance(encoder, Joined) else [encoder.backbone]


def predictor(cfg: Backbone) -> nn.Module:
    """NNCLR's head on projections: `(B, D)` to `(B, D)`, with batch norm between its two layers."""
    return nn.Sequential(
        nn.Linear(cfg.projection, cfg.hidden),
        nn.BatchNorm1d(cfg.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(cfg.hidden, cfg.projection),
    )


@cache
def training_flops(cfg: Backbone, size: int) -> int:
    """Floating-point operations to train on one view: forward, and twice that back.

    Args:
        size: of the view, in pixels a side.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Encoder(cfg).eval()(torch.zeros(1, 3, size, size))
    return 3 * counter.get_total_flops()
