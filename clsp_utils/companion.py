"""What notebooks ask for: one profile, one seed, one store, and everything made from them.

Each method returns a result from the store, or makes it and all that it needs first. The key of a
result holds exactly the settings that shaped it and the keys of what it was made from.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import UNet2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from tqdm import tqdm

from clsp_utils import config, data, diffusion, evaluate, processes, training, workers
from clsp_utils.artifacts import Artifact, Store, StoreError, link_or_copy
from clsp_utils.candidates import class_samples, fill_bank, interpolate, open_bank
from clsp_utils.checkpoints import load_diffusion
from clsp_utils.config import home
from clsp_utils.encoders import Encoder
from clsp_utils.methods import METHODS, build
from clsp_utils.pretrain import pretrain

def _timed(function: Callable, *arguments) -> float:
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


@cache
def _of_worker(*request) -> "Companion":
    """One for all jobs of a worker process, which then reads its data once."""
    return Companion(*request)


def _score(request: tuple, run: dict) -> None:
    _of_worker(*request).scores(**run)


def _fill(request: tuple, *arguments) -> None:
    _of_worker(*request)._fill(*arguments)


class Companion:
    """One profile, one seed and one store.

    Args:
        profile: name of a profile, see `config.PROFILES`.
        seed: seeds the diffusion model, the bank, and the first of the encoders.
        overrides: single settings, see `config.profile`.
        data_path: where the images lie, for the profiles that do not draw their own.

    Raises:
        config.ConfigError: a name, type or range is wrong.
        artifacts.StoreError: the store cannot be written.
    """

    def __init__(self, profile: str = "laptop", seed: int = 0, overrides: str = "", data_path: str = ""):
        self.cfg = config.profile(profile, overrides, data_path)
        self.seed = config.validate(config.Seed, seed, "seed")
        config.validate(config.Seed, seed + self.cfg.study.seeds, "seed + study.seeds")  # the last encoder's
        self._request = (profile, seed, overrides, data_path)
        self.precision = training.resolve_precision(self.cfg.precision)
        self.store = processes.SharedStore(home("artifacts"), processes.say)
        # figures/ holds what the laptop profile draws as it is; all else is a build product.
        plain = self.cfg == config.PROFILES["laptop"] and self.seed == 0
        own = [] if self.cfg.data.name == config.PROFILES["laptop"].data.name else [self.cfg.data.name]
        self.figures = home("figures") if plain else home("build", profile, *own, "figures")
        self.note = "smoke" if profile == "smoke" else ""
        self.content = "class" if own else "digit"  # what a label says of an image
        processes.say(f"profile {profile}, seed {seed}, {self.precision}, {torch.get_num_threads()} threads.")
        if own:
            processes.say(f"Numbers, figures and captions are those of {own[0]}; the other texts tell of the default images.")

    @cached_property
    def _splits(self) -> tuple[data.Images, data.Images]:
        return data.load(self.cfg.data)

    @property
    def train(self) -> data.Images:
        """The anchors."""
        return self._splits[0]

    @property
    def test(self) -> data.Images:
        """What scores are reported on."""
        return self._splits[1]

    @cached_property
    def labelled(self) -> tuple[data.Images, data.Images]:
        """The anchors and the test images that have a label, which scores need.

        Raises:
            DataError: there are none, or too few anchors to hold out a fifth of every class.
        """
        train, test = self.train.labelled, self.test.labelled
        evaluate.held_out_rows(train)  # later, k of kNN is chosen on them
        return train, test

    @cached_property
    def statistics(self) -> tuple:
        """Mean and standard deviation of the anchors, a channel at a time, in [0, 1]."""
        return self.train.statistics

    @property
    def study(self) -> data.Images:
        """The test images that the curves over w, and the masks, are measured on."""
        test = self.labelled[1]
        order = np.random.default_rng(0).permutation(len(test))
        return test[order[: self.cfg.study.samples]]

    @cached_property
    def _fingerprint(self) -> dict:
        return data.fingerprint(self.cfg.data, lambda: self._splits)

    def _key_of_data(self) -> str:
        return Store.key("data", self._fingerprint)

    def _settings(self, settings, **more) -> dict:
        return config.as_dict(settings) | {"precision": self.precision} | more

    def _announce(self, what: str, seconds: float, trial: Callable[[int], None] | None = None, total: int = 0) -> None:
        """Says before a long computation how long it will take.

        `seconds` is what the laptop profile was measured to take. Large profiles run `trial(n)`, the
        first n of `total` steps, for n = 1 and 4; what does not fit into memory ends here.
        """
        if self.cfg.name == "laptop":
            processes.say(f"{what}: about {max(seconds / 60, 0.1):.1f} min on two cores with bf16")
        elif self.cfg.name in ("gpu", "paper") and trial:
            try:
                times = [_timed(trial, n) for n in (1, 1, 4)]  # the first one warms up
            except torch.OutOfMemoryError:
                raise StoreError(f"{what} does not fit into the memory of this GPU: lower its batch.") from None
            hours = (times[2] - times[1]) / 3 * total / 3600
            gb = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0
            processes.say(f"{what}: about {hours:.2f} h" + (f", {gb:.1f} GB of GPU memory" if gb else ""))

    # Diffusion -------------------------------------------------------------------------------

    def diffusion(self, conditional: bool = False) -> Artifact:
        """The trained UNet and its losses; `conditional` on the class for the rival of interpolation."""
        cfg = self.cfg.diffusion
        labels = None
        if conditional and self.train.labelled:  # refuses images of which none has a label
            labels = self.train.labels

        def train(work: Path, settings: config.Diffusion) -> tuple:
            return diffusion.train(settings, self.train.images, self.seed, work, self.precision, labels)

        def trial(n: int) -> None:
            with tempfile.TemporaryDirectory() as work:
                train(Path(work), config.change(cfg, steps=n))

        def make(out: Path, work: Path) -> None:
            if cfg.source and not conditional:
                unet, losses = load_diffusion(cfg.source), np.zeros(0)
            else:
                self._announce("diffusion model", cfg.steps * cfg.batch * 4.4e-3, trial, cfg.steps)
                unet, losses = train(work, cfg)
                if processes.rank() == 0:
                    link_or_copy(work / "log.csv", out / "log.csv")
            training.save_weights(unet, out / SAFETENSORS_WEIGHTS_NAME)
            unet.save_config(out)  # a folder that diffusers reads
            np.save(out / "losses.npy", losses)

        settings = self._settings(cfg, seed=self.seed) | ({"conditional": True} if conditional else {})
        return self.store.get("diffusion", settings, make, (self._key_of_data(),))

    @cached_property
    def unet(self) -> UNet2DModel:
        """The diffusion model in eval mode."""
        return UNet2DModel.from_pretrained(self.diffusion().path).eval().to(training.device())

    @cached_property
    def conditional_unet(self) -> UNet2DModel:
        """The class-conditional model in eval mode."""
        return UNet2DModel.from_pretrained(self.diffusion(conditional=True).path).eval().to(training.device())

    def bank(self, mix_weight: float | None = None, k: int | None = None, conditional: bool = False) -> Artifact:
        """Candidates of every anchor; weight and number default to the profile's.

        `conditional`: samples of the anchor's class instead, which no anchor's features enter.
        """
        changes = {"mix_weight": mix_weight, "k": k}
        cfg = config.change(self.cfg.candidates, **{n: v for n, v in changes.items() if v is not None})
        n, shape = len(self.train), self.train.images.shape[1:]

        def trial(n: int) -> None:
            self._candidates(config.change(cfg, steps=n), conditional)(slice(cfg.batch), self.seed)

        def make(out: Path, work: Path) -> None:
            what = "samples of each class" if conditional else f"candidates, w = {cfg.mix_weight:g}"
            n_batches = -(-n // cfg.batch)
            self._announce(what, n * cfg.k * cfg.steps * 1.5e-3, trial, n_batches * cfg.steps // processes.world())
            if processes.rank() == 0:
                open_bank(work, n, cfg.k, cfg.batch, shape)
            processes.wait_for_all()
            side_by_side = workers.count(n_batches)
            if processes.world() > 1 or side_by_side == 1:
                self._fill(cfg, conditional, work, processes.rank(), processes.world())
            else:
                jobs = [(self._request, cfg, conditional, work, rank, side_by_side) for rank in range(side_by_side)]
                workers.side_by_side(_fill, jobs, "candidates, a part a core")
            processes.wait_for_all()
            if processes.rank() == 0:
                # A second name for it, not a move: a kill before the end of the stage must not lose it.
                link_or_copy(work / "bank.npy", out / "bank.npy")

        settings = self._settings(cfg, seed=self.seed)
        del settings["mix_weight" if conditional else "guidance"]
        return self.store.get("candidates", settings, make, (self.diffusion(conditional).key,))

    def _candidates(self, cfg: config.Candidates, conditional: bool) -> Callable[[slice, int], np.ndarray]:
        """What makes the candidates of some rows of the anchors from a seed."""
        images, labels = self.train.images, self.train.labels
        if conditional:
            return lambda rows, seed: class_samples(
                self.conditional_unet, labels[rows], cfg.k, cfg.steps, cfg.eta, cfg.guidance, seed, self.precision
            )
        return lambda rows, seed: interpolate(
            self.unet, images[rows], cfg.mix_weight, cfg.k, cfg.steps, cfg.eta, seed, self.precision
        )

    def _fill(self, cfg: config.Candidates, conditional: bool, folder: Path, rank: int, world: int) -> None:
        with workers.one_thread():
            fill_bank(folder, self._candidates(cfg, conditional), cfg.batch, self.seed, rank, world)

    def interpolated(self, mix_weight: float, k: int = 1, n: int | None = None) -> np.ndarray:
        """Candidates of the study's first n images (all by default), uint8 `(n, k, H, W, 3)`."""
        cfg, images = self.cfg.study, self.study.images[:n]
        eta = self.cfg.candidates.eta
        settings = {"mix_weight": mix_weight, "k": k, "steps": cfg.steps, "eta": eta, "n": len(images)}

        def make() -> np.ndarray:
            return interpolate(self.unet, images, mix_weight, k, cfg.steps, eta, self.seed, self.precision)

        return self.array("interpolated", settings, make)

    def array(self, name: str, settings: dict, make: Callable[[], np.ndarray]) -> np.ndarray:
        """A result computed from the diffusion model by `make()`, kept in the store.

        `settings` must hold all that shapes the result besides profile data, UNet and seed.
        """
        settings = settings | {"name": name, "seed": self.seed, "precision": self.precision}
        artifact = self.store.get(
            "arrays", settings, lambda out, work: np.save(out / "array.npy", make()), (self.diffusion().key,)
        )
        return np.load(artifact / "array.npy")

    # Encoders --------------------------------------------------------------------------------

    def settings_of(self, method: str, seed: int | None = None, **changes) -> config.Pretrain:
        """The profile's settings for `method`, with `changes` to single ones."""
        base = getattr(self.cfg, METHODS[method].settings)
        return config.change(base, method=method, seed=self.seed if seed is None else seed, **changes)

    def untrained(self) -> Encoder:
        """The encoder that SimCLR starts from."""
        return build(self.settings_of("SimCLR"), 0).encoder.eval()

    def _encoder(self, method: str, seed: int | None = None, bank: Artifact | None = None, **changes) -> tuple:
        """What the store needs to know of an encoder: settings, how to make it, keys of its inputs."""
        cfg = self.settings_of(method, seed, **changes)
        recipe = METHODS[method]
        anchors = self.train.labelled if recipe.needs_labels else self.train
        if recipe.needs_bank:
            bank = bank or self.bank(conditional=recipe.third == "class")

        def train(work: Path, settings: config.Pretrain, n: int | None = None) -> tuple:
            candidates = np.load(bank / "bank.npy", mmap_mode="r")[:n] if bank else None
            with workers.one_thread():
                return pretrain(
                    settings, anchors.images[:n], anchors.labels[:n], self.statistics, work, self.precision,
                    candidates, self._watch if (anchors.labels >= 0).any() else None,
                )

        def trial(n: int) -> None:
            with tempfile.TemporaryDirectory() as work:
                train(Path(work), config.change(cfg, epochs=1, watch_every=0), n * cfg.batch)

        def make(out: Path, work: Path) -> None:
            n_images = cfg.epochs * len(anchors)
            self._announce(method, n_images * 6.5e-4, trial, n_images // cfg.batch)
            encoder, losses = train(work, cfg)
            training.save_weights(encoder, out / "encoder.safetensors")
            np.save(out / "losses.npy", losses)
            if processes.rank() == 0:
                link_or_copy(work / "log.csv", out / "log.csv")

        settings = self._settings(cfg)
        for name in ("watch_every", *recipe.ignores):
            del settings[name]
        return settings, make, (self._key_of_data(), *([bank.key] if bank else []))

    def _watch(self, backbone: torch.nn.Module) -> float:
        """kNN accuracy within the training images, of which a fifth is held out."""
        anchors = self.train.labelled
        features = evaluate.run_network(backbone, anchors.images, self.statistics, self.precision)
        return evaluate.held_out_knn(features, anchors, (20,))[20]

    def encoder(self, method: str, seed: int | None = None, bank: Artifact | None = None, **changes) -> Artifact:
        """An encoder trained by `method`, the methods with synthetic positives from `bank`."""
        return self.store.get("encoder", *self._encoder(method, seed, bank, **changes))

    def _side_by_side(self, runs: Sequence[dict]) -> None:
        """Makes the scores of those `runs` whose encoders the store lacks, one process a core."""
        missing = []
        for run in runs:
            settings, _, inputs = self._encoder(**run)
            if not self.store.find("encoder", settings, inputs):
                missing.append(run)
        if workers.count(len(missing)) > 1:  # else they are made where they are asked for
            images = len(missing) * missing[0].get("epochs", self.cfg.simclr.epochs) * len(self.train)
            self._announce(f"{len(missing)} encoders", images * 3e-4)
            workers.side_by_side(_score, [(self._request, run) for run in missing], "runs")

    def load_encoder(self, method: str, artifact: Artifact) -> Encoder:
        """The trained network of an encoder artifact, in eval mode."""
        encoder = build(self.settings_of(method), int(self.train.labels.max()) + 1).encoder
        encoder.load_state_dict(load_file(artifact / "encoder.safetensors"))
        return encoder.eval()

    def scores(self, method: str, seed: int, bank: Artifact | None = None, **changes) -> dict:
        """`{"method", "seed", "linear", "knn", "k", "seconds"}`: top-1 in [0, 1], time of training."""
        artifact = self.encoder(method, seed, bank, **changes)

        def make(out: Path, work: Path) -> None:
            backbone = self.load_encoder(method, artifact).backbone
            flip = self.settings_of(method, seed, **changes).views.p_flip > 0  # where mirroring keeps the class
            result = evaluate.score(
                backbone, self.train, self.test, self.statistics, self.cfg.probe, seed, self.precision, flip
            )
            (out / "scores.json").write_text(json.dumps(result))

        scores = self.store.get("scores", self._settings(self.cfg.probe, seed=seed), make, (artifact.key,))
        result = json.loads((scores / "scores.json").read_text())
        return {"method": method, "seed": seed} | result | {"seconds": artifact.manifest["seconds"]}

    def comparison(self, methods: Sequence[str], **changes) -> pd.DataFrame:
        """Scores of every method on every seed of the study, a row a run."""
        seeds = range(self.seed, self.seed + self.cfg.study.seeds)
        runs = [{"method": method, "seed": seed} | changes for seed in seeds for method in methods]
        self._side_by_side(runs)
        return pd.DataFrame([self.scores(**run) for run in runs])

    def sweep(self, field: str, values: Sequence[float], method: str = "CLSP-SimCLR") -> pd.DataFrame:
        """Scores of a CLSP method over "mix_weight", "k" or "clsp_weight" (lambda), a row a run.

        The column `field` holds the value, `agreement` that of the bank it was trained on.
        """
        cfg = self.cfg.study
        of_bank = {"mix_weight": {"k": cfg.sweep_k}, "k": {}}
        if field not in (*of_bank, "clsp_weight"):
            raise config.ConfigError(f"field={field!r}: use one of mix_weight, k, clsp_weight.")
        seeds = range(self.seed, self.seed + cfg.sweep_seeds)
        banks, runs = {}, {}
        for value in tqdm(values, "banks", leave=False):
            banks[value] = self.bank(**of_bank[field], **{field: value}) if field in of_bank else self.bank()
            changes = {} if field in of_bank else {field: value}
            for seed in seeds:
                runs[value, seed] = {"method": method, "seed": seed, "bank": banks[value]} | changes
        self._side_by_side(list(runs.values()))
        first = {value: np.load(bank / "bank.npy", mmap_mode="r")[:, 0] for value, bank in banks.items()}
        agreement = {value: self.agreement(images, self.train.labels) for value, images in first.items()}
        return pd.DataFrame([
            self.scores(**run) | {field: value, "agreement": agreement[value]} for (value, _), run in runs.items()
        ])

    @cached_property
    def classifier(self) -> Encoder:
        """Supervised on the training split; judges which class an image shows."""
        return self.load_encoder("supervised", self.encoder("supervised"))

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Class of each image, uint8 `(N, H, W, 3)` to `(N,)`."""
        logits = evaluate.run_network(self.classifier, images, self.statistics, self.precision)
        return logits.argmax(1).numpy()

    def agreement(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of images that the classifier gives `labels`; those without a label (-1) do not count."""
        known = labels >= 0
        return float((self.classify(images[known]) == labels[known]).mean())
