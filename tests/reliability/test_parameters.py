"""Bad values are refused by name, value and range, in one sentence, before anything is computed."""

import os
import re
import subprocess
import sys
import time

import pytest
from homes import clsp

from clsp_utils import __main__ as cli
from clsp_utils import config
from clsp_utils.book import run_notebooks as runner

# arguments after `run` -> what the message must show
BAD = {
    # of a wrong type
    "-p candidates.k=two": "candidates.k='two'",
    "-p candidates.k=2.5": "candidates.k=2.5",
    "-p candidates.k=True": "candidates.k=True",
    "-p candidates.k=None": "candidates.k=None",
    "-p candidates.k=(4,)": "candidates.k=(4,)",
    "-p candidates.k=": "candidates.k=''",
    "-p diffusion.lr=fast": "diffusion.lr='fast'",
    "-p diffusion.lr=True": "diffusion.lr=True",
    "-p candidates.mix_weight=True": "candidates.mix_weight=True",
    "-p candidates.steps=True": "candidates.steps=True",
    "-p diffusion.flip=maybe": "diffusion.flip='maybe'",
    "-p diffusion.unet.channels=32": "channels=32",
    "-p study.mix_weights=0.1": "mix_weights=0.1",
    "-p simclr.backbone.layers=(1,'two')": "'two'",
    "-p simclr.backbone.layers=(1,True)": "True",
    "-p seed=two": "seed=two",
    "-p seed=1.5": "seed=1.5",
    "-p seed=True": "seed=True",
    "-p seed=None": "seed=None",
    "04 -p candidates.mix_weight=much": "mix_weight='much'",
    # out of range
    "-p candidates.k=0": "candidates.k=0",
    "-p candidates.k=-1": "candidates.k=-1",
    "-p candidates.mix_weight=1.5": "mix_weight=1.5",
    "-p candidates.mix_weight=-0.1": "mix_weight=-0.1",
    "-p candidates.eta=1.01": "eta=1.01",
    "-p candidates.steps=7": "steps=7",
    "-p study.steps=2000": "steps=2000",
    "-p study.seeds=1": "seeds=1",
    "-p diffusion.steps=0": "steps=0",
    "-p diffusion.lr=0": "lr=0",
    "-p diffusion.lr=-1e-3": "lr=-0.001",
    "-p diffusion.ema_decay=1.1": "ema_decay=1.1",
    "-p diffusion.recoloured_pairs=1.5": "recoloured_pairs=1.5",
    "-p candidates.mix_below=0": "mix_below=0",
    "-p diffusion.unet.dropout=2": "dropout=2",
    "-p simclr.temperature=0": "temperature=0",
    "-p simclr.views.hue=0.6": "hue=0.6",
    "-p simclr.batch=1": "batch=1",
    "-p moco.key_momentum=1.5": "key_momentum=1.5",
    "-p probe.neighbours=(0,)": "neighbours",
    "-p data.size=4": "size=4",
    "-p data.limit=5": "limit=5",
    "-p seed=-1": "seed=-1",
    "-p seed=2147483648": "seed=2147483648",
    "04 -p candidates.mix_weight=1.5": "mix_weight=1.5",
    "04 -p study.k_shown=0": "k_shown=0",
    "04 -p study.n_shown=0": "n_shown=0",
    "01 -p study.n_shown=-3": "n_shown=-3",
    "02 -p study.t_shown=1000": "t_shown=1000",
    "02 -p study.n_neighbours=0": "n_neighbours=0",
    "03 -p study.mask_steps=7": "mask_steps=7",
    "05 -p study.n_pairs=0": "n_pairs=0",
    "--timeout 0": "0",
    "--timeout -5": "-5",
    # no number
    "-p diffusion.lr=nan": "nan",
    "-p diffusion.lr=1e999": "inf",
    "-p candidates.mix_weight=nan": "nan",
    "-p simclr.weight_decay=1e999": "inf",
    "04 -p candidates.mix_weight=nan": "nan",
    "04 -p candidates.mix_weight=1e999": "inf",
    "--timeout nan": "nan",
    # unknown names
    "--profile huge": "huge",
    "-p sede=1": "sede",
    "-p candidates.kk=1": "candidates.kk",
    "-p nosuch.k=1": "nosuch.k",
    "-p simclr.method=BYOL": "BYOL",
    "-p data.name=nosuch": "nosuch",
    "-p precision=fp16": "precision",
    "-p simclr.backbone.block=wide": "wide",
    "04 -p mix_weight=0.5": "use the setting candidates.mix_weight",
    "-p seed": "seed",
    "-p =3": "=3",
    "77": "77",
    # paths that do not exist
    "/no/such/99_notebook.ipynb": "99_notebook",
    "-p data.name=/no/such/folder": "/no/such/folder",
    # combinations that cannot be
    "-p nnclr.queue=64": "queue=64",
    "-p moco.batch=1024": "batch=1024",
    "-p data.limit=200 -p probe.neighbours=(5,500)": "500",
    "-p study.models=9": "models=9",
    "-p diffusion.unet.channels=(30,96)": "(30, 96)",
    "-p diffusion.unet.channels=(8,8,8,8,8,8)": "size=16",
    "-p diffusion.unet.attention=(5,)": "(5,)",
    "-p simclr.views.crop_area=(0.9,0.2)": "(0.9, 0.2)",
    "-p data.size=17": "17",
}


def assert_one_sentence(message, part):
    """`error: name=value: what is allowed.`"""
    assert part in message
    assert message.startswith("error: ") and message.endswith(".\n") and message.count("\n") == 1, (
        message
    )


@pytest.mark.item("6 parameters", "refused by the command line")
@pytest.mark.parametrize("arguments", BAD)
def test_bad_value_is_refused(home, no_kernel, capsys, arguments):
    assert cli.main(["run", *arguments.split()]) == 2
    assert_one_sentence(capsys.readouterr().err, BAD[arguments])
    assert not list((home).rglob("report.json"))


@pytest.mark.item("6 parameters", "refused in seconds, by a process of its own")
@pytest.mark.rounds(short=2, long=len(BAD))
def test_refusal_takes_seconds(place, round):
    arguments = list(BAD)[round]
    start = time.monotonic()
    run = clsp(place, "run", *arguments.split())
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 2
    assert_one_sentence(said, BAD[arguments])
    assert time.monotonic() - start < 10
    assert not (place / "build/laptop").exists() and not list((place / "artifacts").glob("*")), (
        "nothing was computed"
    )


def test_enough_of_them():
    assert len(BAD) >= 50 and all(re.search(r"\S", part) for part in BAD.values())
    assert {path.stem[:2] for path in runner.find_notebooks(config.home("notebooks"))} >= {
        "01",
        "02",
        "03",
        "04",
        "05",
    }


@pytest.mark.item("6 parameters", "refused by the notebook itself")
@pytest.mark.slow
@pytest.mark.rounds(short=0, long=4)
def test_plain_papermill_is_refused_before_any_stage(place, round):
    number, name, value = [
        ("04", "candidates.mix_weight", "5"), ("04", "study.k_shown", "0"),
        ("01", "study.n_shown", "0"), ("02", "study.t_shown", "1000"),
    ][round]  # fmt: skip
    [source] = config.home("notebooks").glob(f"{number}_*.ipynb")
    command = [sys.executable, "-m", "papermill", str(source), str(place / "out.ipynb")]
    command += ["-p", "overrides", f"{{'{name}': {value}}}"]
    environment = os.environ | {"CLSP_HOME": str(place)}
    start = time.monotonic()
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (
        result.returncode and "ConfigError" in result.stderr and f"{name}={value}" in result.stderr
    )
    assert time.monotonic() - start < 20, "most of it is the kernel's start"
    assert not list((place / "artifacts").glob("*"))
