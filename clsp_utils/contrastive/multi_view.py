"""Contrastive losses of V >= 2 views, in which a synthetic view may be a full one.

Everywhere `u` is `(V, M, D)`: unit-norm projections of V views of M anchors, of all processes.
`s(il, jm) = u_il . u_jm` is the cosine of view l of anchor i and view m of anchor j. All is fp32,
also under autocast, except that NT-Xent there takes bf16 cosines (see `losses`). The order of the
views does not matter.
"""

import math
from itertools import combinations

import torch
from torch import Tensor

from clsp_utils.contrastive.losses import nt_xent


def pairwise_nt_xent(u: Tensor, temperature: float) -> Tensor:
    """Mean of NT-Xent over all pairs of views; with two views NT-Xent itself.

    Args:
        u: projections `(V, M, D)`.
        temperature: T > 0.
    """
    return torch.stack([nt_xent(*pair, temperature) for pair in combinations(u, 2)]).mean()


def mv_info_nce(u: Tensor, temperature: float) -> Tensor:
    """MV-InfoNCE: all pairs of an anchor's views in one logarithm (arXiv 2507.06979).

    `-mean_i log( sum_{l != l'} e^{s(il,il') / T} / sum_l sum_{(j,m) != (i,l)} e^{s(il,jm) / T} )`.
    With two views this is not NT-Xent, which takes a logarithm per view.

    Args:
        u: projections `(V, M, D)`.
        temperature: T > 0.
    """
    everything = _of_others(u.flatten(0, 1), temperature).logsumexp(1).view(u.shape[:2])
    positives = _of_others(u.transpose(0, 1), temperature).logsumexp((1, 2))
    return (everything.logsumexp(0) - positives).mean()


def mv_dhel(u: Tensor, temperature: float) -> Tensor:
    """MV-DHEL: views attract each other, and repel other anchors within a view (arXiv 2507.06979).

    `-mean_i ( log sum_{l < l'} e^{s(il,il') / T} - sum_l log sum_{j != i} e^{s(il,jl) / T} )`.
    Synthetic views repel only synthetic ones, so the look of the generator tells no negative apart.

    Args:
        u: projections `(V, M, D)` of M >= 2 anchors.
        temperature: T > 0.
    """
    negatives = _of_others(u, temperature).logsumexp(2).sum(0)
    both_orders = _of_others(u.transpose(0, 1), temperature).logsumexp((1, 2))
    # (l, l') and (l', l) have the same cosine, so that one order is half of the sum.
    return (negatives - both_orders).mean() + math.log(2)


def cacr(u: Tensor, t_plus: float, t_minus: float) -> tuple[Tensor, Tensor]:
    """Contrastive attraction and repulsion: far positives, near negatives count (arXiv 2105.03746).

    With `d(ia, jb) = ||u_ia - u_jb||^2`, and weights through which gradients pass:
    `mean_{a,i} sum_{b != a} p+ d(ia,ib)`, with `p+ = softmax_{b != a}( t_plus d(ia,ib) )`, minus
    `mean_{a != b, i} sum_{j != i} p- d(ia,jb)`, with `p- = softmax_{j != i}( -t_minus d(ia,jb) )`.
    Where all projections are equal no gradient is left along the sphere.

    Args:
        u: projections `(V, M, D)` of M >= 2 anchors.
        t_plus, t_minus: >= 0; the larger, the more the farthest positive and the nearest negative
            count alone.

    Returns:
        The loss, and the mean p+ that each view gets from the others, `(V,)`, without gradient:
        1 / (V - 1) where all are equally far.
    """
    n_views, n_anchors = u.shape[:2]
    cosines = _cosines(u.flatten(0, 1)).view(n_views, n_anchors, n_views, n_anchors)
    d = 2 - 2 * cosines.transpose(1, 2)  # (V, V, M, M): a, b, i, j
    d_positive = d.diagonal(dim1=2, dim2=3).permute(2, 0, 1)  # (M, V, V): i, a, b
    p_plus = _without_self(t_plus * d_positive).softmax(2)
    p_minus = _without_self(-t_minus * d).softmax(3)
    two_views = ~torch.eye(n_views, dtype=torch.bool, device=u.device)
    attraction = (p_plus * d_positive).sum(2).mean()
    repulsion = (p_minus * d).sum(3).mean(2)[two_views].mean()
    return attraction - repulsion, p_plus.detach().mean(0).sum(0) / (n_views - 1)


def _cosines(rows: Tensor) -> Tensor:
    """Cosines `(..., N, N)` of unit rows `(..., N, D)`, in fp32 under autocast as well."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ rows.float().mT


def _without_self(logits: Tensor) -> Tensor:
    """`(..., N, N)` with -inf, which no sum counts, where a row meets itself."""
    same = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return logits.masked_fill(same, float("-inf"))


def _of_others(rows: Tensor, temperature: float) -> Tensor:
    """Cosines `(..., N, N)` of rows `(..., N, D)`, over the temperature; -inf with itself."""
    return _without_self(_cosines(rows) / temperature)
