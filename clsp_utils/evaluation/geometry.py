"""Measures of how features fill their space, which need no labels.

A collapsed encoder is seen here at once: its RankMe is 1, its alignment and its uniformity are 0.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

COSINES = 2**24  # that are in memory at a time: 64 MiB, and thrice that for what is made of them


@torch.inference_mode()
def rank_me(features: Tensor) -> float:
    """RankMe, how many directions the features use: exp of an entropy (arXiv 2210.02885).

    `exp(-sum_k p_k log p_k)`, with `p_k = sigma_k / sum_j sigma_j` of the singular values sigma.

    Args:
        features: `(N, D)`, neither centred nor of unit norm. N bounds it as well as D does, so
            compare encoders on equally many images.

    Returns:
        From 1, all features are multiples of one vector, to min(N, D), none is weaker than others.
    """
    p = F.normalize(torch.linalg.svdvals(features.float()), p=1, dim=0)
    return torch.special.entr(p).sum().exp().item()


@torch.inference_mode()
def alignment(z1: Tensor, z2: Tensor) -> float:
    """`mean_i ||u_i1 - u_i2||^2`, how far apart positives are (Wang and Isola, arXiv 2005.10242).

    Args:
        z1, z2: features `(N, D)` of two views, partners in the same row; `u = z / ||z||`.

    Returns:
        From 0, partners are equal, to 4; 2 where they are orthogonal.
    """
    u1, u2 = F.normalize(z1.float(), dim=1), F.normalize(z2.float(), dim=1)
    return (u1 - u2).square().sum(1).mean().item()


@torch.inference_mode()
def uniformity(z: Tensor) -> float:
    """`log mean_{i<j} exp(-2 ||u_i - u_j||^2)`, lower for rows that spread (arXiv 2005.10242).

    Args:
        z: features `(N, D)` of N >= 2 images; `u = z / ||z||`.

    Returns:
        From 0, all rows are equal, down to -8; near -4 where rows are orthogonal.
    """
    u = F.normalize(z.float(), dim=1)
    total, block = 0.0, max(1, COSINES // len(u))
    for start in range(0, len(u), block):
        cosines = u[start : start + block] @ u[start:].T
        # Above the diagonal lies each pair once. -2 (2 - 2 cos) cannot overflow, nor come to 0.
        total += (4 * cosines - 4).exp().triu(1).sum().item()
    return math.log(total / math.comb(len(u), 2))


# Of the projections `(N, D)` of two views, partners in the same row; the first is measured where a
# measure takes but one.
GEOMETRY: dict[str, Callable[[Tensor, Tensor], float]] = {
    "rank_me": lambda z1, z2: rank_me(z1),
    "alignment": alignment,
    "uniformity": lambda z1, z2: uniformity(z1),
}
