"""ResNet with the stem that small images need, projector, momentum copy."""

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
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
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            m.__class__ = Conv2d  # torchvision has no argument for it
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    net.n_features = net.inplanes
    net.fc = nn.Identity()
    return net


class _FewPixels(torch.autograd.Function):
    """`conv2d` whose weight gradient is one product of patches and output gradients.

    On CPUs, oneDNN's own bf16 weight gradient takes five times as long as all else in a layer whose
    output has few pixels. The sum is the same, in another order.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: tuple, padding: tuple) -> Tensor:
        y = F.conv2d(x, weight, None, stride, padding)
        ctx.save_for_backward(x.to(y.dtype), weight.to(y.dtype))
        ctx.geometry, ctx.dtypes = (stride, padding), (x.dtype, weight.dtype)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        (x, weight), (stride, padding) = ctx.saved_tensors, ctx.geometry
        n_out, n_in, height, width = weight.shape
        to_x = torch.nn.grad.conv2d_input(x.shape, weight, grad, stride, padding)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
        patches = x.unfold(1, height, stride[0]).unfold(2, width, stride[1])  # (B, h, w, C, 3, 3)
        patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, height * width * n_in)
        to_weight = grad.permute(0, 2, 3, 1).reshape(-1, n_out).T @ patches
        to_weight = to_weight.view(n_out, height, width, n_in).permute(0, 3, 1, 2)
        return to_x.to(ctx.dtypes[0]), to_weight.to(ctx.dtypes[1]), None, None


class Conv2d(nn.Conv2d):
    """torch's convolution, with a faster gradient on CPUs where the output has few pixels."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and pixels <= 16:
            return _FewPixels.apply(x, self.weight, self.stride, self.padding)
        return super().forward(x)


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


@cache
def training_flops(cfg: EncoderConfig, size: int) -> int:
    """Floating-point operations to train on one view of `size` x `size`: forward, and twice that back."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Encoder(cfg).eval()(torch.zeros(1, 3, size, size))
    return 3 * counter.get_total_flops()


def predictor(cfg: EncoderConfig) -> nn.Module:
    """NNCLR's head on projections: `(B, D)` to `(B, D)`, with batch norm between its two layers."""
    return nn.Sequential(
        nn.Linear(cfg.projection, cfg.hidden),
        nn.BatchNorm1d(cfg.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(cfg.hidden, cfg.projection),
    )


def momentum_copy(encoder: nn.Module) -> nn.Module:
    """A copy without gradients: MoCo's key encoder."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def momentum_update(twin: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """`twin = m * twin + (1 - m) * encoder` for every parameter; m in [0, 1]."""
    torch._foreach_lerp_(list(twin.parameters()), list(encoder.parameters()), 1 - momentum)
