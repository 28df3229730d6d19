"""What the environment files promise."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


def pinned(lines):
    pairs = (re.fullmatch(r"([\w.-]+)(.*)", line.replace("pytorch>", "torch>")).groups() for line in lines)
    return dict(pairs)


def test_conda_and_pip_ask_for_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pip = pinned(project["dependencies"])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda.pop() == {"pip": ["-e ."]}, "the package itself"
    conda = pinned(conda)
    assert conda.pop("pip") == ""
    python = re.fullmatch(r"=(3\.\d+)", conda.pop("python")).group(1)
    assert python in SpecifierSet(project["requires-python"])
    assert conda == pip
    assert all((pip | pinned(project["optional-dependencies"]["dev"])).values()), "every requirement has a version"
