"""Two processes come to the result of one.

`torchrun` starts them, as `accelerate launch` does for GPUs.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

JOB = Path(__file__).with_name("job_of_processes.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

pytestmark = pytest.mark.slow


def run(command, folder, name):
    result = subprocess.run(
        [*command, str(JOB), str(folder), name],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
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
        torch.testing.assert_close(
            a[name], b[name], rtol=1e-4, atol=1e-5, msg=f"{name}: {{}}".format
        )


@pytest.mark.parametrize(
    "what",
    [
        "SimCLR",
        "recoloured third view",
        "CLSP-SimCLR",
        "SupCon",
        "NNCLR",
        "All4One",
        "CLSP-MoCoV2",
        "unet",
    ],
)
def test_two_processes_train_what_one_trains(found, what):
    assert_close(found["two"][what], found["one"][what])


def test_two_processes_fill_the_bank_that_one_fills(found):
    assert torch.equal(found["one"]["bank"], found["two"]["bank"])
    assert found["one"]["bank"].flatten(1).any(1).all()  # no row was left out


@pytest.mark.parametrize("what", ["CLSP-MoCoV2", "unet"])
def test_what_two_processes_began_one_process_ends(found, what):
    assert_close(found["resumed"][what], found["one"][what])
