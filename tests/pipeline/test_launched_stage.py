"""Stages of the command line, alone and by `torchrun`: `accelerate launch` without GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clsp_utils import __main__ as cli
from clsp_utils.book.run_notebooks import parse_parameters
from clsp_utils.pipeline import Companion, InterpolatedBank, Pretrained

JOB = Path(__file__).with_name("job_of_a_store.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

pytestmark = pytest.mark.slow


def run(command):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]


@pytest.mark.parametrize("name, launcher", [("one", [sys.executable]), ("two", LAUNCH)])
def test_processes_build_together_and_once(tmp_path, name, launcher):
    run([*launcher, str(JOB), str(tmp_path), name])
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    if name == "one":
        assert found == {"one 0.json": ["1", ["first"]]}
    else:  # the first process built where the store said, once; what the other built is thrown away
        assert found == {"two 0.json": ["2", ["first"]], "two 1.json": ["2", ["other"]]}
    # A process that ends connected aborts now and then, with its work done.
    ends = [json.loads(path.read_text()) for path in tmp_path.glob("*.connected")]
    assert ends == [False] * len(found)


def test_a_launched_stage_leaves_the_artifact_that_notebooks_read(home, monkeypatch):
    settings = [
        "precision=fp32",
        "diffusion.steps=4",
        "candidates.steps=2",
        "candidates.batch=64",
        "simclr.epochs=1",
    ]
    for stage in ("candidates", "pretrain"):
        command = [*LAUNCH, "-m", "clsp_utils", "stage", stage, "--profile", "smoke"]
        run(command + [word for setting in settings for word in ("-p", setting)])
    companion = Companion("smoke", 0, parse_parameters(settings))
    monkeypatch.setattr(companion.pipeline.store, "get", lambda *asked: pytest.fail("made anew"))
    assert companion.get(Pretrained, method="CLSP-SimCLR") is not None
    assert companion.artifact(InterpolatedBank).manifest["config"]["steps"] == 2


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["nonsense"], "nonsense"),
        (["pretrain", "--method", "BYOL"], "BYOL"),
        (["diffusion", "-p", "candidates.k=0"], "candidates.k=0"),
        (["diffusion", "-p", "seed=3"], "seed=3"),
        (["diffusion", "-p", "data=/no/such"], "/no/such"),
    ],
)
def test_what_a_stage_cannot_use_is_refused(home, capsys, arguments, part):
    assert cli.main(["stage", *arguments]) == 2
    message = capsys.readouterr().err
    assert part in message and message.count("\n") == 1


def test_a_stage_reads_images_of_the_user(home, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)
    y = np.arange(300) % 3
    np.savez(tmp_path / "own.npz", train_x=x[:240], train_y=y[:240], test_x=x[240:], test_y=y[240:])
    settings = [
        "data.name=cifar10",
        "data.size=8",
        "data.limit=0",
        "diffusion.steps=1",
        f"data={tmp_path / 'own.npz'}",
    ]
    assert (
        cli.main(
            ["stage", "diffusion", "--profile", "smoke", *(w for s in settings for w in ("-p", s))]
        )
        == 0
    )
    (made,) = (home / "artifacts" / "diffusion").glob("[0-9a-f]*[0-9a-f]")
    assert (made / "losses.npy").exists()
