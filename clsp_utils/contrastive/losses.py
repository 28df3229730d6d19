"""Contrastive losses. Every argument named `z`, `q` or `k` has unit-norm rows.

Exponentials and sums are fp32; under bf16 autocast the cosines come out of a bf16 product.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, clusters: Tensor | None = None) -> Tensor:
    """NT-Xent of SimCLR: each row must find its partner among the 2N - 1 others.

    `mean_i -log( exp(z_i.z_i' / T) / sum_{j != i} exp(z_i.z_j / T) )`.

    Args:
        z1, z2: projections of the two views `(N, D)`, unit-norm rows, partners in the same row.
        temperature: T > 0.
        clusters: `(N,)`; the sum then goes over the rows j of the anchor's own cluster alone.
    """
    z = torch.cat([z1, z2]).float()
    logits = z @ z.T / temperature
    logits.fill_diagonal_(float("-inf"))
    if clusters is not None:
        own = torch.cat([clusters, clusters])
        logits = logits.masked_fill(own[:, None] != own, float("-inf"))
    n = len(z1)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, partner)


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of MoCo: each query must find its key among the queue's K negatives.

    Args:
        q: queries `(N, D)`.
        k: their keys `(N, D)`, no gradient.
        queue: past keys `(K, D)`.
        temperature: T > 0.
    """
    q, k = q.float(), k.float()
    positive = (q * k).sum(1, keepdim=True)
    logits = torch.cat([positive, q @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def clsp_term(z: Tensor, z_positive: Tensor) -> Tensor:
    """`mean_i ||z_i - z_i3||^2`, for unit rows `2 - 2 cos`: 0 same, 2 orthogonal, 4 opposite.

    The synthetic positive attracts its anchor and repels nobody: it is no negative for others, and
    the term is not divided by the temperature (paper, eq. 6).

    Args:
        z, z_positive: projections `(N, D)` of anchors and of their synthetic positives.
    """
    return (z.float() - z_positive.float()).square().sum(1).mean()


def spread(z: Tensor) -> float:
    """How far apart projections lie: `sqrt(1 - |mean_i z_i|^2)`.

    Args:
        z: `(N, D)`, unit-norm rows.

    Returns:
        In [0, 1]: 0 when all rows are one vector, 1 when their mean is 0.
    """
    return (1 - z.float().mean(0).square().sum()).clamp(min=0).sqrt().item()


def sup_con(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss: all rows of a class are positives (arXiv 2004.11362, eq. 2).

    `mean_i mean_{p in P(i)} -log( exp(z_i.z_p / T) / sum_{j != i} exp(z_i.z_j / T) )`.

    Args:
        z: projections of all views `(M, D)`, each class at least twice.
        labels: `(M,)`.
        temperature: T > 0.
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
        temperature: T > 0.
    """
    logits = neighbours.float() @ predictions.float().T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def feature_contrast(keys: list[Tensor], z: list[Tensor]) -> Tensor:
    """All4One's term: each feature of the keys goes with the same feature of z, and with no other.

    With C the cosines between features over the batch, `(D, D)`, of both pairs (keys_i, z_i):
    `( sqrt(mean (1 - C_aa)^2) + sqrt(mean_{a != b} C_ab^2) ) / 2` (arXiv 2303.09417).

    Args:
        keys: `(N, D)` of two views.
        z: `(N, D)` of the *other* view each.
    """
    pairs = zip(keys, z, strict=True)
    c = torch.stack(
        [F.normalize(k.float(), dim=0).T @ F.normalize(own.float(), dim=0) for k, own in pairs]
    )
    same = torch.eye(c.shape[-1], dtype=torch.bool, device=c.device)
    return ((1 - c[:, same]).square().mean().sqrt() + c[:, ~same].square().mean().sqrt()) / 2
