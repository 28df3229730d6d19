"""The methods: what their names stand for, and the settings of each. Knows nothing of torch.

A new method is one line in `METHODS`, one module in `contrastive.methods` with its networks and its
loss, and, if it has settings that no other has, one class of settings here.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from clsp_utils.config.ranges import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Several,
    Share,
    Shares,
    Step,
    Steps,
    TimeBound,
    frozen,
    local,
)
from clsp_utils.config.settings import Backbone, Views

# Where a view comes from: the anchor itself, the anchor in other colours (`data.recolour`), one of
# its candidates, or a sample of its class.
View = Literal["anchor", "recoloured", "synthetic", "class"]


@frozen
class Training:
    """One training run: what all methods share."""

    backbone: Backbone = Backbone()
    views: Views = Views()
    epochs: Count = 15
    batch: Several = 128
    lr: Positive = 0.2
    momentum: Share = 0.9  # of SGD
    weight_decay: NotNegative = 1e-4
    warmup: NotNegative = 1.0  # epochs
    # One forward over all views, whose batch norm they share; else one per view.
    views_together: bool = True
    watch_every: CountOrNone = local(
        default=0
    )  # epochs between two kNN scores in the log; 0 = none


@frozen
class Supervised(Training):
    """A classifier: it judges candidates."""


@frozen
class ThirdView:
    """The term that a third view adds (paper, eq. 6)."""

    weight: NotNegative = 1.0  # lambda
    ramp: Share = 0.3  # share of the run in which lambda rises linearly from 0


@frozen
class SimCLR(Training):
    """SimCLR (arXiv 2002.05709) and what builds on it."""

    temperature: Positive = 0.2
    third_view: ThirdView | None = ThirdView()  # None for the methods that have no third view


@frozen
class NNCLR(SimCLR):
    """NNCLR (arXiv 2104.14548)."""

    queue: Count = 512  # past embeddings or keys that are kept, per view where a method has several

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> Self:
        if self.queue < self.batch:
            raise ValueError(f"queue={self.queue} must be at least batch={self.batch}")
        return self


@frozen
class MoCoV2(NNCLR):
    """MoCo v2 (arXiv 2003.04297): a queue of keys, and an encoder of keys that follows slowly."""

    key_momentum: Share = 0.99  # rises to `key_momentum_end` by a cosine
    key_momentum_end: Share = 0.999


@frozen
class All4One(MoCoV2):
    """All4One (arXiv 2303.09417)."""


@dataclass(frozen=True)
class Recipe:
    """What a method's name stands for.

    Attributes:
        network: module and class in `contrastive.methods` that own networks and loss.
        section: of the profile, which holds its settings.
        settings: the class of these.
        views: where each view that the loss sees comes from.
        needs_labels: images without a label are of no use to it.
    """

    network: str
    section: str
    settings: type[Training]
    views: tuple[View, ...] = ("anchor", "anchor")
    needs_labels: bool = False


METHODS = {
    "SimCLR": Recipe("simclr.SimCLR", "simclr", SimCLR),
    "third view": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "anchor")),
    "recoloured third view": Recipe(
        "simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "recoloured")
    ),
    "CLSP-SimCLR": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "synthetic")),
    "class positives": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "class")),
    "SupCon": Recipe("simclr.SupCon", "simclr", SimCLR, needs_labels=True),
    "NNCLR": Recipe("neighbours.NNCLR", "nnclr", NNCLR),
    "All4One": Recipe("neighbours.All4One", "all4one", All4One),
    "MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2),
    "third view MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2, ("anchor", "anchor", "anchor")),
    "CLSP-MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2, ("anchor", "anchor", "synthetic")),
    "class positives MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2, ("anchor", "anchor", "class")),
    "supervised": Recipe("supervised.Supervised", "classifier", Supervised, ("anchor",), True),
}
# What these hold for all contrastive methods is set in the section "pretrain".
CONTRASTIVE = ("simclr", "nnclr", "all4one", "moco")


def _known(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"input should be one of {', '.join(METHODS)}")
    return name


Method = Annotated[str, AfterValidator(_known)]


@frozen
class Study:
    """How much of everything the notebooks look at."""

    samples: Count = 256  # images sampled for each point of a curve
    steps: Steps = 20  # of the sampler, for those images
    mix_weights: Shares = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
    # Time steps t below which the anchor takes part, in the curve of when it does.
    mix_times: Annotated[tuple[TimeBound, ...], Field(min_length=1)] = (
        100, 200, 300, 400, 500, 600, 700, 800, 900, 1000,
    )  # fmt: skip
    tsne: Annotated[int, Field(ge=8, strict=True)] = 2000  # images in the t-SNE
    n_shown: Count = 12  # images in a row of a figure
    k_shown: Count = 6  # candidates per anchor in the figure of candidates
    t_shown: Step = 50  # time step of the t-SNE, as in the paper
    n_neighbours: Count = 10  # of the kNN that reads the UNet's features
    n_pairs: Annotated[int, Field(ge=32, strict=True)] = 500  # anchors whose views are compared
    mask_steps: Steps = 20  # of DDIM, for the samples with layers masked or swapped
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = (
        "SimCLR", "third view", "recoloured third view", "CLSP-SimCLR", "MoCoV2", "CLSP-MoCoV2",
    )  # fmt: skip
    seeds: Several = 3  # of every method in the comparison
    # Diffusion models whose banks these seeds take in turn: seed s that of model s modulo this.
    models: Count = 1
    sweep_weights: Shares = (0.1, 0.2, 0.4, 0.7, 1.0)  # w against accuracy
    sweep_seeds: Count = 1
    sweep_k: Count = 1  # candidates per anchor in those banks

    @model_validator(mode="after")
    def _compares_clsp_with_simclr(self) -> Self:
        compared = {"SimCLR", "CLSP-SimCLR"} <= set(self.methods)
        if not compared or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"methods={self.methods} must hold 'SimCLR' and 'CLSP-SimCLR', which the notebooks "
                f"compare, and each name once"
            )
        alone = [name for name in self.methods if METHODS[name].section not in CONTRASTIVE]
        if alone:
            raise ValueError(
                f"methods={self.methods} must be contrastive methods, which {alone[0]!r} is not"
            )
        if self.models > self.seeds:
            raise ValueError(
                f"models={self.models} must be at most seeds={self.seeds}, which take their banks "
                f"in turn"
            )
        if self.sweep_seeds > self.seeds:
            raise ValueError(
                f"sweep_seeds={self.sweep_seeds} must be at most seeds={self.seeds}, with which "
                f"they are drawn in one figure"
            )
        return self
