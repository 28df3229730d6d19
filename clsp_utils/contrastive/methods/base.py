"""What a method is, and what it sees of a step."""

from typing import NamedTuple

from torch import Tensor, nn

from clsp_utils import config
from clsp_utils.contrastive.backbone import Encoder
from clsp_utils.contrastive.losses import clsp_term
from clsp_utils.runtime import Share


class Batch(NamedTuple):
    """One step, as a method sees it.

    Attributes:
        z: projections of each view, `(N, D)`, unit-norm rows, of the whole batch.
        views: this process's rows of each view, `(N / world, 3, H, W)`.
        labels: `(N,)`, for the methods that read them.
        share: says which rows are this process's.
        step: of the run, from 0 on.
        total: steps of the run.
    """

    z: list[Tensor]
    views: list[Tensor]
    labels: Tensor
    share: Share
    step: int
    total: int

    def risen(self, ramp: float) -> float:
        """How far a weight has come, in (0, 1], that rises linearly over a share of the run."""
        return min(1.0, (self.step + 1) / (1 + ramp * self.total))


class Method(nn.Module):
    """Networks and loss; where there is a third view, it pulls the second one to itself.

    A method says how the first two views are compared (`contrast`), or gives a loss of its own over
    all views (`loss`).

    Attributes:
        logged: name -> number of the last step that the log shows beside the loss.
    """

    def __init__(self, cfg: config.Training, third_view: config.ThirdView | None = None):
        super().__init__()
        self.encoder = Encoder(cfg.backbone)
        self.third_view = third_view
        self.logged: dict[str, float] = {}

    def contrast(self, batch: Batch) -> Tensor:
        """The loss of the first two views, or of the only one."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """The whole loss; the weight of the third view's term rises linearly over the ramp.

        Raises:
            ValueError: there is a third view, but no settings of its term.
        """
        loss = self.contrast(batch)
        if len(batch.z) > 2:
            if self.third_view is None:
                raise ValueError("third_view=None: a method with a third view needs its weight.")
            weight = self.third_view.weight * batch.risen(self.third_view.ramp)
            loss = loss + weight * clsp_term(batch.z[1], batch.z[2])
        return loss

    def after_step(self, progress: float) -> None:
        """Moves what no gradient moves; `progress` is the done share of the run, in (0, 1]."""
