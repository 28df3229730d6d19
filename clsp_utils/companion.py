"""What notebooks ask for: one profile, one seed, one store, and everything made from them.

Each method returns a result from the store, or makes it and all that it needs first. The key of a
result holds exactly the settings that shaped it and the keys of what it was made from.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from clsp_utils import config, data, diffusion, evaluate, training, workers
from clsp_utils.artifacts import Artifact, Store
from clsp_utils.candidates import fill_bank, interpolate, open_bank
from clsp_utils.config import home
from clsp_utils.encoders import Encoder
from clsp_utils.pretrain import METHODS, build, pretrain

COMPARED = ("SimCLR", "third view", "CLSP-SimCLR", "MoCoV2", "CLSP-MoCoV2")


def reported_results() -> pd.DataFrame:
    """What the authors report (linear top-1, percent): source, dataset, method, backbone, top1."""
    return pd.read_csv(Path(__file__).with_name("reported_results.csv"), comment="#")


def _score(request: tuple, run: dict) -> None:
    Companion(*request).scores(**run)


def _fill_bank(request: tuple, cfg: config.Candidates, folder: Path, rank: int, world: int) -> None:
    Companion(*request)._fill_bank(cfg, folder, rank, world)


class Companion:
    """One profile, one seed and one store.

    Args:
        profile: name of a profile, see `config.PROFILES`.
        seed: seeds the diffusion model, the bank, and the first of the encoders.
        overrides: single settings, see `config.profile`.

    Raises:
        config.ConfigError: a name, type or range is wrong.
        artifacts.StoreError: the store cannot be written.
    """

    def __init__(self, profile: str = "laptop", seed: int = 0, overrides: str = ""):
        self.cfg = config.profile(profile, overrides)
        self.seed = config.validate(config.Seed, seed, "seed")
        self._request = (profile, seed, overrides)
        self.precision = training.resolve_precision(self.cfg.precision)
        self.store = Store(home("artifacts"))
        # figures/ holds what the laptop profile draws as it is; all else is a build product.
        plain = self.cfg == config.PROFILES["laptop"] and self.seed == 0
        self.figures = home("figures") if plain else home("build", profile, "figures")
        self.note = "smoke" if profile == "smoke" else ""
        print(f"profile {profile}, seed {seed}, {self.precision}, {torch.get_num_threads()} threads.")

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
    def statistics(self) -> tuple:
        """Mean and standard deviation of the anchors, a channel at a time, in [0, 1]."""
        return self.train.statistics

    @property
    def study(self) -> data.Images:
        """The test images that the curves over w, and the masks, are measured on."""
        order = np.random.default_rng(0).permutation(len(self.test))
        return self.test[order[: self.cfg.study.samples]]

    def _key_of_data(self) -> str:
        return Store.key("data", config.as_dict(self.cfg.data))

    def _settings(self, settings, **more) -> dict:
        return config.as_dict(settings) | {"precision": self.precision} | more

    def _announce(self, what: str, seconds: float) -> None:
        """Says before a long computation how long it took where the laptop profile was measured."""
        if self.cfg.name == "laptop":
            print(f"{what}: about {max(seconds / 60, 0.1):.1f} min on two cores with bf16", flush=True)

    # Diffusion -------------------------------------------------------------------------------

    def diffusion(self) -> Artifact:
        """The trained UNet and its losses."""
        cfg = self.cfg.diffusion

        def make(out: Path, work: Path) -> None:
            self._announce("diffusion model", cfg.steps * cfg.batch * 4.4e-3)
            unet, losses = diffusion.train(cfg, self.train.images, self.seed, work, self.precision)
            save_file(unet.state_dict(), out / "unet.safetensors")
            np.save(out / "losses.npy", losses)

        settings = self._settings(cfg, seed=self.seed)
        return self.store.get("diffusion", settings, make, (self._key_of_data(),))

    @cached_property
    def unet(self) -> UNet2DModel:
        """The diffusion model in eval mode."""
        unet = diffusion.build_unet(self.cfg.diffusion.unet, self.cfg.data.size)
        unet.load_state_dict(load_file(self.diffusion() / "unet.safetensors"))
        return unet.eval()

    def bank(self, mix_weight: float | None = None, k: int | None = None) -> Artifact:
        """Candidates of every anchor; weight and number default to the profile's."""
        changes = {"mix_weight": mix_weight, "k": k}
        cfg = config.change(self.cfg.candidates, **{n: v for n, v in changes.items() if v is not None})

        def make(out: Path, work: Path) -> None:
            self._announce(f"candidates, w = {cfg.mix_weight:g}", len(self.train) * cfg.k * cfg.steps * 1.5e-3)
            open_bank(work, len(self.train), cfg, self.train.images.shape[1:])
            world = workers.count(-(-len(self.train) // cfg.batch))
            if world == 1:
                self._fill_bank(cfg, work)
            else:
                jobs = [(self._request, cfg, work, rank, world) for rank in range(world)]
                workers.side_by_side(_fill_bank, jobs, "candidates, a part a core")
            (work / "bank.npy").rename(out / "bank.npy")

        settings = self._settings(cfg, seed=self.seed)
        return self.store.get("candidates", settings, make, (self.diffusion().key,))

    def _fill_bank(self, cfg: config.Candidates, folder: Path, rank: int = 0, world: int = 1) -> None:
        with workers.one_thread():
            fill_bank(folder, self.unet, self.train.images, cfg, self.seed, self.precision, rank, world)

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
        return build(self.settings_of("SimCLR"), len(self.train.class_names)).encoder.eval()

    def _encoder(self, method: str, seed: int | None = None, bank: Artifact | None = None, **changes) -> tuple:
        """What the store needs to know of an encoder: settings, how to make it, keys of its inputs."""
        cfg = self.settings_of(method, seed, **changes)
        if METHODS[method].third == "synthetic":
            bank = bank or self.bank()

        def make(out: Path, work: Path) -> None:
            candidates = np.load(bank / "bank.npy", mmap_mode="r") if bank else None
            with workers.one_thread():
                encoder, losses = pretrain(
                    cfg, self.train.images, self.train.labels, self.statistics, work, self.precision, candidates
                )
            save_file(encoder.state_dict(), out / "encoder.safetensors")
            np.save(out / "losses.npy", losses)

        settings = self._settings(cfg)
        for name in METHODS[method].ignores:
            del settings[name]
        return settings, make, (self._key_of_data(), *([bank.key] if bank else []))

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
            self._announce(f"{len(missing)} encoders", images * 3.2e-4)
            workers.side_by_side(_score, [(self._request, run) for run in missing], "runs")

    def load_encoder(self, method: str, artifact: Artifact) -> Encoder:
        """The trained network of an encoder artifact, in eval mode."""
        encoder = build(self.settings_of(method), len(self.train.class_names)).encoder
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

    def sweep(self, mix_weights: Sequence[float]) -> pd.DataFrame:
        """CLSP-SimCLR over the mix weight of its bank, and the agreement of each bank."""
        cfg = self.cfg.study
        banks = {w: self.bank(w, cfg.sweep_k) for w in tqdm(mix_weights, "banks", leave=False)}
        seeds = range(self.seed, self.seed + cfg.sweep_seeds)
        runs = {(w, seed): {"method": "CLSP-SimCLR", "seed": seed, "bank": banks[w]} for w in banks for seed in seeds}
        self._side_by_side(list(runs.values()))
        first = {w: np.load(bank / "bank.npy", mmap_mode="r")[:, 0] for w, bank in banks.items()}
        agreement = {w: self.agreement(images, self.train.labels) for w, images in first.items()}
        return pd.DataFrame([
            self.scores(**run) | {"w": w, "agreement": agreement[w]} for (w, _), run in runs.items()
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
        """Share of images that the classifier gives `labels`."""
        return float((self.classify(images) == labels).mean())
