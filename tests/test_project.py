"""What the project's own files promise to each other."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from clsp_utils.pipeline import Profile

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def read(name):
    return (ROOT / name).read_text()


def versions(lines):
    """Name -> what is asked of its version."""
    return dict(re.fullmatch(r"([\w.-]+)(.*)", line).groups() for line in lines)


def constraints():
    return versions(line for line in read("constraints.txt").splitlines() if line[0] != "#")


def test_conda_and_pip_ask_for_the_same():
    *lines, pip = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert pip == {"pip": ["-e ."]}
    conda = versions(line.replace("pytorch>", "torch>") for line in lines)
    python = conda.pop("python").removeprefix("=")
    assert conda.pop("pip") == "" and conda == versions(PROJECT["dependencies"])
    # Binder takes an exact version only.
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert [int(n) for n in python.split(".")] >= [int(n) for n in oldest.split(".")]


def test_every_requirement_has_a_version_and_a_constraint():
    asked = versions([*PROJECT["dependencies"], *EXTRAS["dev"]])
    assert all(asked.values()) and {*EXTRAS["cluster"], *EXTRAS["export"], *EXTRAS["site"]} <= {
        *EXTRAS["dev"]
    }
    assert constraints().keys() == asked.keys()
    assert all(re.fullmatch(r"==[\d.]+", version) for version in constraints().values())


def test_hooks_check_what_make_lint_checks():
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = {hook["id"]: hook for hook in repo["hooks"]}
    for hook in hooks.values():
        ((name, version),) = versions(hook["additional_dependencies"]).items()
        assert constraints().get(name, version) == version
    assert f"STRIP := {hooks['nbstripout']['entry']}\n" in read("Makefile")


def test_help_names_every_target():
    told = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (targets,) = re.findall(r"^\.PHONY: (.*)", read("Makefile"), re.M)
    assert re.findall(r"^  (\w+)  +\w", told, re.M) == targets.split()


@pytest.mark.parametrize("target", ["store", "site", "clean"])
def test_targets_go_where_the_results_are(target):
    def commands(**more):
        command = ["make", "-n", "-o", ".venv/ready", target]
        environment = {k: v for k, v in os.environ.items() if k != "CLSP_HOME"} | more
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert '"./build' in commands()
    told = commands(CLSP_HOME="/some where")
    assert '"/some where/build' in told and '"./' not in told


def test_python_is_tested_from_the_oldest_on():
    workflow = yaml.safe_load(read(".github/workflows/tests.yml"))
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"][0] == oldest


def test_readme_is_short():
    assert len(read("README.md").encode()) <= 6 * 1024


DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/api.md",
    "docs/glossary.md",
    "docs/index.md",
    "docs/results.md",
    "docs/scale.md",
    "docs/symbols.md",
    "docs/teaching.md",
    "benchmarks/README.md",
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#]+)", read(name)):
        assert link.startswith("https://") or ((ROOT / name).parent / link).exists(), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_in_the_documents_exist(name):
    text = read(name).replace("\\\n", " ")
    for command in re.findall(r"-m clsp_utils (?:run|stage) [^`\n#]*", text):
        words = shlex.split(command)
        profile = words[words.index("--profile") + 1] if "--profile" in words else "laptop"
        given = dict(w.split("=", 1) for flag, w in pairwise(words) if flag == "-p")
        data = given.pop("data", "")
        overrides = {k: literal(v) for k, v in given.items() if "." in k or k == "precision"}
        if "Yours" not in command and "yours" not in command:
            Profile(profile, overrides, data)


def literal(value):
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def test_python_examples_in_the_documents_import():
    for name in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", read(name), re.S):
            imports = "\n".join(line for line in block.splitlines() if line.startswith("from clsp"))
            subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=True)
