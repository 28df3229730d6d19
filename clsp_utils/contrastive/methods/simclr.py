"""SimCLR and its supervised form."""

import torch
from torch import Tensor

from clsp_utils import config
from clsp_utils.contrastive.losses import nt_xent, sup_con
from clsp_utils.contrastive.methods.base import Batch, Method


class SimCLR(Method):
    """Two views, NT-Xent (arXiv 2002.05709)."""

    def __init__(self, cfg: config.SimCLR, n_classes: int):
        super().__init__(cfg, cfg.third_view)
        self.temperature = cfg.temperature

    def contrast(self, batch: Batch) -> Tensor:
        """Each view must find its partner."""
        return nt_xent(batch.z[0], batch.z[1], self.temperature)


class SupCon(SimCLR):
    """Two views; all images of a class are positives of each other (arXiv 2004.11362)."""

    def contrast(self, batch: Batch) -> Tensor:
        """Each view must find all views of its class."""
        z, labels = torch.cat(batch.z[:2]), torch.cat([batch.labels, batch.labels])
        return sup_con(z, labels, self.temperature)


class MCL(SimCLR):
    """Two views, negatives of the own cluster alone ("Learning the Unlearned", 2024).

    The batch's labels are the clusters of what earlier encoders have learned, which then tells no
    negative apart: what is left to learn is something else.
    """

    def contrast(self, batch: Batch) -> Tensor:
        """Each view must find its partner among the views of its cluster."""
        return nt_xent(batch.z[0], batch.z[1], self.temperature, batch.labels)
