"""ResNet with the stem that small images need, projector, momentum copy."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from clsp_utils.config import Encoder as EncoderConfig


def build_backbone(cfg: EncoderConfig) -> ResNet:
    """torchvision's ResNet with a 3x3 stem: `(B, 3, H, W)` to `(B, n_features)`.

    Width 64 and four stages are the published networks; small images do with less.
    """
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[cfg.block]
    net = ResNet(block, [1, 1, 1, 1])
    net.inplanes = cfg.width
    net.conv1 = nn.Conv2d(3, cfg.width, 3, stride=cfg.stem_stride, padding=1, bias=False)
    net.bn1 = nn.BatchNorm2d(cfg.width)
    if not cfg.max_pool:
        net.maxpool = nn.Identity()
    for i in range(4):
        stage = nn.Identity()
        if i < len(cfg.layers):
            stage = net._make_layer(block, cfg.width * 2**i, cfg.layers[i], stride=1 + (i > 0))
        setattr(net, f"layer{i + 1}", stage)
    for m in net.modules():  # as torchvision does for the layers that were replaced
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    net.n_features = net.inplanes
    net.fc = nn.Identity()
    return net


class Encoder(nn.Module):
    """Backbone f and projector g: `z = g(f(x)) / ||g(f(x))||`, `(B, 3, H, W)` to `(B, D)`."""

    unit_norm = True

    def __init__(self, cfg: EncoderConfig):
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.n_features, cfg.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(cfg.hidden, cfg.projection),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.projector(self.backbone(x)).float()
        return F.normalize(z, dim=1) if self.unit_norm else z


def momentum_copy(encoder: nn.Module) -> nn.Module:
    """A copy without gradients: MoCo's key encoder."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def momentum_update(twin: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """`twin = m * twin + (1 - m) * encoder` for every parameter; m in [0, 1]."""
    torch._foreach_lerp_(list(twin.parameters()), list(encoder.parameters()), 1 - momentum)
