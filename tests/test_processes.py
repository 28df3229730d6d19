"""Two processes come to the result of one. `torchrun` starts them, as `accelerate launch` does for GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clsp_utils import __main__ as cli
from clsp_utils.companion import Companion

JOB = Path(__file__).with_name("job_of_processes.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

pytestmark = pytest.mark.slow


def run(command, folder, name):
    result = subprocess.run(
        [*command, str(JOB), str(folder), name], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return torch.load(folder / f"{name}.pt", weights_only=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    results = {"one": run([sys.executable], folder, "one"), "two": run(LAUNCH, folder, "two")}
    run(LAUNCH, folder, "half")
    return results | {"resumed": run([sys.executable], folder, "rest")}


def test_there_are_two_processes(found):
    assert [found[name]["world"] for name in ("one", "two", "resumed")] == [1, 2, 1]


def assert_close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("what", ["SimCLR", "CLSP-SimCLR", "SupCon", "NNCLR", "All4One", "CLSP-MoCoV2", "unet"])
def test_two_processes_train_what_one_trains(found, what):
    assert_close(found["two"][what], found["one"][what])


def test_two_processes_fill_the_bank_that_one_fills(found):
    assert torch.equal(found["one"]["bank"], found["two"]["bank"])
    assert found["one"]["bank"].flatten(1).any(1).all()  # no row was left out


@pytest.mark.parametrize("what", ["CLSP-MoCoV2", "unet"])
def test_what_two_processes_began_one_process_ends(found, what):
    assert_close(found["resumed"][what], found["one"][what])


def test_processes_build_together_and_once(found):
    assert found["one"]["stored"] == ("1", ["first"])
    assert found["two"]["stored"] == ("2", ["first"])  # the first process built where the store said, once


def test_a_launched_stage_leaves_the_artifact_that_notebooks_read(home, monkeypatch):
    settings = ["precision=fp32", "diffusion.steps=4", "candidates.steps=2", "candidates.batch=64", "simclr.epochs=1"]
    for stage in ("candidates", "pretrain"):
        command = [*LAUNCH, "-m", "clsp_utils", "stage", stage, "--profile", "smoke"]
        command += [word for setting in settings for word in ("-p", setting)]
        result = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    companion = Companion("smoke", 0, " ".join(settings))
    monkeypatch.setattr(companion.store, "get", lambda stage, *asked: companion.store.find(stage, asked[0], *asked[2:]))
    assert companion.encoder("CLSP-SimCLR") is not None
    assert companion.bank().manifest["config"]["steps"] == 2


@pytest.mark.parametrize("arguments, part", [
    (["nonsense"], "nonsense"), (["pretrain", "--method", "BYOL"], "BYOL"), (["diffusion", "-p", "candidates.k=0"], "candidates.k=0"),
    (["diffusion", "-p", "seed=3"], "seed=3"), (["diffusion", "-p", "data=/no/such"], "/no/such"),
])
def test_what_a_stage_cannot_use_is_refused(home, capsys, arguments, part):
    assert cli.main(["stage", *arguments]) == 2
    message = capsys.readouterr().err
    assert part in message and message.count("\n") == 1


def test_a_stage_reads_images_of_the_user(home, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)
    y = np.arange(300) % 3
    np.savez(tmp_path / "own.npz", train_x=x[:240], train_y=y[:240], test_x=x[240:], test_y=y[240:])
    settings = ["data.name=cifar10", "data.size=8", "data.limit=0", "diffusion.steps=1", f"data={tmp_path / 'own.npz'}"]
    assert cli.main(["stage", "diffusion", "--profile", "smoke", *(w for s in settings for w in ("-p", s))]) == 0
    (made,) = (home / "artifacts" / "diffusion").glob("[0-9a-f]*[0-9a-f]")
    assert (made / "losses.npy").exists()
