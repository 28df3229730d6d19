"""Methods to which all views are full ones: each finds the others, is found, and is a negative."""

import math

import torch
from torch import Tensor

from clsp_utils import config
from clsp_utils.contrastive.methods.base import Batch, Method
from clsp_utils.contrastive.multi_view import cacr, mv_dhel, mv_info_nce, pairwise_nt_xent


class FullViews(Method):
    """A loss of any number of views, into which the third one enters over a ramp.

    `(1 - r) L(u_1, u_2) + r L(u_1, ..., u_V)`: as with CLSP's term, positives that are far away
    early on would pull all projections into one place.
    """

    def __init__(self, cfg: config.FullViews, n_classes: int):
        super().__init__(cfg)
        self.ramp = cfg.ramp

    def compare(self, u: Tensor) -> Tensor:
        """The loss of projections `(V, N, D)` of V >= 2 views."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """The loss of the first two views gives way to that of all of them."""
        u, risen = torch.stack(batch.z), batch.risen(self.ramp)
        return (1 - risen) * self.compare(u[:2]) + risen * self.compare(u)


class Softmax(FullViews):
    """The losses that have a temperature."""

    def __init__(self, cfg: config.MultiView, n_classes: int):
        super().__init__(cfg, n_classes)
        self.temperature = cfg.temperature


class PairwiseNTXent(Softmax):
    """The mean of NT-Xent over all pairs of views."""

    def compare(self, u: Tensor) -> Tensor:
        return pairwise_nt_xent(u, self.temperature)


class MVInfoNCE(Softmax):
    """All pairs of an anchor's views in one logarithm (arXiv 2507.06979)."""

    def compare(self, u: Tensor) -> Tensor:
        return mv_info_nce(u, self.temperature)


class MVDHEL(Softmax):
    """Views attract each other, and repel other anchors within a view (arXiv 2507.06979)."""

    def compare(self, u: Tensor) -> Tensor:
        return mv_dhel(u, self.temperature)


class CACR(FullViews):
    """Far positives and near negatives count more (arXiv 2105.03746).

    The log's `p_plus` is the mean weight that the last view gets among an anchor's positives: where
    the paper has one lambda for all, the data set it here.
    """

    def __init__(self, cfg: config.CACR, n_classes: int):
        super().__init__(cfg, n_classes)
        self.t = cfg.t_plus, cfg.t_minus
        self.logged["p_plus"] = math.nan

    def compare(self, u: Tensor) -> Tensor:
        loss, p_plus = cacr(u, *self.t)
        self.logged["p_plus"] = p_plus[-1].item()
        return loss
