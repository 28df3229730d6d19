"""A convolution whose weight gradient is fast on CPUs where the output has few pixels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 16  # pixels of an output for which the product is taken, at most


class _FewPixels(torch.autograd.Function):
    """`conv2d` whose weight gradient is one product of patches and output gradients.

    On CPUs, oneDNN's own bf16 weight gradient takes five times as long as all else in a layer whose
    output has few pixels. The sum is the same, in another order.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        y = F.conv2d(x, weight, None, stride, padding)
        ctx.save_for_backward(x.to(y.dtype), weight.to(y.dtype))
        ctx.geometry, ctx.dtypes = (stride, padding), (x.dtype, weight.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,), (x, weight), (stride, padding) = grads, ctx.saved_tensors, ctx.geometry
        n_out, n_in, height, width = weight.shape
        to_x = torch.nn.grad.conv2d_input(x.shape, weight, grad, stride, padding)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
        patches = x.unfold(1, height, stride[0]).unfold(2, width, stride[1])  # (B, h, w, C, 3, 3)
        patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, height * width * n_in)
        to_weight = grad.permute(0, 2, 3, 1).reshape(-1, n_out).T @ patches
        to_weight = to_weight.view(n_out, height, width, n_in).permute(0, 3, 1, 2)
        return to_x.to(ctx.dtypes[0]), to_weight.to(ctx.dtypes[1]), None, None


class Conv2d(nn.Conv2d):
    """torch's convolution without bias, with the faster gradient under bf16 autocast on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """The same as `nn.Conv2d`."""
        pixels = x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        in_bf16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if in_bf16 and pixels <= FEW:
            return _FewPixels.apply(x, self.weight, self.stride, self.padding)
        return super().forward(x)
