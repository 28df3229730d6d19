"""The stages of the paper. Each imports what computes only when it makes something."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import model_validator

from clsp_utils.config import (
    METHODS,
    ClassSampling,
    ConfigError,
    Count,
    Data,
    Diffusion,
    Interpolation,
    Method,
    Probe,
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


@lru_cache(maxsize=2)
def _load(data: Dataset) -> tuple["Images", "Images"]:
    from clsp_utils.data import load

    return load(data)


@lru_cache(maxsize=2)
def _statistics(data: Dataset) -> "ChannelStatistics":
    return data.train.statistics


def read_anew() -> None:
    """Forgets what was read of files that others have made, since they may have changed."""
    for cached in (_load, _statistics, content_of):
        cached.cache_clear()


# diffusion ----------------------------------------------------------------------------------------


@frozen
class TrainedDiffusion(Seeded, Diffusion):
    """A UNet and the loss of every step of its training."""

    data: Dataset
    wide = True

    @model_validator(mode="after")
    def _unet_fits_the_images(self) -> Self:
        if misfit := self.unet.misfit(self.data.size):
            raise ValueError(misfit)
        return self

    def labels(self) -> np.ndarray | None:
        """What the model is conditioned on: classes `(N,)`, or nothing."""
        return None

    @property
    def n_steps(self) -> int:
        return self.steps

    def train(self, work: Path, cfg: Diffusion) -> tuple:
        """The UNet and its losses."""
        from clsp_utils.diffusion import train

        return train(cfg, self.data.train.images, self.seed, work, self.precision, self.labels())

    def trial(self, job: Job, n: int) -> None:
        self.train(job.work, change(self, steps=n))

    def make(self, job: Job) -> None:
        self.save(job, *self.train(job.work, self))

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

        from clsp_utils.runtime import device

        return UNet2DModel.from_pretrained(artifact.path).eval().to(device())


@frozen
class DiffusionModel(TrainedDiffusion, name="diffusion"):
    """The unconditional UNet; or weights that others have trained, which count by their content."""

    source: str = local(default="")  # of these: a Hub name, a diffusers folder or the authors' .pt

    def content(self) -> dict[str, Any]:
        from clsp_utils.diffusion import weights_digest

        return {"weights": weights_digest(self.source)} if self.source else {}

    def check(self) -> None:
        from clsp_utils.diffusion import unet_misfit

        if self.source and (misfit := unet_misfit(self.source, self.data.size)):
            raise ConfigError(misfit)

    @property
    def n_steps(self) -> int:
        return 0 if self.source else self.steps

    def make(self, job: Job) -> None:
        from clsp_utils.diffusion import load_diffusion

        if self.source:
            self.save(job, load_diffusion(self.source), np.zeros(0))
        else:
            super().make(job)


@frozen
class ClassDiffusion(TrainedDiffusion, name="class-diffusion"):
    """The UNet conditioned on the class; its section follows "diffusion" where it says nothing."""

    def check(self) -> None:
        self.labels()

    def labels(self) -> np.ndarray:
        train = self.data.train
        _ = train.labelled  # refuses images of which none has a label
        return train.labels


def _keep_log(job: Job) -> None:
    """The log of a training becomes a file of the result; the first process has written it."""
    if (job.work / "log.csv").exists():
        link_or_copy(job.work / "log.csv", job.out / "log.csv")


# positives ----------------------------------------------------------------------------------------


@frozen
class Bank(Seeded, Sampling):
    """k candidates of every anchor, uint8 `(N, k, H, W, 3)`, memory-mapped.

    Attributes:
        view: what methods call a view of such a candidate (`config.View`).
    """

    view: ClassVar[View]
    of_view: ClassVar[dict[str, type["Bank"]]] = {}
    wide = True
    unet: TrainedDiffusion

    def __init_subclass__(cls, view: View, **more: str):
        super().__init_subclass__(**more)
        cls.view = view
        Bank.of_view[view] = cls

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        """A function from some rows of the anchors and a seed to their candidates."""
        raise NotImplementedError

    @property
    def n_parts(self) -> int:
        return -(-len(self.unet.data.train) // self.batch)

    @property
    def n_steps(self) -> int:
        return self.n_parts * self.steps

    def trial(self, job: Job, n: int) -> None:
        change(self, steps=n).sampler(job)(slice(self.batch), self.seed)

    def make(self, job: Job) -> None:
        from clsp_utils.positives import open_bank
        from clsp_utils.runtime import Share, my_share, wait_for_all, workers

        share, images = my_share(), self.unet.data.train.images
        if share.rank == 0:
            open_bank(job.work, len(images), self.k, self.batch, images.shape[1:])
        wait_for_all()
        side_by_side = workers.count(self.n_parts)
        if share.world > 1 or side_by_side == 1:
            self.fill(job, share)
        else:
            shares = [Share(i, side_by_side) for i in range(side_by_side)]
            jobs = [(self, job.work, part) for part in shares]
            workers.side_by_side(_fill, jobs, "candidates, a part per core")
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

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "bank.npy", mmap_mode="r")


def _fill(bank: Bank, work: Path, share: Any) -> None:
    from clsp_utils.pipeline.pipeline import pipeline_of_worker

    bank.fill(Job(work, work, pipeline_of_worker().get), share)


@frozen
class InterpolatedBank(Bank, Interpolation, name="candidates", view="synthetic"):
    """Candidates with the anchor's middle mixed in."""

    unet: DiffusionModel

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        from clsp_utils.positives import interpolate

        unet, images = job.get(self.unet), self.unet.data.train.images
        how = (self.mix_weight, self.mix_below, self.k, self.steps, self.eta)
        return lambda rows, seed: interpolate(unet, images[rows], *how, seed, self.precision)


@frozen
class ClassBank(Bank, ClassSampling, name="class-candidates", view="class"):
    """Samples of the anchor's class, which no anchor's features enter: a baseline."""

    unet: ClassDiffusion

    def check(self) -> None:
        self.unet.check()

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        from clsp_utils.positives import class_samples

        unet, labels = job.get(self.unet), self.unet.data.train.labels
        how = (self.k, self.steps, self.eta, self.guidance)
        return lambda rows, seed: class_samples(unet, labels[rows], *how, seed, self.precision)


@frozen
class StudySamples(Seeded, name="study-samples"):
    """Candidates of the first n study images, uint8 `(n, k, H, W, 3)`."""

    unet: DiffusionModel
    mix_weight: Share
    mix_below: TimeBound
    k: Count
    steps: Steps
    eta: Share | None
    n: Count

    def make(self, job: Job) -> None:
        from clsp_utils.positives import interpolate

        images, unet = self.unet.data.study_images(self.n).images, job.get(self.unet)
        how = (self.mix_weight, self.mix_below, self.k, self.steps, self.eta)
        samples = interpolate(unet, images, *how, self.seed, self.precision)
        np.save(job.out / "samples.npy", samples)

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "samples.npy")


# contrastive --------------------------------------------------------------------------------------


@frozen
class Pretrained(Seeded, name="pretrain"):
    """An encoder, trained by a method, and the loss of every step."""

    data: Dataset
    method: Method
    settings: Training
    bank: Bank | None  # of the candidates that the method's third view shows

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Takes the method's settings from the profile, and the bank that its views come from."""
        given = {"method": "CLSP-SimCLR", "settings": None, "bank": None} | given
        recipe = METHODS.get(given["method"])
        if recipe:  # else the check of `method` says what is allowed
            settings = given["settings"] or profile.settings(recipe.section)
            if len(recipe.views) < 3 and hasattr(settings, "third_view"):
                settings = change(settings, third_view=None)
            kinds = [Bank.of_view[view] for view in recipe.views if view in Bank.of_view]
            bank = (given["bank"] or profile.stage(kinds[0])) if kinds else None
            given |= {"settings": settings, "bank": bank}
        return given

    @property
    def anchors(self) -> "Images":
        """What it is trained on: all anchors, or those with a label."""
        train = self.data.train
        return train.labelled if METHODS[self.method].needs_labels else train

    def check(self) -> None:
        from clsp_utils.evaluation import held_out_rows

        _ = self.anchors  # refuses images without labels where the method needs them
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
        from clsp_utils.runtime import one_thread

        anchors = self.anchors
        watch = self.watch if self.watched else None
        with one_thread():
            return pretrain(
                self.method, settings, anchors.images[:n], anchors.labels[:n],
                self.data.statistics, self.seed, job.work, self.precision,
                job.get(self.bank)[:n] if self.bank else None, watch,
            )  # fmt: skip

    def trial(self, job: Job, n: int) -> None:
        once = change(self.settings, epochs=1, watch_every=0)
        self.train(job, once, n * self.settings.batch)

    def make(self, job: Job) -> None:
        from clsp_utils.runtime import save_weights

        encoder, losses = self.train(job, self.settings)
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
        """The encoder that training starts from, in eval mode."""
        from clsp_utils.contrastive import build_method

        n_classes = int(self.data.train.labels.max()) + 1
        return build_method(self.method, self.settings, n_classes, self.seed).encoder.eval()

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
