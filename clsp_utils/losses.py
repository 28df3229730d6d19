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


def sup_con(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss: all rows of the same class are positives (arXiv 2004.11362, eq. 2).

    `mean_i mean_{p in P(i)} -log( exp(z_i.z_p / T) / sum_{j != i} exp(z_i.z_j / T) )`.

    Args:
        z: projections of all views `(M, D)`, each class at least twice; labels: `(M,)`.
    """
    logits = z.float() @ z.float().T / temperature
    logits.fill_diagonal_(float("-inf"))
    positive = (labels[:, None] == labels[None, :]).fill_diagonal_(False)
    log_p = logits.log_softmax(1).where(positive, 0.0)
    return -(log_p.sum(1) / positive.sum(1)).mean()


def nearest(z: Tensor, queue: Tensor, k: int) -> Tensor:
    """The k rows of `queue` `(K, D)` nearest to each row of `z` `(N, D)` by cosine: `(N, k, D)`."""
    return queue[(z.float() @ queue.T).topk(k, 1).indices]


def neighbour_nce(neighbours: Tensor, predictions: Tensor, temperature: float) -> Tensor:
    """NNCLR's loss: each neighbour must find the prediction of its own row among the batch's.

    `mean_i -log( exp(n_i.p_i / T) / sum_j exp(n_i.p_j / T) )` (arXiv 2104.14548, eq. 3).

    Args:
        neighbours, predictions: `(N, D)`, unit-norm rows.
    """
    logits = neighbours.float() @ predictions.float().T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def redundancy(a: Tensor, b: Tensor, off_diagonal: float = 5e-3) -> Tensor:
    """Barlow Twins' term on the cross-correlation C of two sets of embeddings `(N, D)`.

    `( sum_i (1 - C_ii)^2 + off_diagonal * sum_{i != j} C_ij^2 ) / D` (arXiv 2103.03230, eq. 1).
    """
    a, b = ((x.float() - x.float().mean(0)) / (x.float().std(0, unbiased=False) + 1e-6) for x in (a, b))
    c = a.T @ b / len(a)
    own = c.diagonal()
    return ((1 - own).square().sum() + off_diagonal * (c.square().sum() - own.square().sum())) / len(c)
