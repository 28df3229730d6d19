"""Every setting of every stage, and the named profiles. Knows nothing of torch.

A profile is a tree of frozen dataclasses. `profile("laptop", "candidates.k=4")` returns it with
single fields replaced; pydantic checks names, types and ranges at once, before any computation.
"""

import ast
import dataclasses
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the value and what is allowed."""


def home(*parts: str) -> Path:
    """The project's folder, or a path below it; the variable CLSP_HOME names another one."""
    default = Path(__file__).resolve().parents[1]
    base = default if parts[:1] in ((), ("notebooks",)) else Path(os.environ.get("CLSP_HOME", default))
    return base.joinpath(*parts)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


# Strict, since True is no number.
Count = Annotated[int, Field(ge=1, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Step = Annotated[int, Field(ge=0, le=999, strict=True)]
Shares = Annotated[tuple[Share, ...], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
# A sampler's steps spread evenly over T = 1000 only when their number divides it.
Steps = Annotated[
    Literal[1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500, 1000], BeforeValidator(_no_bool)
]
Method = Literal[
    "SimCLR", "third view", "CLSP-SimCLR", "class positives", "SupCon", "NNCLR", "All4One",
    "MoCoV2", "CLSP-MoCoV2", "supervised",
]
# What notebooks have besides profile, overrides and the settings below.
PARAMETERS = {
    "seed": Seed, "mix_weight": Share, "k": Count, "n_shown": Count, "n_pairs": Count, "n_steps": Steps,
    "n_neighbours": Count, "t_shown": Step,
}

settings = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))


@settings
class Data:
    """Which images (see `data.load`)."""

    name: Literal["digits", "cifar10", "cifar100", "stl10", "imagenet100", "folder"] = "digits"
    # Where the images lie; a relative path starts in the project's folder. Empty for the CIFARs and
    # STL-10: in the project's data/, and if they are not there, download them.
    path: str = ""
    wnids: str = ""  # text file with the 100 classes of ImageNet-100, one wnid a line
    size: Annotated[int, Field(ge=8, le=512, strict=True)] = 16  # pixels a side
    draws: Count = 3  # pictures of each training digit, each on its own background; digits only
    limit: Annotated[int, Field(ge=0, strict=True)] = 0  # use only so many images of each split; 0 = all
    # "validation" holds a fifth of the training strokes out and never touches the test split:
    # every choice of a setting was made there.
    evaluate_on: Literal["test", "validation"] = "test"

    @model_validator(mode="after")
    def _enough_to_split(self) -> Self:
        if 0 < self.limit < 200:
            raise ValueError(f"limit={self.limit} must be 0 (all images) or at least 200")
        return self

    @model_validator(mode="after")
    def _paths_fit_the_name(self) -> Self:
        if self.name == "digits" and self.path:
            raise ValueError(f"path={self.path!r} is of no use to name='digits', which scikit-learn brings along")
        if self.name in ("imagenet100", "folder") and not self.path:
            raise ValueError(f"path='' must name the folder of images when name={self.name!r}")
        if (self.name == "imagenet100") != bool(self.wnids):
            raise ValueError(
                f"wnids={self.wnids!r} must name the list of 100 classes when name='imagenet100', and be empty otherwise"
            )
        return self


@settings
class UNet:
    """Shape of diffusers' `UNet2DModel`."""

    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 64)  # one entry a resolution, each half the one before
    layers: Count = 1  # residual blocks a resolution in the encoder half
    attention: tuple[Count, ...] = ()  # resolutions, in pixels, with attention besides the mid-block
    dropout: Share = 0.0
    groups: Count = 8  # of group norm

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        if any(channels % self.groups for channels in self.channels):
            raise ValueError(f"channels={self.channels} must be multiples of groups={self.groups}")
        return self


@settings
class Diffusion:
    """Training of the unconditional diffusion model (method step 1)."""

    source: str = ""  # trained weights to use instead: a Hub name, a diffusers folder or the authors' .pt
    unet: UNet = UNet()
    steps: Count = 1350
    batch: Count = 64
    lr: Positive = 2e-3
    weight_decay: NotNegative = 0.01
    warmup: Count = 100  # steps
    ema_decay: Share = 0.995
    snr_gamma: NotNegative = 5.0  # min-SNR weighting of the loss (arXiv 2303.09556); 0 = none
    # Two shares of each batch that are not plain DDPM training (0 and 0 is). The middle is read from
    # the same image under *other* noise, so that the decoder takes the noise from the skips and the
    # content from the middle, as interpolation asks of it; or the middle is silenced, so that the
    # skips learn to paint what they can without it, which is the background.
    second_noise: Share = 0.4
    silent_middle: Share = 0.05
    clip: Positive = 1.0  # gradient norm
    flip: bool = False  # mirror images at random: wrong for digits

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.second_noise + self.silent_middle > 1:
            raise ValueError(
                f"second_noise={self.second_noise} and silent_middle={self.silent_middle} must not exceed 1 together"
            )
        return self


@settings
class Candidates:
    """Sampling of synthetic positives (method steps 4 and 5)."""

    mix_weight: Share = 0.1  # w: share of the noise branch; 0 = anchor features only
    k: Count = 1  # candidates an anchor
    steps: Steps = 10  # of the sampler
    eta: Share | None = None  # None = DPM-Solver++; else DDIM: 0 = deterministic, 1 = as noisy as DDPM
    guidance: NotNegative = 1.0  # class positives only: how far beyond the class's own prediction
    batch: Count = 256  # anchors at a time, each with its k candidates


@settings
class Views:
    """Random augmentation (see `views.augment`)."""

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


@settings
class Encoder:
    """ResNet and projector (see `encoders`)."""

    block: Literal["basic", "bottleneck"] = "basic"
    layers: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (1, 1, 1)  # blocks a stage, one to four stages
    width: Count = 32  # channels of the first stage; each stage doubles them
    stem_stride: Annotated[Literal[1, 2], BeforeValidator(_no_bool)] = 2
    max_pool: bool = False
    hidden: Count = 256  # of the projector
    projection: Count = 64


@settings
class Pretrain:
    """One contrastive training run; `method` says which (see `pretrain.METHODS`)."""

    method: Method = "SimCLR"
    seed: Seed = 0
    encoder: Encoder = Encoder()
    views: Views = Views()
    epochs: Count = 15
    batch: Annotated[int, Field(ge=2, strict=True)] = 128
    lr: Positive = 0.2
    momentum: Share = 0.9  # of SGD
    weight_decay: NotNegative = 1e-4
    warmup: NotNegative = 1.0  # epochs
    temperature: Positive = 0.2
    clsp_weight: NotNegative = 1.0  # lambda: weight of the third view's term
    clsp_ramp: Share = 0.3  # share of the run in which lambda rises linearly from 0
    queue: Count = 512  # MoCo: past keys kept, one queue a view; NNCLR and All4One: past embeddings
    key_momentum: Share = 0.99  # MoCo and All4One: rises to `key_momentum_end` by a cosine
    key_momentum_end: Share = 0.999
    watch_every: Annotated[int, Field(ge=0, strict=True)] = 0  # epochs between two kNN scores in the log; 0 = none

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> Self:
        if self.queue < self.batch:
            raise ValueError(f"queue={self.queue} must be at least batch={self.batch}")
        return self


@settings
class Probe:
    """Linear evaluation and kNN on cached features (method, section 2)."""

    lr: Positive = 1.0
    batch: Count = 256
    epochs: Count = 100  # the learning rate falls to a tenth at 60 % and again at 80 %
    neighbours: Annotated[tuple[Count, ...], Field(min_length=1)] = (5, 10, 20, 50, 100, 200)  # kNN picks one on held-out anchors


@settings
class Study:
    """How much of everything the notebooks look at."""

    samples: Count = 256  # images sampled for each point of a curve
    steps: Steps = 20  # of the sampler, for those images
    mix_weights: Shares = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
    tsne: Count = 2000  # images in the t-SNE
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = (
        "SimCLR", "third view", "CLSP-SimCLR", "MoCoV2", "CLSP-MoCoV2",
    )
    seeds: Annotated[int, Field(ge=2, strict=True)] = 3  # of every method in the comparison
    sweep_weights: Shares = (0.1, 0.2, 0.4, 0.7, 1.0)  # w against accuracy
    sweep_seeds: Count = 1
    sweep_k: Count = 1  # candidates an anchor in those banks

    @model_validator(mode="after")
    def _compares_clsp_with_simclr(self) -> Self:
        if not {"SimCLR", "CLSP-SimCLR"} <= set(self.methods) or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"methods={self.methods} must hold 'SimCLR' and 'CLSP-SimCLR', which the notebooks compare, and each name once"
            )
        return self


@settings
class Profile:
    """All settings of one run of the companion."""

    name: str = "laptop"
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # bf16 where the hardware multiplies it natively, else fp32
    data: Data = Data()
    diffusion: Diffusion = Diffusion()
    candidates: Candidates = Candidates()
    simclr: Pretrain = Pretrain()  # SimCLR and what builds on it
    moco: Pretrain = Pretrain(clsp_weight=0.5)  # MoCoV2 and what builds on it
    # Judges candidates, so it has to name digits in any colours and at low contrast.
    classifier: Pretrain = Pretrain(
        method="supervised",
        epochs=25,
        batch=256,
        encoder=Encoder(stem_stride=1),
        views=Views(
            crop_area=(0.6, 1.0), brightness=0.5, contrast=0.9, saturation=0.9, hue=0.5, p_jitter=1.0, p_grey=0.3
        ),
    )
    probe: Probe = Probe()
    study: Study = Study()

    @model_validator(mode="after")
    def _size_can_be_halved(self) -> Self:
        levels = len(self.diffusion.unet.channels)
        if self.data.size % 2 ** (levels - 1) or self.data.size < 2**levels:
            raise ValueError(
                f"data.size={self.data.size} cannot be halved {levels - 1} time(s) by a UNet of "
                f"{levels} resolutions: use a multiple of {2 ** (levels - 1)}, at least {2**levels}"
            )
        sides = [self.data.size // 2**i for i in range(levels)]
        if any(side not in sides for side in self.diffusion.unet.attention):
            raise ValueError(
                f"diffusion.unet.attention={self.diffusion.unet.attention} must name resolutions of the UNet, {sides}"
            )
        return self

    @model_validator(mode="after")
    def _neighbours_are_there(self) -> Self:
        if 0 < self.data.limit < max(self.probe.neighbours):
            raise ValueError(
                f"probe.neighbours={self.probe.neighbours} must be at most data.limit={self.data.limit}"
            )
        return self


# w = 0.4 was best on validation: its candidates have more varied backgrounds, and most keep the digit.
LAPTOP = Profile(candidates=Candidates(mix_weight=0.4))

_SMALL = Pretrain(epochs=2, batch=64, queue=128, encoder=Encoder(layers=(1, 1), width=16))
SMOKE = Profile(
    name="smoke",
    data=Data(limit=256),
    diffusion=Diffusion(unet=UNet(channels=(16, 32)), steps=30, batch=32, warmup=5),
    candidates=Candidates(k=2, steps=4),
    simclr=_SMALL,
    moco=_SMALL,
    classifier=dataclasses.replace(_SMALL, method="supervised"),
    probe=Probe(epochs=5, neighbours=(5, 10)),
    study=Study(samples=32, steps=4, mix_weights=(0.0, 0.1, 0.5, 1.0), tsne=200, seeds=2),
)

# Settings that the authors report, where they do; `gpu` is the same with less of everything.
_PHOTOGRAPHS = Views(crop_area=(0.08, 1.0), p_flip=0.5)
_RESNET18 = Encoder(layers=(2, 2, 2, 2), width=64, stem_stride=1, hidden=4096, projection=256)
_SIMCLR = Pretrain(
    encoder=_RESNET18, views=_PHOTOGRAPHS, epochs=1000, batch=1024, lr=0.5, warmup=10, clsp_ramp=0.0, queue=65536,
    watch_every=10,
)
_MOCO = dataclasses.replace(
    _SIMCLR, batch=512, lr=0.3, queue=32768, clsp_weight=0.5,
    views=dataclasses.replace(_PHOTOGRAPHS, saturation=0.2, p_solarize=0.2),
)
PAPER = Profile(
    name="paper",
    data=Data(name="cifar10", size=32),
    diffusion=Diffusion(
        unet=UNet(channels=(128, 256, 256, 256), layers=2, attention=(16,), dropout=0.1, groups=32),
        steps=781_250, batch=128, lr=2e-4, weight_decay=0.0, warmup=5000, ema_decay=0.9999, snr_gamma=0.0,
        second_noise=0.0, silent_middle=0.0, flip=True,
    ),
    candidates=Candidates(k=8, steps=100, eta=0.1, batch=64),
    simclr=_SIMCLR,
    moco=_MOCO,
    classifier=Pretrain(
        method="supervised", encoder=_RESNET18, views=dataclasses.replace(_PHOTOGRAPHS, crop_area=(0.5, 1.0)),
        epochs=100, batch=256, lr=0.1, weight_decay=5e-4,
    ),
    study=Study(
        samples=1000, steps=100, sweep_k=8,
        methods=(
            "SimCLR", "third view", "CLSP-SimCLR", "class positives", "SupCon", "NNCLR", "All4One",
            "MoCoV2", "CLSP-MoCoV2",
        ),
    ),
)
GPU = dataclasses.replace(
    PAPER,
    name="gpu",
    diffusion=dataclasses.replace(PAPER.diffusion, source="google/ddpm-cifar10-32"),
    candidates=Candidates(k=4, steps=20, batch=64),
    simclr=dataclasses.replace(_SIMCLR, epochs=200, batch=512),
    moco=dataclasses.replace(_MOCO, epochs=200),
    classifier=dataclasses.replace(PAPER.classifier, epochs=30),
    study=Study(samples=500, steps=20, sweep_k=4),
)

PROFILES = {profile.name: profile for profile in (SMOKE, LAPTOP, GPU, PAPER)}


def profile(name: str, overrides: str = "", data_path: str = "") -> Profile:
    """The named profile with single fields replaced.

    Args:
        name: a key of `PROFILES`.
        overrides: "field=value" pairs separated by spaces or semicolons, each field by its dotted
            path, for example "candidates.k=4 diffusion.steps=500 simclr.encoder.layers=(2,2)".
        data_path: the same as the override `data.path`, and may hold any characters.

    Raises:
        ConfigError: unknown profile or field, wrong type, or a value out of range.
    """
    if name not in PROFILES:
        raise ConfigError(f"profile={name!r}: use one of {', '.join(sorted(PROFILES))}.")
    tree = as_dict(PROFILES[name])
    own_name = tree.pop("name")
    text = re.sub(r"([,(\[])\s+|\s+(?=[)\]])", r"\1", overrides.replace(";", " "))
    try:
        pairs = shlex.split(text)
    except ValueError:
        raise ConfigError(f"overrides={overrides!r}: a quotation mark is not closed.") from None
    for pair in pairs:
        path, sign, value = pair.partition("=")
        *branches, leaf = path.split(".")
        node: Any = tree
        for branch in branches:
            node = node.get(branch) if isinstance(node, dict) else None
        if not sign or not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict):
            allowed = sorted(node) if isinstance(node, dict) else sorted(tree)
            inside = f" of {'.'.join(branches)}" if isinstance(node, dict) and branches else ""
            raise ConfigError(
                f"overrides: {pair!r} sets no field; write field=value, the fields{inside} being "
                f"{', '.join(allowed)}."
            )
        node[leaf] = _literal(value)
    if data_path:
        tree["data"]["path"] = data_path
    return validate(Profile, tree | {"name": own_name})


def validate(kind: Any, value: Any, where: str = "") -> Any:
    """`value` as the type `kind`, or a ConfigError of one sentence that names value and range."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ([where] if where else []) + list(first["loc"]))
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        shown = f"={first['input']!r}" if not isinstance(first["input"], dict) else ""
        where = f"{path}{shown}: " if path or shown else ""
        raise ConfigError(f"{where}{message[0].lower()}{message[1:]}.") from None


def check(**parameters: Any) -> None:
    """Refuses parameters of a notebook that are out of range; names that no notebook of ours has pass."""
    for name in parameters.keys() & PARAMETERS.keys():
        validate(PARAMETERS[name], parameters[name], name)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def change(settings: Any, **fields: Any) -> Any:
    """A copy of `settings` with fields replaced and checked, or a ConfigError."""
    return validate(type(settings), as_dict(settings) | fields)


def as_dict(node: Any) -> dict:
    """The configuration as plain dictionaries, tuples, numbers and strings."""
    return dataclasses.asdict(node)
