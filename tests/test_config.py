"""Settings: what is refused, with which words, and what the environment files promise."""

import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from clsp_utils.config import LAPTOP, PROFILES, SMOKE, ConfigError, home, profile

ROOT = Path(__file__).parents[1]

# override -> what the message must show of it
REFUSED = {
    "nosuch=1": "nosuch=1",
    "candidates.nosuch=1": "candidates.nosuch=1",
    "nosuch.k=1": "nosuch.k=1",
    "candidates.k.x=1": "candidates.k.x=1",
    "candidates=1": "candidates=1",
    "candidates.k": "candidates.k",
    "candidates.k:4": "candidates.k:4",
    "=3": "=3",
    "name=smoke": "name=smoke",
    "candidates.mix_weight=1.5": "mix_weight=1.5",
    "candidates.mix_weight=-0.1": "mix_weight=-0.1",
    "candidates.mix_weight=nan": "nan",
    "candidates.mix_weight=1e999": "inf",
    "simclr.lr=inf": "inf",
    "simclr.lr=0": "lr=0",
    "simclr.temperature=-0.2": "temperature=-0.2",
    "simclr.seed=-1": "seed=-1",
    "simclr.method=BYOL": "BYOL",
    "simclr.batch=256 simclr.queue=255": "queue=255",
    "moco.batch=4096": "batch=4096",
    "simclr.views.hue=0.6": "hue=0.6",
    "simclr.views.crop_area=(0.9,0.2)": "(0.9, 0.2)",
    "simclr.views.crop_area=(0.2,)": "(0.2,)",
    "simclr.encoder.layers=(1,1,1,1,1)": "(1, 1, 1, 1, 1)",
    "simclr.encoder.block=wide": "wide",
    "candidates.k=0": "k=0",
    "candidates.k=2.5": "k=2.5",
    "candidates.k=two": "two",
    "candidates.k=None": "None",
    "candidates.k=(4,)": "(4,)",
    "candidates.steps=7": "steps=7",
    "study.steps=300": "steps=300",
    "study.seeds=1": "seeds=1",
    "study.mix_weights=(0.1,1.5)": "1.5",
    "study.mix_weights=()": "()",
    '''study.methods="('MoCoV2','CLSP-MoCoV2')"''': "must hold 'SimCLR' and 'CLSP-SimCLR'",
    '''study.methods="('SimCLR','SimCLR','CLSP-SimCLR')"''': "each name once",
    "diffusion.unet.channels=(30,96)": "(30, 96)",
    "diffusion.unet.channels=()": "()",
    "diffusion.unet.channels=32": "32",
    "diffusion.unet.groups=0": "groups=0",
    "diffusion.flip=2": "flip=2",
    "diffusion.second_noise=0.97": "second_noise=0.97",  # with silent_middle more than the batch
    "diffusion.warmup=1e-3": "0.001",
    "data.size=17": "size=17",
    "data.size=4": "size=4",
    "data.limit=10": "limit=10",
    "diffusion.unet.channels=(32,32,32,32,32)": "size=16",  # 16 pixels cannot be halved four times
    "data.name=cifar": "cifar",
    "data.path=/x": "path='/x'",  # the digits have none
    "data.name=folder": "path=''",
    "data.name=imagenet100 data.wnids=/list": "path=''",
    "data.name=imagenet100 data.path=/x": "wnids=''",
    "data.name=folder data.path=/x data.wnids=/list": "wnids='/list'",
    "data.name=cifar10 data.path=3": "path=3",
    "data.evaluate_on=train": "train",
    "precision=fp16": "fp16",
    "candidates.k=4 candidates.eta=3": "eta=3",  # a good one before it does not hide it
}


@pytest.mark.parametrize("override", REFUSED)
def test_bad_override_is_refused_by_value(override):
    with pytest.raises(ConfigError) as refusal:
        profile("laptop", override)
    message = str(refusal.value)
    assert REFUSED[override] in message
    # one sentence that starts with the name of what is wrong
    assert re.fullmatch(r"[a-z][^\n]*\.", message)


def test_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'huge'.*gpu, laptop, paper, smoke"):
        profile("huge")


@pytest.mark.parametrize("override, field, value", [
    ("candidates.k=4", "candidates.k", 4),
    ("candidates.mix_weight=0", "candidates.mix_weight", 0.0),
    ("candidates.mix_weight=1", "candidates.mix_weight", 1.0),
    ("diffusion.lr=1e-3", "diffusion.lr", 0.001),
    ("diffusion.lr='1e-3'", "diffusion.lr", 0.001),
    ("diffusion.flip=True", "diffusion.flip", True),
    ("simclr.encoder.layers=(2,2)", "simclr.encoder.layers", (2, 2)),
    ("simclr.encoder.layers=(2, 2)", "simclr.encoder.layers", (2, 2)),
    ("probe.neighbours=[5,  10]", "probe.neighbours", (5, 10)),
    ("data.evaluate_on=validation", "data.evaluate_on", "validation"),
    ("data.name=cifar10 data.size=32", "data.name", "cifar10"),
    ("data.name=folder data.path='/my photos'", "data.path", "/my photos"),
    ("data.name=imagenet100 data.path=/x data.wnids=/list", "data.wnids", "/list"),
    ("candidates.k=4 candidates.k=5", "candidates.k", 5),
    ("simclr.batch=4096;simclr.queue=4096", "simclr.queue", 4096),
    ("diffusion.unet.channels=(30,96) diffusion.unet.groups=6", "diffusion.unet.groups", 6),
])
def test_good_override_sets_its_field(override, field, value):
    found = profile("laptop", override)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


def test_override_changes_nothing_else():
    changed = profile("smoke", "candidates.k=7")
    assert changed == dataclasses.replace(SMOKE, candidates=dataclasses.replace(SMOKE.candidates, k=7))
    assert profile("smoke") == SMOKE != profile("laptop") == LAPTOP


def test_profiles_carry_their_own_names():
    assert {name: profile(name, "candidates.k=3").name for name in PROFILES} == {n: n for n in PROFILES}


def test_profiles_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LAPTOP.candidates.k = 3


def test_home_is_the_project_unless_the_environment_names_another(monkeypatch):
    monkeypatch.delenv("CLSP_HOME", raising=False)
    assert home() == ROOT and home("data", "x") == ROOT / "data" / "x"
    monkeypatch.setenv("CLSP_HOME", "/elsewhere")
    assert home("data") == Path("/elsewhere/data") and home("notebooks") == ROOT / "notebooks" and home() == ROOT


def test_configuration_does_not_import_torch():
    code = "import sys, clsp_utils.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_conda_and_pip_ask_for_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pip = project["dependencies"] + project["optional-dependencies"]["dev"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]

    def pinned(lines):
        pairs = (re.fullmatch(r"([\w.-]+)(.*)", line.replace("pytorch>", "torch>")).groups() for line in lines)
        return dict(pairs)

    assert pinned(conda) == pinned(pip) | {"python": project["requires-python"]}
    assert all(pinned(pip).values()), "every requirement has a version"


def test_large_profiles_have_the_reported_settings():
    paper = PROFILES["paper"]
    assert paper.diffusion.unet.channels == (128, 256, 256, 256) and paper.diffusion.unet.attention == (16,)
    assert (paper.candidates.mix_weight, paper.candidates.k, paper.candidates.steps, paper.candidates.eta) == (0.1, 8, 100, 0.1)
    assert (paper.simclr.batch, paper.simclr.lr, paper.simclr.epochs, paper.simclr.clsp_weight) == (1024, 0.5, 1000, 1.0)
    assert (paper.moco.batch, paper.moco.lr, paper.moco.queue, paper.moco.clsp_weight) == (512, 0.3, 32768, 0.5)
    assert (paper.simclr.encoder.hidden, paper.simclr.encoder.projection, paper.simclr.temperature) == (4096, 256, 0.2)
    # What the laptop needs and the paper does not have.
    assert paper.diffusion.second_noise == paper.diffusion.silent_middle == paper.diffusion.snr_gamma == 0
    assert paper.simclr.clsp_ramp == paper.moco.clsp_ramp == 0
    assert PROFILES["gpu"].diffusion.source == "google/ddpm-cifar10-32"
