"""SwAV: views agree on which prototypes an image belongs to (arXiv 2006.09882)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils import config
from clsp_utils.contrastive.methods.base import Batch, Method
from clsp_utils.contrastive.methods.momentum import Queue

ITERATIONS = 3  # of Sinkhorn's algorithm, as in the paper


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = ITERATIONS) -> Tensor:
    """Codes: shares of each row in the prototypes, which all get equally much.

    `q = Sinkhorn(exp(scores / epsilon))`: columns and rows are scaled in turn, columns to N / K,
    rows to 1. The more iterations, the closer both come to be true.

    Args:
        scores: cosines with K prototypes, `(N, K)`.
        epsilon: > 0; the smaller, the harder the codes.

    Returns:
        `(N, K)` in [0, 1]; rows sum to 1.
    """
    log_q = scores.float() / epsilon
    for _ in range(iterations):
        log_q = log_q.log_softmax(0).log_softmax(1)
    return log_q.exp()


class SwAV(Method):
    """The code of one view is predicted from each other view.

    Only the first two views set codes. A third one, as SwAV's small crops, predicts theirs and sets
    none: here the synthetic view. Batches are too small to fill the prototypes equally, so that the
    codes of a batch are found together with those of past embeddings, one queue per view.
    """

    def __init__(self, cfg: config.SwAV, n_classes: int):
        super().__init__(cfg)
        self.cfg = cfg
        directions = torch.randn(cfg.prototypes, cfg.backbone.projection)
        self.prototypes = nn.Parameter(F.normalize(directions, dim=1))
        self.queue = Queue(2, cfg.queue, cfg.backbone.projection)

    def loss(self, batch: Batch) -> Tensor:
        """`mean_{i in (1, 2)} mean_{v != i} CE(q_i, softmax(z_v C^T / T))`, in fp32."""
        with torch.autocast(batch.z[0].device.type, enabled=False):
            return self.swapped([z.float() for z in batch.z], batch.step / batch.total)

    def swapped(self, z: list[Tensor], progress: float) -> Tensor:
        """Each of the first two views' codes, predicted from every other view.

        Args:
            z: projections `(N, D)` of each view.
            progress: share of the run that is done, in [0, 1).
        """
        frozen = progress < self.cfg.freeze
        prototypes = self.prototypes.detach() if frozen else self.prototypes
        self.seen = [own.detach() for own in z[:2]]
        scores = [own @ prototypes.T for own in z]
        losses = []
        for i, own in enumerate(self.seen):
            past = self.queue.rows[i] if progress >= self.cfg.queue_from else own[:0]
            # Past embeddings first, so that the batch's codes are the last ones.
            code = sinkhorn(torch.cat([past, own]) @ prototypes.T, self.cfg.epsilon)[-len(own) :]
            losses += [
                F.cross_entropy(other / self.cfg.temperature, code)
                for v, other in enumerate(scores)
                if v != i
            ]
        return torch.stack(losses).mean()

    def after_step(self, progress: float) -> None:
        """The embeddings enter their queues; the prototypes get unit norm again."""
        self.queue.push(self.seen)
        with torch.no_grad():
            self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
