"""What methods remember: a queue of past embeddings, an encoder that follows slowly."""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils import config
from clsp_utils.runtime import Share


class Queue(nn.Module):
    """Past embeddings `(n, K, D)`, unit-norm rows: n queues in step, oldest out first."""

    def __init__(self, n: int, size: int, dimension: int):
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(n, size, dimension), dim=2))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, new: list[Tensor]) -> None:
        """Replaces the oldest rows of each queue by `(N, D)`, N at most K."""
        n, size = len(new[0]), self.rows.shape[1]
        slots = (self.position + torch.arange(n, device=self.rows.device)) % size
        for queue, rows in zip(self.rows, new, strict=True):
            queue[slots] = rows
        self.position.add_(n).remainder_(size)


def momentum_copy(encoder: nn.Module) -> nn.Module:
    """A copy without gradients: MoCo's key encoder."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def momentum_update(follower: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """`follower = m * follower + (1 - m) * encoder` for every parameter; m in [0, 1]."""
    torch._foreach_lerp_(list(follower.parameters()), list(encoder.parameters()), 1 - momentum)


class MomentumEncoder(nn.Module):
    """MoCo's key encoder: a copy that follows the encoder by a momentum that rises by a cosine."""

    def __init__(self, encoder: nn.Module, cfg: config.MoCoV2):
        super().__init__()
        self.encoder = momentum_copy(encoder)
        self.start, self.end = cfg.key_momentum, cfg.key_momentum_end
        self.joint = cfg.batch_norm == "joint"

    @torch.no_grad()
    def keys(self, views: list[Tensor], share: Share) -> list[Tensor]:
        """Embeddings of the first two views, `(N, D)` each, of the whole batch."""
        groups = [torch.cat(views[:2])] if self.joint else views[:2]
        return [share.gather(k) for k in torch.cat([self.encoder(x) for x in groups]).chunk(2)]

    @torch.no_grad()
    def follow(self, encoder: nn.Module, progress: float) -> None:
        """Moves towards `encoder`; `progress` is the done share of the run, in (0, 1]."""
        momentum = self.end - (self.end - self.start) * 0.5 * (1 + np.cos(np.pi * progress))
        momentum_update(self.encoder, encoder, momentum)
