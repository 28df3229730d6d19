"""The stages of the paper. Each imports what computes only when it makes something."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import model_validator

from clsp_utils.config import (
    MCL,
    METHODS,
    SNAPSHOTS,
    Beta,
    ClassSampling,
    ConfigError,
    Count,
    CountOrNone,
    Data,
    Diffusion,
    Interpolation,
    Method,
    PlainSampling,
    Positive,
    Probe,
    Sampler,
    Sampling,
    Share,
    Steps,
    TimeBound,
    Training,
    View,
    change,
    frozen,
    local,
)
from clsp_utils.pipeline.stage import Job, Seeded, Stage, content_of
from clsp_utils.store import Artifact, link_or_copy

if TYPE_CHECKING:
    from clsp_utils.data import ChannelStatistics, Images

# data ---------------------------------------------------------------------------------------------


@frozen
class Dataset(Stage, Data, name="data"):
    """The images. Nothing is made of them; published and own ones count by their content."""

    version = 2  # the digits' backgrounds are waves
    made = False

    def content(self) -> dict[str, Any]:
        from clsp_utils.data import fingerprint

        return {} if self.name == "digits" else fingerprint(self.train, self.test)

    @property
    def train(self) -> "Images":
        """The anchors."""
        return _load(self)[0]

    @property
    def test(self) -> "Images":
        """What scores are reported on."""
        return _load(self)[1]

    @property
    def labelled(self) -> tuple["Images", "Images"]:
        """The anchors and the test images that have a label, which scores need.

        Raises:
            DataError: there are none, or too few anchors to hold out a fifth of every class.
        """
        from clsp_utils.evaluation import held_out_rows

        train, test = self.train.labelled, self.test.labelled
        held_out_rows(train)  # later, k of kNN is chosen on them
        return train, test

    @property
    def statistics(self) -> "ChannelStatistics":
        """What encoders' inputs are normalised by: mean and deviation per channel, in [0, 1]."""
        from clsp_utils.data import NORMALISATION

        return NORMALISATION[self.name] if self.normalisation == "published" else _statistics(self)

    def study_images(self, n: int) -> "Images":
        """The n test images that curves over w, and masks, are measured on; classes take turns."""
        from clsp_utils.data import by_class

        test = self.labelled[1]
        shuffled = test[np.random.default_rng(0).permutation(len(test))]
        return shuffled[by_class(shuffled.labels)[:n]]


@frozen
class PictureFolder(Stage, name="picture-folder"):
    """A few hundred pictures of a data set as files in folders, for readers who bring none."""

    data: Dataset

    def make(self, job: Job) -> None:
        from clsp_utils.data import write_folder

        write_folder(change(self.data, limit=0).train, job.out / "pictures")

    def load(self, artifact: Artifact) -> Path:
        """The folder."""
        return artifact.path / "pictures"


@lru_cache(maxsize=2)
def _load(data: Dataset) -> tuple["Images", "Images"]:
    from clsp_utils.data import load

    return load(data)


@lru_cache(maxsize=2)
def _statistics(data: Dataset) -> "ChannelStatistics":
    return data.train.statistics


READ: list[Any] = [_load, _statistics, content_of]  # caches of what lies in files of others


def read_anew() -> None:
    """Forgets what was read of files that others have made, since they may have changed."""
    for cached in READ:
        cached.cache_clear()


# diffusion ----------------------------------------------------------------------------------------


@frozen
class TrainedDiffusion(Seeded, Diffusion):
    """A UNet, the loss of every step of its training, and its weights after `SNAPSHOTS`."""

    data: Dataset
    version = 2  # snapshots are kept
    wide = True

    @model_validator(mode="after")
    def _unet_fits_the_images(self) -> Self:
        if misfit := self.unet.misfit(self.data.size):
            raise ValueError(misfit)
        return self

    @property
    def n_steps(self) -> int:
        return self.steps

    def train(self, job: Job, cfg: Diffusion) -> tuple:
        """The UNet and its losses."""
        from clsp_utils.diffusion import train

        return train(cfg, self.data.train.images, self.seed, job.work, self.precision)

    def trial(self, job: Job, n: int) -> None:
        self.train(job, change(self, steps=n))

    def make(self, job: Job) -> None:
        self.save(job, *self.train(job, self))
        for snapshot in job.work.glob("snapshot_*"):
            link_or_copy(snapshot, job.out / snapshot.name)

    def save(self, job: Job, unet: Any, losses: np.ndarray) -> None:
        """Writes a folder that diffusers reads."""
        from diffusers.utils import SAFETENSORS_WEIGHTS_NAME

        from clsp_utils.runtime import save_weights

        save_weights(unet, job.out / SAFETENSORS_WEIGHTS_NAME)
        unet.save_config(job.out)
        np.save(job.out / "losses.npy", losses)
        _keep_log(job)

    def load(self, artifact: Artifact) -> Any:
        """The UNet in eval mode, on the device."""
        from diffusers import UNet2DModel

        from clsp_utils.runtime import to_device

        return to_device(UNet2DModel.from_pretrained(artifact.path).eval())


@frozen
class TrainedByOthers(TrainedDiffusion):
    """A UNet, or in its place weights that others have trained, which count by their content."""

    source: str = local(default="")  # of these; "" = it is trained here

    def content(self) -> dict[str, Any]:
        from clsp_utils.diffusion import weights_digest

        return {"weights": weights_digest(self.source)} if self.source else {}

    @property
    def n_steps(self) -> int:
        return 0 if self.source else self.steps


@frozen
class DiffusionModel(TrainedByOthers, name="diffusion"):
    """The unconditional UNet; its source is a Hub name, a diffusers folder or the authors' .pt."""

    def check(self) -> None:
        from clsp_utils.diffusion import unet_misfit

        if self.source and (misfit := unet_misfit(self.source, self.data.size)):
            raise ConfigError(misfit)

    def theirs(self) -> Any:
        """The UNet of others, which may not say of itself what size it is for."""
        from clsp_utils.diffusion import load_diffusion

        unet = load_diffusion(self.source)
        unet.register_to_config(sample_size=self.data.size)
        return unet

    def stand_in(self) -> Any:
        """An untrained UNet, or that of others."""
        from clsp_utils.diffusion import build_unet
        from clsp_utils.runtime import to_device

        own = (self.unet, self.data.size)
        return to_device((self.theirs() if self.source else build_unet(*own)).eval())

    def make(self, job: Job) -> None:
        if self.source:
            self.save(job, self.theirs(), np.zeros(0))
        else:
            super().make(job)


@frozen
class ConditionalDiffusion(TrainedDiffusion):
    """A UNet with a condition; its section follows "diffusion" where it says nothing."""

    # It begins with the weights of the unconditional model, in the place of random ones.
    from_unconditional: bool = False
    # The learning rate of the condition's own weights, as a multiple of `lr`: where they begin at
    # zero, and all others are trained already, those few have far to go in little time.
    condition_lr: Positive = 1.0
    beta_end: Beta = 0.02  # the last of the betas of its noise
    start: DiffusionModel | None  # this model, if so

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Takes the profile's unconditional model, if it begins with one."""
        own = profile.tree[cls.section] | given
        begins = own["from_unconditional"] and not own.get("source")
        return {"start": profile.stage(DiffusionModel) if begins else None} | given

    def check(self) -> None:
        start = self.start
        if start and (start.source or change(start.unet, dropout=self.unet.dropout) != self.unet):
            raise ConfigError(
                f"{self.section}.from_unconditional=True needs an unconditional model of the same "
                f"unet that is trained here, with diffusion.source=''."
            )

    def condition(self, get: Callable[[Stage], Any]) -> np.ndarray:
        """What the model is conditioned on: classes `(N,)`, or fp32 vectors `(N, D)`."""
        raise NotImplementedError

    def stand_in(self) -> Any:
        """An untrained UNet."""
        from clsp_utils.diffusion import build_unet, condition_size
        from clsp_utils.runtime import to_device

        sizes = condition_size(self.condition(lambda stage: stage.stand_in()))
        return to_device(build_unet(self.unet, self.data.size, *sizes, self.beta_end).eval())

    def train(self, job: Job, cfg: Diffusion) -> tuple:
        from clsp_utils.diffusion import train

        start = job.get(self.start) if self.start else None
        how = (self.seed, job.work, self.precision, self.condition(job.get), start, self.section)
        return train(cfg, self.data.train.images, *how, self.beta_end, self.condition_lr)


@frozen
class ClassDiffusion(TrainedByOthers, ConditionalDiffusion, name="class-diffusion"):
    """The UNet conditioned on the class; its source is the authors' .pt, which brings its noise."""

    def check(self) -> None:
        from clsp_utils.diffusion import conditional_misfit

        super().check()
        train = self.data.train.labelled  # refuses images of which none has a label
        if self.source:
            images = self.data.size, len(train.class_names)
            if misfit := conditional_misfit(self.source, *images):
                raise ConfigError(misfit)

    def condition(self, get: Callable[[Stage], Any]) -> np.ndarray:
        return self.data.train.labels

    def stand_in(self) -> Any:
        """An untrained UNet, or that of others."""
        return self._theirs(Path(self.source)) if self.source else super().stand_in()

    def make(self, job: Job) -> None:
        if self.source:  # kept as it came, since diffusers has no such UNet
            shutil.copyfile(self.source, job.out / self._kept)
        else:
            super().make(job)

    @property
    def _kept(self) -> str:
        return "authors.safetensors" if self.source.endswith(".safetensors") else "authors.pt"

    def load(self, artifact: Artifact) -> Any:
        """The UNet in eval mode, on the device."""
        return self._theirs(artifact / self._kept) if self.source else super().load(artifact)

    def _theirs(self, weights: Path) -> Any:
        from clsp_utils.diffusion import load_conditional
        from clsp_utils.runtime import to_device

        unet = load_conditional(weights)
        unet.register_to_config(sample_size=self.data.size)
        return to_device(unet)


@frozen
class Snapshot(Stage, name="snapshot"):
    """The UNet as it was after a share of its training; costs neither training nor room."""

    model: DiffusionModel
    share: Share  # one of `SNAPSHOTS`

    @model_validator(mode="after")
    def _is_kept(self) -> Self:
        if self.share not in SNAPSHOTS:
            raise ValueError(f"share={self.share} must be one of {SNAPSHOTS}")
        return self

    def check(self) -> None:
        if self.model.source:
            raise ConfigError(
                f"diffusion.source={self.model.source!r} must be empty, so that a model is trained "
                f"here: of finished weights there are no snapshots."
            )

    @property
    def data(self) -> Dataset:
        return self.model.data

    def make(self, job: Job) -> None:
        from diffusers.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

        model, number = job.artifact(self.model), SNAPSHOTS.index(self.share)
        link_or_copy(model / CONFIG_NAME, job.out / CONFIG_NAME)
        weights = model / f"snapshot_{number}.safetensors"
        link_or_copy(weights, job.out / SAFETENSORS_WEIGHTS_NAME)

    def load(self, artifact: Artifact) -> Any:
        """The UNet in eval mode, on the device."""
        return self.model.load(artifact)

    def stand_in(self) -> Any:
        return self.model.stand_in()


def _keep_log(job: Job) -> None:
    """The log of a training becomes a file of the result; the first process has written it."""
    if (job.work / "log.csv").exists():
        link_or_copy(job.work / "log.csv", job.out / "log.csv")


# images that it makes -----------------------------------------------------------------------------


@frozen
class Generated(Seeded, Sampler):
    """Images that a diffusion model makes by the batch, uint8 `(N, k, H, W, 3)`, memory-mapped."""

    wide = True
    unet: TrainedDiffusion | Snapshot

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, k)`: how many rows, and images of each."""
        raise NotImplementedError

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        """A function from some rows and a seed to their images."""
        raise NotImplementedError

    @property
    def n_parts(self) -> int:
        return -(-self.shape[0] // self.batch)

    @property
    def n_steps(self) -> int:
        return self.n_parts * self.steps

    def trial(self, job: Job, n: int) -> None:
        change(self, steps=n).sampler(job)(slice(self.batch), self.seed)

    def make(self, job: Job) -> None:
        from clsp_utils.positives import open_bank
        from clsp_utils.runtime import Share, my_share, wait_for_all, workers

        share, (n, k) = my_share(), self.shape
        if share.rank == 0:
            open_bank(job.work, n, k, self.batch, self.unet.data.train.images.shape[1:])
        wait_for_all()
        side_by_side = workers.count(self.n_parts)
        if share.world > 1 or side_by_side == 1:
            self.fill(job, share)
        else:
            n_jobs = min(self.n_parts, 4 * side_by_side)  # several per core, so that a bar goes on
            jobs = [(self, job.work, Share(i, n_jobs)) for i in range(n_jobs)]
            workers.side_by_side(_fill, jobs, self.kind)
        wait_for_all()
        if share.rank == 0:
            # A second name for it, not a move: a kill before the end of the stage must not lose it.
            link_or_copy(job.work / "bank.npy", job.out / "bank.npy")

    def fill(self, job: Job, share: Any) -> None:
        """Fills one share of the batches."""
        from clsp_utils.positives import fill_bank
        from clsp_utils.runtime import one_thread

        with one_thread():
            fill_bank(job.work, self.sampler(job), self.batch, self.seed, share)

    def stand_in(self) -> np.ndarray:
        """Black images."""
        size = self.unet.data.size
        return np.broadcast_to(np.uint8(0), (*self.shape, size, size, 3))

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "bank.npy", mmap_mode="r")


def _fill(images: Generated, work: Path, share: Any) -> None:
    from clsp_utils.pipeline.pipeline import pipeline_of_worker

    pipeline = pipeline_of_worker()
    images.fill(Job(work, work, pipeline.get, pipeline.artifact), share)


@frozen
class Samples(Generated, PlainSampling, name="samples"):
    """n plain samples, uint8 `(n, k, H, W, 3)`.

    k is 1; with a `variance` it is 2: each image rounded to grey levels, and truncated.
    """

    unet: DiffusionModel | Snapshot

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, 2 if self.variance else 1

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        from clsp_utils.diffusion import plain_samples

        unet = job.get(self.unet)

        def draw(rows: slice, seed: int) -> np.ndarray:
            n = len(range(self.n)[rows])
            return plain_samples(unet, n, self, seed, self.precision)

        return draw


# positives ----------------------------------------------------------------------------------------


@frozen
class Bank(Generated, Sampling):
    """k candidates of every anchor, uint8 `(N, k, H, W, 3)`, memory-mapped.

    Attributes:
        view: what methods call a view of such a candidate (`config.View`).
    """

    view: ClassVar[View]
    of_view: ClassVar[dict[str, type["Bank"]]] = {}
    # A file of candidates (see `positives.read_bank`), of which each anchor's first k take the
    # place of samples; it counts by its content.
    source: str = local(default="")

    def __init_subclass__(cls, view: View, **more: str):
        super().__init_subclass__(**more)
        cls.view = view
        Bank.of_view[view] = cls

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """A file tells of no other model or mix weight: asked for those, samples are made."""
        own = {f.name for f in dataclasses.fields(Sampling)}
        return given if given.keys() <= own else {"source": ""} | given

    @property
    def inputs(self) -> tuple[Stage, ...]:
        """With a file no model is needed."""
        return (self.unet.data,) if self.source else super().inputs

    def content(self) -> dict[str, Any]:
        from clsp_utils.positives import bank_digest

        return {"candidates": bank_digest(self.source)} if self.source else {}

    def check(self) -> None:
        if self.source:
            self.read()
        else:
            self.unet.check()

    def read(self) -> np.ndarray:
        """The candidates of the file, memory-mapped, or a DataError if they do not fit."""
        from clsp_utils.positives import read_bank

        return read_bank(self.source, *self.shape, self.unet.data.size)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.unet.data.train), self.k

    @property
    def n_steps(self) -> int:
        return 0 if self.source else super().n_steps

    def make(self, job: Job) -> None:
        from clsp_utils.runtime import my_share

        if not self.source:
            super().make(job)
        elif my_share().rank == 0:
            np.save(job.out / "bank.npy", self.read())


@frozen
class InterpolatedBank(Bank, Interpolation, name="candidates", view="synthetic"):
    """Candidates with the anchor's middle mixed in."""

    unet: DiffusionModel | Snapshot

    @model_validator(mode="after")
    def _unet_has_the_skips(self) -> Self:
        model = self.unet.model if isinstance(self.unet, Snapshot) else self.unet
        n_skips = model.unet.n_skips
        if self.mix_skips > n_skips and not model.source:  # weights of others have their own shape
            raise ValueError(f"mix_skips={self.mix_skips}: the UNet has {n_skips} skip connections")
        return self

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        from clsp_utils.positives import interpolate

        unet, images = job.get(self.unet), self.unet.data.train.images
        how = (self.mix_weight, self.mix_below, self.k, self.steps, self.eta)
        return lambda rows, seed: interpolate(
            unet, images[rows], *how, seed, self.precision, self.mix_skips
        )


@frozen
class ClassBank(Bank, ClassSampling, name="class-candidates", view="class"):
    """Samples of the anchor's class, which no anchor's features enter: a baseline."""

    unet: ClassDiffusion

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        return samples_of_conditions(self, job)


def samples_of_conditions(bank: Any, job: Job) -> Callable[[slice, int], np.ndarray]:
    """The sampler of a bank whose model is conditioned: samples of each anchor's condition."""
    from clsp_utils.positives import conditional_samples

    unet, condition = job.get(bank.unet), bank.unet.condition(job.get)
    how = (bank.k, bank.steps, bank.eta, bank.guidance)
    return lambda rows, seed: conditional_samples(unet, condition[rows], *how, seed, bank.precision)


@frozen
class StudySamples(Seeded, name="study-samples"):
    """Candidates of the first n study images, uint8 `(n, k, H, W, 3)`."""

    unet: DiffusionModel
    mix_weight: Share
    mix_below: TimeBound
    mix_skips: CountOrNone
    k: Count
    steps: Steps
    eta: Share | None
    n: Count

    def make(self, job: Job) -> None:
        from clsp_utils.positives import interpolate

        images, unet = self.unet.data.study_images(self.n).images, job.get(self.unet)
        how = (self.mix_weight, self.mix_below, self.k, self.steps, self.eta)
        samples = interpolate(unet, images, *how, self.seed, self.precision, self.mix_skips)
        np.save(job.out / "samples.npy", samples)

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "samples.npy")


# contrastive --------------------------------------------------------------------------------------


@frozen
class Pretrained(Seeded, name="pretrain"):
    """An encoder, trained by a method, and the loss of every step.

    A method of several stages trains them one after another, each an encoder of this kind; what is
    loaded then gives the features of all, side by side.
    """

    data: Dataset
    method: Method
    settings: Training
    bank: Bank | None  # of the candidates that the method's third view shows
    earlier: "Pretrained | None"  # the encoder before it, where several are trained in turn
    version = 2  # the log has measures of the projections

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Takes the method's settings from the profile, and the stages that it builds on."""
        nothing = dict.fromkeys(("settings", "bank", "earlier"))
        given = {"method": "CLSP-SimCLR", "seed": profile.seed} | nothing | given
        recipe = METHODS.get(given["method"])
        if recipe:  # else the check of `method` says what is allowed
            settings = given["settings"] or profile.settings(recipe.section)
            if len(recipe.views) < 3 and hasattr(settings, "third_view"):
                settings = change(settings, third_view=None)
            shown = (*recipe.views, recipe.more_anchors)
            kinds = [Bank.of_view[view] for view in shown if view in Bank.of_view]
            bank = (given["bank"] or profile.stage(kinds[0])) if kinds else None
            given |= {"settings": settings, "bank": bank}
            if isinstance(settings, MCL):
                before: dict[str, Any] = {"method": recipe.follows}
                if settings.stages > 2:
                    fewer = change(settings, stages=settings.stages - 1)
                    before = {"method": given["method"], "settings": fewer}
                given["earlier"] = profile.stage(cls, **before, seed=given["seed"])
        return given

    @property
    def anchors(self) -> "Images":
        """What it is trained on: all anchors, or those with a label."""
        train = self.data.train
        return train.labelled if METHODS[self.method].needs_labels else train

    def check(self) -> None:
        from clsp_utils.evaluation import held_out_rows

        n = len(self.anchors)  # refuses images without labels where the method needs them
        if isinstance(self.settings, MCL) and self.settings.clusters > n:
            raise ConfigError(f"mcl.clusters={self.settings.clusters} must be at most {n} anchors.")
        if self.watched:
            held_out_rows(self.data.train.labelled)  # refuses now, not after the first epochs

    @property
    def watched(self) -> bool:
        """Whether kNN follows the training: there are classes to tell apart."""
        return self.settings.watch_every > 0 and self.data.train.n_classes_present > 1

    @property
    def n_steps(self) -> int:
        return self.settings.epochs * max(1, len(self.anchors) // self.settings.batch)

    def train(self, job: Job, settings: Training, n: int | None = None) -> tuple:
        """The encoder and its losses, from the first n anchors (all by default)."""
        from clsp_utils.contrastive import pretrain
        from clsp_utils.evaluation import GEOMETRY
        from clsp_utils.runtime import one_thread

        anchors = self.anchors
        # Candidates that become anchors are as large as these only without the larger copies.
        alike = METHODS[self.method].more_anchors is not None
        images = (anchors.images if alike else anchors.to_cut)[:n]
        watch = self.watch if self.watched else None
        with one_thread():
            labels = self.clusters(job) if self.earlier else anchors.labels
            return pretrain(
                self.method, settings, images, labels[:n], self.data.statistics, self.own_seed,
                job.work, self.precision, job.get(self.bank)[:n] if self.bank else None, watch,
                measures=GEOMETRY, size=self.data.size,
            )  # fmt: skip

    @property
    def own_seed(self) -> int:
        """The seed of its training; not that of the encoder before it, which it would repeat."""
        from clsp_utils.runtime import seed_for

        if isinstance(self.settings, MCL):
            return seed_for(self.seed, "stage", self.settings.stages)
        return self.seed

    def clusters(self, job: Job) -> np.ndarray:
        """The cluster of each anchor, `(N,)`, by what each of the encoders before it learned."""
        from clsp_utils.contrastive import backbones
        from clsp_utils.evaluation import extract_features
        from clsp_utils.positives import cluster, standardise

        if not self.earlier or not isinstance(self.settings, MCL):
            return np.zeros(len(self.anchors), np.int64)
        last = backbones(job.get(self.earlier))[-1]
        f = extract_features(last, self.anchors.images, self.data.statistics, self.precision)
        n = self.settings.clusters
        return n * self.earlier.clusters(job) + cluster(standardise(f.numpy()), n, self.seed)

    def trial(self, job: Job, n: int) -> None:
        once = change(self.settings, epochs=1, watch_every=0)
        self.train(job, once, n * self.settings.batch)

    def make(self, job: Job) -> None:
        from clsp_utils.contrastive import Joined
        from clsp_utils.runtime import save_weights

        encoder, losses = self.train(job, self.settings)
        if self.earlier:
            encoder = Joined(job.get(self.earlier), encoder)
        save_weights(encoder, job.out / "encoder.safetensors")
        np.save(job.out / "losses.npy", losses)
        _keep_log(job)

    def watch(self, backbone: Any) -> float:
        """kNN accuracy within the anchors, of which a fifth is held out."""
        from clsp_utils.evaluation import extract_features, held_out_knn

        anchors = self.data.train.labelled
        features = extract_features(backbone, anchors.images, self.data.statistics, self.precision)
        return held_out_knn(features, anchors, (20,))[20]

    def untrained(self) -> Any:
        """The encoder that training starts from, in eval mode; where it follows others, all."""
        from clsp_utils.contrastive import Joined, build_method

        n_classes = int(self.data.train.labels.max()) + 1
        own = build_method(self.method, self.settings, n_classes, self.own_seed).encoder.eval()
        return Joined(self.earlier.untrained(), own).eval() if self.earlier else own

    def stand_in(self) -> Any:
        return self.untrained()

    def load(self, artifact: Artifact) -> Any:
        """The trained encoder, in eval mode."""
        from safetensors.torch import load_file

        encoder = self.untrained()
        encoder.load_state_dict(load_file(artifact / "encoder.safetensors"))
        return encoder


# evaluation ---------------------------------------------------------------------------------------


@frozen
class Scores(Seeded, Probe, name="scores", section="probe"):
    """Linear and kNN top-1 of an encoder: `{"linear", "knn", "k"}`, shares in [0, 1]."""

    encoder: Pretrained

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """What is given besides is meant for the encoder."""
        own: dict[str, Any] = {name: given[name] for name in ("encoder", "seed") if name in given}
        if "encoder" not in own:
            own["encoder"] = profile.stage(Pretrained, **given)
        return own

    def check(self) -> None:
        _ = self.encoder.data.labelled  # refuses images of which too few have a label

    @model_validator(mode="after")
    def _neighbours_are_there(self) -> Self:
        limit = self.encoder.data.limit
        if 0 < limit < max(self.neighbours):
            raise ValueError(
                f"probe.neighbours={self.neighbours} must be at most data.limit={limit}"
            )
        return self

    def make(self, job: Job) -> None:
        from clsp_utils.evaluation import score

        one = self.encoder
        flip = one.settings.views.p_flip > 0  # where mirroring keeps the class
        result = score(
            job.get(one).backbone, one.data.train, one.data.test, one.data.statistics, self,
            self.seed, self.precision, flip,
        )  # fmt: skip
        (job.out / "scores.json").write_text(json.dumps(result))

    def load(self, artifact: Artifact) -> dict[str, Any]:
        return json.loads((artifact / "scores.json").read_text())


@frozen
class LayerScores(Scores, name="layer-scores", section="probe"):
    """What a linear map reads from every layer of an encoder (`evaluation.score_layers`)."""

    version = 1  # of its own, not that of `Scores`

    def make(self, job: Job) -> None:
        from clsp_utils.evaluation import score_layers

        one = self.encoder
        rows = score_layers(
            job.get(one), one.data.train, one.data.test, one.data.statistics, self, self.seed,
            self.precision,
        )  # fmt: skip
        (job.out / "scores.json").write_text(json.dumps(rows))
