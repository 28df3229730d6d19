"""Contrastive losses. Every argument named `z`, `q` or `k` has unit-norm rows."""

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """NT-Xent of SimCLR: each row must find its partner among the 2N - 1 others.

    `mean_i -log( exp(z_i.z_i' / T) / sum_{j != i} exp(z_i.z_j / T) )`, fp32.

    Args:
        z1, z2: projections of the two views `(N, D)`, unit-norm rows, partners in the same row.
        temperature: T > 0.
    """
    z = torch.cat([z1, z2]).float()
    logits = z @ z.T / temperature
    logits.fill_diagonal_(float("-inf"))
    n = len(z1)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, partner)


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of MoCo: each query must find its key among the queue's K negatives.

    Args:
        q: queries `(N, D)`; k: their keys `(N, D)`, no gradient; queue: past keys `(K, D)`.
    """
    q, k = q.float(), k.float()
    positive = (q * k).sum(1, keepdim=True)
    logits = torch.cat([positive, q @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def clsp_term(z: Tensor, z_positive: Tensor) -> Tensor:
    """`mean_i ||z_i - z_i3||^2`, which is `2 - 2 cos` for unit rows: 0 same, 2 orthogonal, 4 opposite.

    The synthetic positive attracts its anchor and repels nobody: it is no negative for others, and
    the term is not divided by the temperature (paper, eq. 6).
    """
    return (z.float() - z_positive.float()).square().sum(1).mean()
