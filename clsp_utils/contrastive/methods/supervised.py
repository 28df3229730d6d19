"""A classifier."""

from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils import config
from clsp_utils.contrastive.methods.base import Batch, Method


class Supervised(Method):
    """One view and its label: the classifier that judges candidates, no contrast at all.

    Its projector is a linear layer to the classes, and z are logits `(N, n_classes)`.
    """

    def __init__(self, cfg: config.Supervised, n_classes: int):
        super().__init__(cfg)
        self.encoder.projector = nn.Linear(self.encoder.backbone.n_features, n_classes)
        self.encoder.unit_norm = False

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the logits."""
        return F.cross_entropy(batch.z[0].float(), batch.labels)
