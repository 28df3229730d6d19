"""The settings of the mathematics, room by room. Knows nothing of torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clsp_utils.config.ranges import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Several,
    Share,
    Steps,
    Stride,
    TimeBound,
    frozen,
    local,
)

# data ---------------------------------------------------------------------------------------------


@frozen
class Data:
    """Which images (see `data.load`)."""

    name: Literal["digits", "cifar10", "cifar100", "stl10", "imagenet100", "folder"] = "digits"
    # Where the images lie; a relative path starts in the project's folder. Empty for the CIFARs and
    # STL-10: in the project's data/, and if they are not there, download them. Only what is read
    # there shapes a result, so neither path is part of a key.
    path: str = local(default="")
    wnids: str = local(
        default=""
    )  # text file with the 100 classes of ImageNet-100, one wnid a line
    size: Annotated[int, Field(ge=8, le=512, strict=True)] = 16  # pixels a side
    # Pixels a side that images keep besides for the views of encoders, which are cut there and come
    # at `size`; 0 = cut at `size`. Images that are smaller are enlarged.
    full_size: Annotated[int, Field(ge=0, le=512, strict=True)] = 0
    draws: Count = 3  # pictures of each training digit, each on its own background; digits only
    limit: CountOrNone = 0  # use only so many images of each split; 0 = all
    # Encoders' inputs are normalised by statistics of the training images, or by the constants of
    # `data.NORMALISATION`, which the authors use and which are not the true ones.
    normalisation: Literal["computed", "published"] = "computed"
    # "validation" holds a fifth of the training strokes out and never touches the test split:
    # every choice of a setting was made there.
    evaluate_on: Literal["test", "validation"] = "test"

    @model_validator(mode="after")
    def _enough_to_split(self) -> Self:
        if 0 < self.limit < 200:
            raise ValueError(f"limit={self.limit} must be 0 (all images) or at least 200")
        return self

    @model_validator(mode="after")
    def _full_size_is_larger(self) -> Self:
        if self.full_size and (self.full_size < self.size or self.name == "digits"):
            raise ValueError(
                f"full_size={self.full_size} must be 0 or at least size={self.size}, and 0 for "
                f"name='digits', which are drawn at `size`"
            )
        return self

    @model_validator(mode="after")
    def _has_constants(self) -> Self:
        if self.normalisation == "published" and self.name not in ("cifar10", "cifar100", "stl10"):
            raise ValueError(
                f"normalisation='published' must be 'computed' for name={self.name!r}, of which no "
                f"constants are published"
            )
        return self

    @model_validator(mode="after")
    def _paths_fit_the_name(self) -> Self:
        if self.name == "digits" and self.path:
            raise ValueError(
                f"path={self.path!r} is of no use to name='digits', which scikit-learn brings along"
            )
        if self.name in ("imagenet100", "folder") and not self.path:
            raise ValueError(f"path='' must name the folder of images when name={self.name!r}")
        if (self.name == "imagenet100") != bool(self.wnids):
            raise ValueError(
                f"wnids={self.wnids!r} must name the list of 100 classes when name='imagenet100', "
                f"and be empty otherwise"
            )
        return self


# diffusion ----------------------------------------------------------------------------------------


@frozen
class UNetShape:
    """Shape of diffusers' `UNet2DModel`."""

    # One entry per resolution, each half the one before.
    channels: Annotated[tuple[Several, ...], Field(min_length=1)] = (64, 48)
    layers: Count = 1  # residual blocks per resolution in the encoder half
    attention: tuple[
        Count, ...
    ] = ()  # resolutions, in pixels, with attention besides the mid-block
    dropout: Share = 0.0
    groups: Count = 8  # of group norm

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        if any(channels % self.groups for channels in self.channels):
            raise ValueError(f"channels={self.channels} must be multiples of groups={self.groups}")
        return self

    @property
    def n_skips(self) -> int:
        """Skip connections: of the first layer, each block, and each halving of the resolution."""
        return len(self.channels) * (self.layers + 1)

    def misfit(self, size: int) -> str:
        """Why this UNet cannot work on images of `size` pixels a side; empty if it can."""
        levels = len(self.channels)
        if size % 2 ** (levels - 1) or size < 2**levels:
            return (
                f"data.size={size} cannot be halved {levels - 1} time(s) by a UNet of {levels} "
                f"resolutions: use a multiple of {2 ** (levels - 1)}, at least {2**levels}"
            )
        sides = [size // 2**i for i in range(levels)]
        if any(side not in sides for side in self.attention):
            return f"unet.attention={self.attention} must name resolutions of the UNet, {sides}"
        return ""


# Shares of the steps of a training, after which its averaged weights are kept: models of growing
# quality. Not a setting, since nothing else of a training depends on them.
SNAPSHOTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


@frozen
class Diffusion:
    """Training of the diffusion model (method step 1)."""

    unet: UNetShape = UNetShape()
    steps: Count = 2400
    batch: Count = 64
    lr: Positive = 2e-3
    weight_decay: NotNegative = 0.01
    warmup: Count = 100  # steps
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up: to 0, or as it is
    ema_decay: Share = 0.998
    snr_gamma: NotNegative = 5.0  # min-SNR weighting of the loss (arXiv 2303.09556); 0 = none
    # Share of each batch that is not plain DDPM training: pairs of one image in two random
    # colourings, whose middles are exchanged. So the middle learns to say nothing of colour.
    recoloured_pairs: Share = 0.0
    clip: Positive = 1.0  # gradient norm
    flip: bool = False  # mirror images at random: wrong for digits


# positives ----------------------------------------------------------------------------------------


@frozen
class Sampler:
    """How a diffusion model is sampled."""

    steps: Steps = 20  # of the sampler
    eta: Share | None = None  # None = DPM-Solver++; else DDIM: 0 = deterministic, 1 = as DDPM
    batch: Count = 256  # images, or anchors with their k candidates, at a time


@frozen
class PlainSampling(Sampler):
    """Plain samples, whose distance from real images is measured."""

    n: Annotated[int, Field(ge=32, strict=True)] = 500
    steps: Steps = 20
    # Noise of a step of DDPM's ancestral sampler (`diffusion.ancestral`); None = as `eta` says.
    variance: Literal["fixed_small", "fixed_large"] | None = None


@frozen
class Sampling(Sampler):
    """How candidates are sampled (method step 5)."""

    k: Count = 1  # candidates per anchor


@frozen
class Interpolation(Sampling):
    """Candidates with the anchor's middle mixed in (method step 4)."""

    mix_weight: Share = 0.1  # w: share of the noise branch; 0 = anchor features only
    # The anchor takes part at the time steps t below this one; before, the sample goes its own way.
    mix_below: TimeBound = 1000
    # How many skip connections are mixed like the middle, from the innermost outwards.
    mix_skips: CountOrNone = 0


@frozen
class ClassSampling(Sampling):
    """Candidates from a class-conditional model: samples of the anchor's class or cluster."""

    guidance: NotNegative = 1.0  # how far beyond the class's own prediction


@frozen
class Clustering:
    """Clusters of the anchors' representations, in the place of classes."""

    n_clusters: Several = 10


@frozen
class RepresentationSampling(Sampling):
    """Candidates from a model that is conditioned on the anchor's representation."""

    guidance: NotNegative = 0.0  # how far beyond the representation's own prediction


# contrastive --------------------------------------------------------------------------------------


@frozen
class Views:
    """Random augmentation (see `contrastive.augment`)."""

    crop_area: tuple[Positive, Share] = (0.5, 1.0)
    brightness: NotNegative = 0.4
    contrast: NotNegative = 0.4
    saturation: NotNegative = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True)] = 0.1
    p_jitter: Share = 0.8
    p_grey: Share = 0.2
    p_flip: Share = 0.0
    p_solarize: Share = 0.0

    @model_validator(mode="after")
    def _smallest_first(self) -> Self:
        if self.crop_area[0] > self.crop_area[1]:
            raise ValueError(f"crop_area={self.crop_area} must be (smallest, largest)")
        return self


@frozen
class Backbone:
    """ResNet and projector (see `contrastive.Encoder`)."""

    block: Literal["basic", "bottleneck"] = "basic"
    # Blocks per level, one to four levels.
    layers: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (1, 1, 1)
    width: Count = 32  # channels of the first level; each level doubles them
    stem_stride: Stride = 2
    max_pool: bool = False
    hidden: Count = 256  # of the projector
    # One number of unit norm could only be 1 or -1, which no gradient changes.
    projection: Several = 64


# evaluation ---------------------------------------------------------------------------------------


@frozen
class Probe:
    """Linear evaluation and kNN on cached features (method, section 2)."""

    lr: Positive = 1.0
    batch: Count = 256
    epochs: Count = 100  # the learning rate falls to a tenth at 60 % and again at 80 %
    momentum: Share = 0.9  # of SGD
    standardise: bool = True  # features, by the training features' mean and deviation
    zero_init: bool = True  # of the classifier; else torch's random one
    # kNN picks one of these on held-out anchors.
    neighbours: Annotated[tuple[Count, ...], Field(min_length=1)] = (5, 10, 20, 50, 100, 200)


# What is drawn here, and what torchvision reads (see `data.load_transfer`).
TransferName = Literal[
    "printed", "letters", "scripts", "textures", "waves",
    "cifar10", "cifar100", "pets", "flowers", "dtd", "caltech101", "food101", "aircraft", "cars",
]  # fmt: skip
Pictures = Annotated[int, Field(ge=100, le=100_000, strict=True)]


@frozen
class Transfer:
    """Other data sets, on which encoders are scored that never saw them."""

    # Folder with the sets that torchvision reads, of which nothing is downloaded; empty: data/ of
    # the project. What is read there shapes a result, so the path is no part of a key.
    path: str = local(default="")
    # Pictures of a set that is drawn: training, validation, test.
    pictures: tuple[Pictures, Pictures, Pictures] = (2000, 500, 2000)


@frozen
class LogisticProbe:
    """L2-regularised logistic regression, its strength chosen on validation (arXiv 2011.13377)."""

    # The least and the most of C, the inverse strength, as scikit-learn counts it; `n_c` values
    # between the two, evenly spaced in their logarithm.
    c_range: tuple[Positive, Positive] = (1e-4, 10.0)
    n_c: Count = 6
    iterations: Count = 200  # of L-BFGS at most, for each value

    @model_validator(mode="after")
    def _least_first(self) -> Self:
        if self.c_range[0] > self.c_range[1]:
            raise ValueError(f"c_range={self.c_range} must be (least, most)")
        return self


@frozen
class FewLabels:
    """Linear evaluation with a share of the labels, averaged over several draws of it."""

    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.01, 0.1)
    draws: Count = 5
