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
from clsp_utils.config.settings import Backbone, TransferName, Views

# Where a view comes from: the anchor itself, the anchor in other colours (`data.recolour`), one of
# its candidates, or a sample of its class, its representation (RCG) or its cluster (RCG-cluster).
View = Literal["anchor", "recoloured", "synthetic", "class", "representation", "cluster"]


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
    # "joint": one forward over all views, which share the statistics of batch norm; "per_view": one
    # for each, as in the authors' MoCo; "first_view": so too, and only the first view moves the
    # running statistics. That is the authors' SimCLR, where DataParallel keeps those of its first
    # chunk, with a GPU per view.
    batch_norm: Literal["joint", "per_view", "first_view"] = "joint"
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
class Queued(Training):
    """Methods that remember past embeddings."""

    queue: Count = 512  # past embeddings or keys that are kept, per view where a method has several

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> Self:
        if self.queue < self.batch:
            raise ValueError(f"queue={self.queue} must be at least batch={self.batch}")
        return self


@frozen
class NNCLR(SimCLR, Queued):
    """NNCLR (arXiv 2104.14548)."""


@frozen
class MoCoV2(NNCLR):
    """MoCo v2 (arXiv 2003.04297): a queue of keys, and an encoder of keys that follows slowly."""

    key_momentum: Share = 0.99  # rises to `key_momentum_end` by a cosine
    key_momentum_end: Share = 0.999


@frozen
class All4One(MoCoV2):
    """All4One (arXiv 2303.09417)."""


@frozen
class FullViews(Training):
    """Methods to which the third view is a full one: it finds, is found, and is a negative."""

    ramp: Share = 0.3  # share of the run in which the loss of two views gives way to that of all


@frozen
class MultiView(FullViews):
    """Contrast of several views by a softmax (arXiv 2507.06979)."""

    temperature: Positive = 0.2


@frozen
class CACR(FullViews):
    """Contrastive attraction and repulsion (arXiv 2105.03746)."""

    t_plus: NotNegative = 1.0  # the larger, the more the farthest positive counts alone
    t_minus: NotNegative = 2.0  # the larger, the more the nearest negative counts alone


@frozen
class SwAV(Queued):
    """SwAV (arXiv 2006.09882)."""

    temperature: Positive = 0.1  # of the predictions
    epsilon: Positive = 0.05  # of the codes: the smaller, the harder
    prototypes: Several = 64
    freeze: Share = 0.1  # share of the run in which the prototypes stay as they are
    # Share of the run from which past embeddings take part in the codes; 1 = they never do.
    queue_from: Share = 0.3


@frozen
class MCL(SimCLR):
    """Multistage contrastive learning ("Learning the Unlearned", 2024)."""

    # Encoders, one after another; the first is that of `Recipe.follows`.
    stages: Annotated[int, Field(ge=2, le=10, strict=True)] = 2
    # That each encoder's representation is split into for those after it; 1 = negatives come from
    # everywhere, so that the encoders know nothing of each other.
    clusters: Count = 5


@dataclass(frozen=True)
class Recipe:
    """What a method's name stands for.

    Attributes:
        network: module and class in `contrastive.methods` that own networks and loss.
        section: of the profile, which holds its settings.
        settings: the class of these.
        views: where each view that the loss sees comes from.
        needs_labels: images without a label are of no use to it.
        in_turn: an anchor's candidates come one after the other over the run, each for an equal
            part of it, in the place of one at random in each epoch.
        more_anchors: of which view the candidates are that become further anchors. A run has as
            many steps as without them.
        follows: the method whose encoder comes before it, where several are trained in turn.
    """

    network: str
    section: str
    settings: type[Training]
    views: tuple[View, ...] = ("anchor", "anchor")
    needs_labels: bool = False
    in_turn: bool = False
    more_anchors: View | None = None
    follows: str = ""


METHODS = {
    "SimCLR": Recipe("simclr.SimCLR", "simclr", SimCLR),
    "third view": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "anchor")),
    "recoloured third view": Recipe(
        "simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "recoloured")
    ),
    "CLSP-SimCLR": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "synthetic")),
    "CLSP-SimCLR in turn": Recipe(
        "simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "synthetic"), in_turn=True
    ),
    "inflation": Recipe("simclr.SimCLR", "simclr", SimCLR, more_anchors="synthetic"),
    "RCG": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "representation")),
    "RCG-cluster": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "cluster")),
    "class positives": Recipe("simclr.SimCLR", "simclr", SimCLR, ("anchor", "anchor", "class")),
    "SupCon": Recipe("simclr.SupCon", "simclr", SimCLR, needs_labels=True),
    "NNCLR": Recipe("neighbours.NNCLR", "nnclr", NNCLR),
    "All4One": Recipe("neighbours.All4One", "all4one", All4One),
    "MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2),
    "third view MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2, ("anchor", "anchor", "anchor")),
    "CLSP-MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2, ("anchor", "anchor", "synthetic")),
    "class positives MoCoV2": Recipe("moco.MoCoV2", "moco", MoCoV2, ("anchor", "anchor", "class")),
    **{
        name: Recipe(f"multi_view.{network}", section, settings, ("anchor", "anchor", "synthetic"))
        for name, network, section, settings in (
            ("pairwise NT-Xent", "PairwiseNTXent", "multi_view", MultiView),
            ("MV-InfoNCE", "MVInfoNCE", "multi_view", MultiView),
            ("MV-DHEL", "MVDHEL", "multi_view", MultiView),
            ("CACR", "CACR", "cacr", CACR),
        )
    },
    "SwAV": Recipe("swav.SwAV", "swav", SwAV),
    "CLSP-SwAV": Recipe("swav.SwAV", "swav", SwAV, ("anchor", "anchor", "synthetic")),
    "MCL": Recipe("simclr.MCL", "mcl", MCL, follows="SimCLR"),
    "supervised": Recipe("supervised.Supervised", "classifier", Supervised, ("anchor",), True),
}
# What these hold for all contrastive methods is set in the section "pretrain".
CONTRASTIVE = ("simclr", "nnclr", "all4one", "moco", "multi_view", "cacr", "swav", "mcl")


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
    # What is compared with SimCLR, its third view and CLSP-SimCLR at equal views.
    view_methods: tuple[Method, ...] = (
        "pairwise NT-Xent", "MV-InfoNCE", "MV-DHEL", "CACR", "SwAV", "CLSP-SwAV", "MCL",
    )  # fmt: skip
    seeds: Several = 3  # of every method in the comparison
    # Diffusion models whose banks these seeds take in turn: seed s that of model s modulo this.
    models: Count = 1
    sweep_weights: Shares = (0.1, 0.4, 1.0)  # w against accuracy
    sweep_seeds: Count = 1
    sweep_k: Count = 1  # candidates per anchor in those banks
    # Whose candidates come from models of different quality.
    quality_methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("CLSP-SimCLR",)
    # Steps of DDPM's ancestral sampler, where what FID depends on is shown.
    ancestral_steps: Steps = 100
    # File with the weights of FID's Inception (see `evaluation.inception_features`); "" = no FID.
    inception: str = ""
    clusters: Annotated[tuple[Several, ...], Field(min_length=1)] = (10, 100)  # of RCG-cluster
    # Numbers of clusters in the curve of purity, which takes k-means alone.
    purities: Annotated[tuple[Several, ...], Field(min_length=1)] = (5, 10, 20, 50, 100, 200)
    # Share of recoloured pairs of a second diffusion model to interpolate with; 0 = no such model.
    recoloured_pairs: Share = 0.0
    turns: CountOrNone = 2  # candidates per anchor that come at random or in turn; 0 = neither
    # Data sets that the features travel to; that of the training is left out.
    transfer: Annotated[tuple[TransferName, ...], Field(min_length=1)] = (
        "printed", "letters", "scripts", "textures", "waves",
    )  # fmt: skip

    @model_validator(mode="after")
    def _compares_clsp_with_simclr(self) -> Self:
        compared = {"SimCLR", "CLSP-SimCLR"} <= set(self.methods)
        if not compared or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"methods={self.methods} must hold 'SimCLR' and 'CLSP-SimCLR', which the notebooks "
                f"compare, and each name once"
            )
        for field in ("methods", "view_methods"):
            names = getattr(self, field)
            alone = [name for name in names if METHODS[name].section not in CONTRASTIVE]
            if alone:
                raise ValueError(
                    f"{field}={names} must be contrastive methods, which {alone[0]!r} is not"
                )
        other = [m for m in self.quality_methods if "synthetic" not in METHODS[m].views]
        if other:
            raise ValueError(
                f"quality_methods={self.quality_methods} must see synthetic positives, which "
                f"{other[0]!r} does not"
            )
        if len(set(self.transfer)) < len(self.transfer):
            raise ValueError(f"transfer={self.transfer} must hold each name once")
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
