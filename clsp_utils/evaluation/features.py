"""Features of images, computed once: probes and distances then read them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from clsp_utils.data import ChannelStatistics, normalise, to_float
from clsp_utils.runtime import autocast, device


@torch.inference_mode()
def extract_features(
    net: nn.Module,
    images: np.ndarray,
    statistics: ChannelStatistics,
    precision: str,
    batch: int = 1000,
    view: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What a network makes of images, in the mode (train or eval) that it is in.

    Args:
        images: uint8 `(N, H, W, 3)`; the network sees them normalised by `statistics`.
        precision: "auto", "bf16" or "fp32".
        batch: images per pass.
        view: makes `(B, 3, H, W)` of uint8 `(B, H, W, 3)` on the device, in the place of that
            normalisation.

    Returns:
        fp32 `(N, D)`, on the CPU. The network is back on its own device.
    """
    where = device()
    before = next((parameter.device for parameter in net.parameters()), where)
    net = net.to(where)
    out = []
    with autocast(where, precision):
        for i in range(0, len(images), batch):
            x = torch.tensor(images[i : i + batch], device=where)
            x = view(x) if view else normalise(to_float(x), statistics)
            out.append(net(x).float().cpu())
    net.to(before)
    return torch.cat(out)
