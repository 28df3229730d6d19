"""Stages that begin with a frozen encoder's representation of the anchors: RCG and RCG-cluster."""

from collections.abc import Callable
from typing import Any

import numpy as np

from clsp_utils.config import (
    ClassSampling,
    Clustering,
    ConfigError,
    Count,
    Precision,
    RepresentationSampling,
    Seed,
    change,
    frozen,
)
from clsp_utils.pipeline.stage import Job, Stage
from clsp_utils.pipeline.stages import (
    Bank,
    ConditionalDiffusion,
    Pretrained,
    samples_of_conditions,
)
from clsp_utils.store import Artifact


@frozen
class Representation(Stage, name="representation"):
    """What a finished, frozen SimCLR encoder says of each anchor: standardised, fp32 `(N, D)`."""

    encoder: Pretrained
    precision: Precision

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Takes the profile's SimCLR encoder."""
        return {"encoder": profile.stage(Pretrained, method="SimCLR")} | given

    def make(self, job: Job) -> None:
        from clsp_utils.evaluation import extract_features
        from clsp_utils.positives import standardise

        data, backbone = self.encoder.data, job.get(self.encoder).backbone
        f = extract_features(backbone, data.train.images, data.statistics, self.precision)
        np.save(job.out / "r.npy", standardise(f.numpy()))

    def stand_in(self) -> np.ndarray:
        n, n_features = len(self.encoder.data.train), self.encoder.untrained().backbone.n_features
        return np.zeros((n, n_features), np.float32)

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "r.npy")


@frozen
class Clusters(Stage, Clustering, name="clusters"):
    """The cluster of each anchor, int64 `(N,)`, by k-means on the representations."""

    representation: Representation
    seed: Seed

    def check(self) -> None:
        n = len(self.representation.encoder.data.train)
        if self.n_clusters > n:
            raise ConfigError(f"clusters.n_clusters={self.n_clusters} must be at most {n} anchors.")

    def make(self, job: Job) -> None:
        from clsp_utils.positives import cluster

        r = job.get(self.representation)
        np.save(job.out / "clusters.npy", cluster(r, self.n_clusters, self.seed))

    def stand_in(self) -> np.ndarray:
        return np.arange(len(self.representation.encoder.data.train)) % self.n_clusters

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "clusters.npy")


# diffusion ----------------------------------------------------------------------------------------


@frozen
class RepresentationDiffusion(ConditionalDiffusion, name="representation-diffusion"):
    """The UNet conditioned on r (arXiv 2312.03701)."""

    representation: Representation

    def condition(self, get: Callable[[Stage], Any]) -> np.ndarray:
        return get(self.representation)

    def load(self, artifact: Artifact) -> Any:
        """The UNet in eval mode, on the device."""
        from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
        from safetensors.torch import load_file

        from clsp_utils.diffusion import build_unet
        from clsp_utils.runtime import to_device

        weights = load_file(artifact / SAFETENSORS_WEIGHTS_NAME)
        n_features = weights["class_embedding.weight"].shape[1]  # diffusers knows of no such W
        unet = build_unet(self.unet, self.data.size, 0, n_features, self.beta_end)
        unet.load_state_dict(weights)
        return to_device(unet.eval())


@frozen
class ClusterDiffusion(ConditionalDiffusion, name="cluster-diffusion"):
    """The UNet conditioned on the cluster."""

    clusters: Clusters

    def condition(self, get: Callable[[Stage], Any]) -> np.ndarray:
        return get(self.clusters)


# positives ----------------------------------------------------------------------------------------


@frozen
class RcgBank(Bank, RepresentationSampling, name="rcg-candidates", view="representation"):
    """Samples of the anchor's representation, from pure noise."""

    unet: RepresentationDiffusion

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        return samples_of_conditions(self, job)


@frozen
class ClusterBank(Bank, ClassSampling, name="cluster-candidates", view="cluster"):
    """Samples of the anchor's cluster."""

    unet: ClusterDiffusion

    def sampler(self, job: Job) -> Callable[[slice, int], np.ndarray]:
        return samples_of_conditions(self, job)


@frozen
class AnchorSamples(Stage, name="anchor-samples"):
    """k candidates of each of n anchors, made as a bank's: uint8 `(n, k, H, W, 3)`.

    Classes take turns, in the order of `data.by_class`.
    """

    bank: Bank
    n: Count
    k: Count

    def make(self, job: Job) -> None:
        from clsp_utils.data import by_class
        from clsp_utils.runtime import seed_for

        rows = by_class(self.bank.unet.data.train.labels)[: self.n]
        bank = change(self.bank, k=self.k)
        if bank.source:
            samples = bank.read()[rows]
        else:
            sample: Callable[[Any, int], np.ndarray] = bank.sampler(job)
            samples = sample(rows, seed_for(bank.seed, "anchor samples"))
        np.save(job.out / "samples.npy", samples)

    def load(self, artifact: Artifact) -> np.ndarray:
        return np.load(artifact / "samples.npy")
