"""What CONTRIBUTING.md promises to who brings a stage, a method or a kind of positive."""

import sys
from types import ModuleType
from typing import Self

import numpy as np
import pytest
from least_work import QUICK, equal
from pydantic import model_validator

from clsp_utils import __main__ as command_line
from clsp_utils.config import (
    CONTRASTIVE,
    METHODS,
    ConfigError,
    Count,
    Positive,
    Recipe,
    Sampling,
    Share,
    Training,
    as_dict,
    frozen,
    local,
)
from clsp_utils.pipeline import (
    Bank,
    Companion,
    Dataset,
    DiffusionModel,
    Pretrained,
    Profile,
    Scores,
    Stage,
    comparison,
)


@pytest.fixture(autouse=True)
def _nothing_stays():
    """What a test declares is forgotten at its end."""
    registers = [(known, dict(known)) for known in (Stage.kinds, Bank.of_view, METHODS)]
    yield
    for known, before in registers:
        known.clear()
        known.update(before)


# A stage ------------------------------------------------------------------------------------------


@pytest.fixture
def made():
    return []


@pytest.fixture
def own_stage(made):
    @frozen
    class Brightness(Stage, name="own-stage"):
        """How bright the anchors are."""

        data: Dataset
        scale: Positive = 1.0
        first: Count = 10
        shown: Share = local(default=0.5)

        def make(self, job):
            made.append(self)
            mean = self.scale * self.data.train.images[: self.first].mean()
            np.save(job.out / "brightness.npy", mean)

        def load(self, artifact):
            return float(np.load(artifact / "brightness.npy"))

    return Brightness


def test_the_section_of_an_own_stage_is_in_the_profile(own_stage):
    profile = Profile("smoke")
    assert profile.tree["own_stage"] == {"scale": 1.0, "first": 10, "shown": 0.5}
    assert isinstance(profile.own_stage, own_stage) and profile.own_stage.first == 10
    assert profile.stage(own_stage) == profile.own_stage
    assert profile.own_stage.data == profile.data
    assert profile.stage(own_stage, first=3).first == 3


@pytest.mark.parametrize("section", ["own-stage", "own_stage"])
def test_overrides_reach_an_own_stage_and_are_checked(own_stage, section):
    assert Profile("smoke", {f"{section}.first": 3}).own_stage.first == 3
    with pytest.raises(ConfigError, match=r"own_stage.first=0: input should be greater"):
        Profile("smoke", {f"{section}.first": 0})
    with pytest.raises(ConfigError, match=r"the fields of own_stage being first, scale, shown"):
        Profile("smoke", {f"{section}.last": 3})


def test_an_own_stage_is_made_once_and_found_again(home, own_stage, made):
    c = Companion("smoke", 0, QUICK)
    mean = c.data.train.images[:10].mean()
    assert c.get(own_stage) == pytest.approx(mean) and len(made) == 1
    other = Companion("smoke", 0, QUICK | {"own_stage.shown": 0.1, "candidates.k": 2})
    assert other.get(own_stage) == c.get(own_stage) and len(made) == 1
    assert c.get(own_stage, scale=2.0) == pytest.approx(2 * mean) and len(made) == 2
    artifact = c.artifact(own_stage)
    assert artifact.path.parent == home / "artifacts" / "own-stage"
    assert artifact.manifest["config"] == {"scale": 1.0, "first": 10}
    assert artifact.manifest["inputs"] == [c.data.request.key]


@pytest.mark.parametrize("section", ["own-stage", "own_stage"])
def test_the_command_line_knows_an_own_stage(home, own_stage, made, capsys, section):
    command = ["stage", "own-stage", "--profile", "smoke", "-p", f"{section}.first=3"]
    assert command_line.main(command) == 0
    (path,) = (home / "artifacts" / "own-stage").glob("[0-9a-f]*")
    assert capsys.readouterr().out.endswith(f"own-stage: {path}\n")
    assert [one.first for one in made] == [3]
    assert command_line.main(["stage", "nonsense"]) == 2
    assert "own-stage" in capsys.readouterr().err
    assert command_line.main([*command[:-1], f"{section}.first=0"]) == 2
    assert "own_stage.first=0" in capsys.readouterr().err


# A method -----------------------------------------------------------------------------------------


@pytest.fixture
def own_method(monkeypatch):
    """A method "Own" in its own module: views of one image become alike, others unlike."""
    from clsp_utils.contrastive import Method

    @frozen
    class Settings(Training):
        """One more than all have."""

        spread: Positive = 0.5

        @model_validator(mode="after")
        def _not_too_large(self) -> Self:
            if self.spread > 10:
                raise ValueError(f"spread={self.spread} must be at most 10")
            return self

    class Own(Method):
        def __init__(self, cfg, n_classes):
            super().__init__(cfg)
            self.spread = cfg.spread

        def contrast(self, batch):
            one, other = batch.z[:2]
            return 1 - (one * other).sum(1).mean() + self.spread * (one @ other.T).square().mean()

    module = ModuleType("clsp_utils.contrastive.methods.own")
    module.Own = Own
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for room in ("config.methods", "pipeline.profile"):
        monkeypatch.setattr(f"clsp_utils.{room}.CONTRASTIVE", (*CONTRASTIVE, "own"))
    METHODS["Own"] = Recipe("own.Own", "own", Settings)
    return Settings


def test_the_settings_of_an_own_method_are_a_section_of_the_profile(own_method):
    profile = Profile("smoke", {"own.spread": 0.25, "pretrain.lr": 0.3})
    assert isinstance(profile.own, own_method)
    assert (profile.own.spread, profile.own.lr) == (0.25, 0.3)
    assert profile.own.backbone == profile.simclr.backbone  # the smoke profile's, by "pretrain"
    assert profile.tree["own"] == as_dict(profile.own)
    with pytest.raises(ConfigError, match=r"own: spread=11.0 must be at most 10"):
        Profile("smoke", {"own.spread": 11})


def test_an_own_method_is_trained_scored_and_compared(home, own_method):
    c = Companion("smoke", 0, QUICK)
    encoder, losses = c.get(Pretrained, method="Own"), c.artifact(Pretrained, method="Own")
    untrained = c.stage(Pretrained, method="Own").untrained()
    assert np.isfinite(np.load(losses / "losses.npy")).all()
    assert not equal(encoder, untrained)
    assert equal(encoder, Companion("smoke", 0, QUICK).get(Pretrained, method="Own"))
    assert losses.manifest["config"]["settings"]["spread"] == 0.5
    assert not (home / "artifacts" / "candidates").exists()
    table = comparison(c, ["Own"])
    assert table["linear"].between(0, 1).all() and len(table) == c.cfg.study.seeds
    methods = {"study.methods": ("SimCLR", "CLSP-SimCLR", "Own")}
    assert Profile("smoke", methods).study.methods[-1] == "Own"


# A kind of positive -------------------------------------------------------------------------------


@pytest.fixture
def own_positive(made):
    @frozen
    class Mirrored(Sampling):
        """One more than all have."""

        shift: Count = 1

    @frozen
    class MirroredBank(Bank, Mirrored, name="mirrored-candidates", view="mirrored"):
        """The anchors, mirrored and moved."""

        unet: DiffusionModel

        def sampler(self, job):
            images = self.unet.data.train.images

            def sample(rows, seed):
                made.append(rows)
                moved = np.roll(images[rows, :, ::-1], self.shift, axis=2)
                return np.repeat(moved[:, None], self.k, axis=1)

            return sample

    METHODS["Mirrored-SimCLR"] = Recipe(
        "simclr.SimCLR", "simclr", METHODS["SimCLR"].settings, ("anchor", "anchor", "mirrored")
    )
    return MirroredBank


OWN = QUICK | {"mirrored-candidates.k": 2, "mirrored-candidates.batch": 100}


def test_an_own_kind_of_positive_fills_a_bank(home, own_positive, made):
    c = Companion("smoke", 0, OWN)
    bank = c.get(own_positive)
    expected = np.roll(c.data.train.images[:, :, ::-1], 1, axis=2)
    assert bank.shape == (256, 2, 16, 16, 3) and len(made) == 3
    assert np.array_equal(bank[:, 0], expected) and np.array_equal(bank[:, 1], expected)
    c.get(own_positive)
    assert len(made) == 3
    assert c.cfg.mirrored_candidates == c.stage(own_positive)
    command = ["stage", "mirrored-candidates", "--profile", "smoke"]
    assert command_line.main([*command, *(f"-p{name}={value}" for name, value in OWN.items())]) == 0
    assert len(made) == 3  # it has found it


def test_a_method_is_trained_on_an_own_kind_of_positive(home, own_positive, made):
    c = Companion("smoke", 0, OWN)
    stage = c.stage(Pretrained, method="Mirrored-SimCLR")
    assert isinstance(stage.bank, own_positive) and stage.bank == c.stage(own_positive)
    assert stage.settings.third_view == c.cfg.simclr.third_view
    losses = np.load(c.artifact(Pretrained, method="Mirrored-SimCLR") / "losses.npy")
    others = np.load(c.artifact(Pretrained, method="third view") / "losses.npy")
    assert len(made) == 3 and np.isfinite(losses).all() and not np.array_equal(losses, others)
    further = Companion("smoke", 0, OWN | {"mirrored_candidates.shift": 2})
    assert further.stage(Pretrained, method="Mirrored-SimCLR").request.key != stage.request.key
    assert c.stage(Scores, method="Mirrored-SimCLR").encoder == stage
    # The other kinds keep their views.
    assert c.stage(Pretrained, method="CLSP-SimCLR").bank.view == "synthetic"


def test_a_method_with_an_own_view_asks_for_its_bank(own_positive, tmp_path):
    from clsp_utils.contrastive import pretrain

    c = Companion("smoke", 0, OWN)
    train = c.data.train
    with pytest.raises(ValueError, match="'Mirrored-SimCLR' needs a candidate bank"):
        pretrain(
            "Mirrored-SimCLR", c.cfg.simclr, train.images, train.labels, c.data.statistics, 0,
            tmp_path, "fp32",
        )  # fmt: skip


def test_a_bank_says_of_which_view_it_is():
    with pytest.raises(TypeError, match="view"):

        class Nameless(Bank, name="nameless"):
            pass
