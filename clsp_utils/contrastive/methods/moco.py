"""MoCo v2."""

from torch import Tensor

from clsp_utils import config
from clsp_utils.contrastive.losses import info_nce
from clsp_utils.contrastive.methods.base import Batch
from clsp_utils.contrastive.methods.momentum import MomentumEncoder, Queue
from clsp_utils.contrastive.methods.simclr import SimCLR


class MoCoV2(SimCLR):
    """Two views, symmetric InfoNCE against one queue of past keys per view (arXiv 2003.04297)."""

    def __init__(self, cfg: config.MoCoV2, n_classes: int):
        super().__init__(cfg, n_classes)
        self.key_encoder = MomentumEncoder(self.encoder, cfg)
        self.queue = Queue(2, cfg.queue, cfg.backbone.projection)

    def contrast(self, batch: Batch) -> Tensor:
        """The mean InfoNCE of both views, each with the other's keys and queue."""
        self.keys = self.key_encoder.keys(batch.views, batch.share)
        return 0.5 * sum(
            info_nce(batch.z[i], self.keys[1 - i], self.queue.rows[1 - i], self.temperature)
            for i in (0, 1)
        )

    def after_step(self, progress: float) -> None:
        """The keys enter their queues, and the key encoder follows."""
        self.queue.push(self.keys)
        self.key_encoder.follow(self.encoder, progress)
