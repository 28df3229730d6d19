"""Stages that measure an encoder beyond `Scores`: on other data, with few labels or none."""

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clsp_utils.config import (
    Count,
    FewLabels,
    LogisticProbe,
    Precision,
    Probe,
    Transfer,
    TransferName,
    frozen,
    validate,
)
from clsp_utils.pipeline.stage import Job, Stage
from clsp_utils.pipeline.stages import READ, Pretrained
from clsp_utils.store import Artifact

if TYPE_CHECKING:
    from clsp_utils.data import Splits


@frozen
class TransferSet(Stage, Transfer, name="transfer"):
    """Another data set. Nothing is made of it; it counts by its content."""

    made = False
    name: TransferName
    size: Count  # pixels a side, as of the images that encoders are trained on

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Takes the first that the study names, at the size of the data."""
        return {"name": profile.study.transfer[0], "size": profile.data.size} | given

    def content(self) -> dict[str, Any]:
        from clsp_utils.data import fingerprint

        return fingerprint(*self.splits)

    @property
    def splits(self) -> "Splits":
        """Training, validation and test images, or a DataError if they are not there."""
        return _load(self)


@lru_cache(maxsize=2)  # a set is read once for all encoders, if these come one after the other
def _load(images: TransferSet) -> "Splits":
    from clsp_utils.data import load_transfer

    return load_transfer(images.name, images, images.size)


READ.append(_load)


@frozen
class OfEncoder(Stage):
    """What is measured of an encoder, or of the network that its training starts from."""

    encoder: Pretrained
    trained: bool
    precision: Precision

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """A method that is given is meant for the encoder."""
        meant = {name: given[name] for name in ("method", "seed") if name in given}
        own = {name: value for name, value in given.items() if name not in meant}
        if "encoder" not in own:
            own["encoder"] = profile.stage(Pretrained, **meant)
        return {"trained": True} | own

    def backbone(self, job: Job) -> Any:
        """The backbone, in eval mode."""
        return (job.get(self.encoder) if self.trained else self.encoder.untrained()).backbone

    def load(self, artifact: Artifact) -> dict[str, Any]:
        return json.loads((artifact / "scores.json").read_text())


@frozen
class TransferScores(OfEncoder, LogisticProbe, name="transfer-scores", section="logistic"):
    """Accuracy on another data set, in [0, 1], and the C that was chosen: `{"score", "c"}`."""

    images: TransferSet

    def make(self, job: Job) -> None:
        from clsp_utils.data import scored_per_class
        from clsp_utils.evaluation import accuracy, mean_per_class, transfer_score

        metric = mean_per_class if scored_per_class(self.images.name) else accuracy
        how = self.encoder.data.statistics, self, metric, self.precision
        result = transfer_score(self.backbone(job), self.images.splits, *how)
        (job.out / "scores.json").write_text(json.dumps(result))


@frozen
class Measures(OfEncoder, FewLabels, name="measures", section="few_labels"):
    """Top-5, few labels, RankMe, alignment and uniformity, on the encoder's own data."""

    probe: Probe

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Takes the probe from the profile too."""
        probe = validate(Probe, profile.tree["probe"], "probe")
        return super().plan(profile, {"probe": probe} | given)

    def check(self) -> None:
        _ = self.encoder.data.labelled  # refuses images of which too few have a label

    def make(self, job: Job) -> None:
        from clsp_utils.evaluation import measure

        one = self.encoder
        result = measure(
            self.backbone(job), one.data.train, one.data.test, one.data.statistics,
            one.settings.views, self.probe, self, one.seed, self.precision,
        )  # fmt: skip
        (job.out / "scores.json").write_text(json.dumps(result))
