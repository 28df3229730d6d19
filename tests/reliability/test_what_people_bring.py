"""Computers, paths, names, settings as people have them: it works, or one sentence says no."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
import torch
from homes import clsp
from PIL import Image

from clsp_utils import __main__ as cli
from clsp_utils import config
from clsp_utils.book import legible
from clsp_utils.book import run_notebooks as runner
from clsp_utils.config import ConfigError
from clsp_utils.data import printable
from clsp_utils.pipeline import Companion
from clsp_utils.runtime import distributed

computers = pytest.mark.item("11 what people bring", "computers")
paths = pytest.mark.item("11 what people bring", "paths and names")
settings = pytest.mark.item("11 what people bring", "settings")

ROOT = Path(__file__).parents[2]
TINY = [
    "precision=fp32",
    "data.size=8",
    "diffusion.unet.channels=(8,8)",
    "diffusion.steps=2",
    "diffusion.batch=8",
    "study.samples=8",
    "study.steps=1",
    "study.tsne=20",
]
NAMES = {
    "quotes": 'it\'s "quoted" `so`',
    "blanks": " two  blanks ",
    "commas": "a,b;c",
    "braces": "{name} {0} {}",
    "brackets": "[1] *? (2)",
    "percent": "50%20 %s %d",
    "equals": "-p=x&y=z",
    "dollars": "$HOME $x^$",
    "hash": "#1~",
    "newline": "a\nb\tc",
    "dash": "--profile",
    "underscore": "_hidden",
    "backslash": "a\\nb",
    "colon": "a:b|c",
    "composed": "\u00e9\u00fc \u65e5\u672c",
    "decomposed": "e\u0301u\u0308",
    "long": "l" * 200,
}
each_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())


def parameters(*pairs):
    return [word for pair in (*TINY, *pairs) for word in ("-p", pair)]


def one_sentence(capsys):
    said = capsys.readouterr().err.split("\r")[-1]
    assert said.startswith("error: ") and said.endswith(".\n") and said.count("\n") == 1, said
    return said


def pictures(folder, classes, each=12):
    """A folder of pictures, in which all names are the class's."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                folder / name / f"{name}{i}.png"
            )
    return folder


def shown(name):
    """A class as it can be printed on one line, whichever of the two Unicode forms it came in."""
    return printable(unicodedata.normalize("NFC", name))


# Paths and names ----------------------------------------------------------------------------------


@paths
@each_name
def test_results_lie_in_any_folder(place, monkeypatch, name):
    monkeypatch.setenv("CLSP_HOME", str(place / name))
    monkeypatch.setenv("TMPDIR", str(place))
    assert cli.main(["stage", "diffusion", "--profile", "smoke", *parameters()]) == 0
    assert len(list((place / name / "artifacts/diffusion").glob("*/manifest.json"))) == 1


@paths
@each_name
def test_images_and_weights_lie_in_any_folder(place, monkeypatch, name):
    monkeypatch.setenv("CLSP_HOME", str(place / "home"))
    data = pictures(place / name, [name, "other"])
    given = parameters("data.name=folder", f"data={data}")
    assert cli.main(["stage", "diffusion", "--profile", "smoke", *given]) == 0
    [weights] = (place / "home/artifacts/diffusion").glob("*/diffusion_pytorch_model.safetensors")
    shutil.copytree(weights.parent, place / "weights" / name)
    source = f"diffusion.source={place / 'weights' / name}"
    assert cli.main(["stage", "diffusion", "--profile", "smoke", *given, "-p", source]) == 0
    assert len(list((place / "home/artifacts/diffusion").glob("*/manifest.json"))) == 2
    seen = Companion(
        "smoke", 0, {"data.name": "folder", "data.size": 8}, str(data)
    ).data.train.class_names
    assert set(seen) == {shown(name), "other"}


@paths
@pytest.mark.parametrize("name", ["1", "0x10", "1e3", "1_0", "True", "[1]", "'a'", "(2,)", "None"])
def test_a_path_that_reads_like_a_number_stays_as_it_is(place, monkeypatch, name):
    (place / name).mkdir()
    monkeypatch.chdir(place)
    given = runner.parse_parameters([f"data={name}", f"data.wnids={name}"])
    assert runner.split_settings(given) == (
        {"data.wnids": str(place / name)},
        str(place / name),
        {},
    )


@paths
def test_a_home_of_nobody_is_no_traceback(home, capsys):
    assert (
        cli.main(
            ["stage", "diffusion", "-p", "data.name=folder", "-p", "data=~nobody-here/pictures"]
        )
        == 2
    )
    assert "~nobody-here/pictures" in one_sentence(capsys)


@paths
@pytest.mark.parametrize(
    "given, expected",
    [
        ("", ROOT),
        ("here", ROOT / "here"),
        ("./a/../b", ROOT / "a/../b"),
        ("~", Path("/somebody")),
        ("~/x y", Path("/somebody/x y")),
        ("/else/~", Path("/else/~")),
        ("~nobody-here", ROOT / "~nobody-here"),
    ],
)
def test_home_is_the_same_wherever_one_stands(tmp_path, monkeypatch, given, expected):
    monkeypatch.setenv("CLSP_HOME", given)
    monkeypatch.setenv("HOME", "/somebody")
    for folder in (tmp_path, ROOT / "notebooks"):
        monkeypatch.chdir(folder)
        assert config.home("artifacts") == expected / "artifacts"
        assert config.home("notebooks") == ROOT / "notebooks"


@paths
@pytest.mark.parametrize(
    "copy",
    [
        "01_train_diffusion-Copy1",
        "01_train_diffusion (1)",
        "01_train_diffusion-checkpoint",
        "01_train_diffusion copy",
        "01_train_diffusion(1)",
        "01_train_diffusion.nbconvert",
        "Untitled",
        "Untitled1",
        "._01_train_diffusion",
        "01_train_diffusion~",
        "Copy of 01_train_diffusion",
        "01_train_diffusion_backup.old",
        "01 train",
        "1_short",
    ],
)
def test_what_editors_leave_beside_the_notebooks_is_not_run(tmp_path, copy):
    for name in ("01_train_diffusion", "02_next", copy):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in runner.find_notebooks(tmp_path)] == [
        "01_train_diffusion",
        "02_next",
    ]
    for word in ("01", "01_train_diffusion", "notebooks/01_train_diffusion.ipynb"):
        assert [path.stem for path in runner.find_notebooks(tmp_path, [word])] == [
            "01_train_diffusion"
        ]


@paths
def test_a_legend_shows_every_class_letter_by_letter():
    names = [*NAMES.values(), "l" * 200 + "2", "l" * 200 + "3", "l" * 19, "\u2026"]
    drawn = legible(names)
    labels = list(drawn.values())
    assert list(drawn) == names and len(set(labels)) == len(names)
    assert all(label.isprintable() and not label.startswith("_") for label in labels)
    table = pd.DataFrame({"x": range(len(names)), "class": names})
    ax = sns.scatterplot(table, x="x", y="x", hue=table["class"].map(drawn), hue_order=labels)
    ax.figure.canvas.draw()  # it reads the mathematics
    assert [text.get_text() for text in ax.get_legend().get_texts()] == labels
    plt.close("all")


def checkout(folder):
    """A second checkout: its own package and its own notebooks."""
    for name in ("clsp_utils", "notebooks"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    return folder


def python(*arguments, cwd, path, **environment):
    env = {key: value for key, value in os.environ.items() if key != "CLSP_HOME"}
    env |= {"PYTHONPATH": str(path)} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True
    )


@paths
def test_the_notebook_of_one_checkout_refuses_the_package_of_another(tmp_path):
    other = checkout(tmp_path / "other")
    code = "from clsp_utils.pipeline import Companion; Companion('smoke')"
    said = python("-c", code, cwd=other / "notebooks", path=ROOT).stderr
    assert (
        "ConfigError" in said
        and str(other) in said
        and str(ROOT) in said
        and "pip install -e" in said
    )
    assert not (other / "artifacts").exists()


@paths
def test_an_installation_without_notebooks_says_what_to_do(tmp_path):
    shutil.copytree(
        ROOT / "clsp_utils",
        tmp_path / "site/clsp_utils",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    run = python("-m", "clsp_utils", "run", cwd=tmp_path, path=tmp_path / "site")
    assert (
        run.returncode == 2 and "no notebooks" in run.stderr and "pip install -e" in run.stderr
    ), run.stderr


@paths
@pytest.mark.slow
def test_a_checkout_runs_its_own_package(tmp_path):
    other = checkout(tmp_path / "other")
    run = python(
        "-m",
        "clsp_utils",
        "run",
        "01",
        "--profile",
        "smoke",
        *parameters(),
        cwd=other,
        path="/nowhere",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert list((other / "artifacts/diffusion").glob("*/manifest.json"))
    assert (other / "build/smoke/figures/01_samples.png").exists()


@paths
@pytest.mark.slow
@pytest.mark.rounds(short=1, long=len(NAMES) + 1)
def test_a_notebook_runs_wherever_everything_lies(place, monkeypatch, round):
    [*others, everything] = [
        *NAMES.values(),
        'it\'s "a" {0} [1] %d=;,$x^$ #\u00e9e\u0301\n' + "l" * 100,
    ]
    name = [everything, *others][round]
    data = pictures(place / "data" / name, [name, "other", "_third"])
    (place / "tmp" / name).mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(place / "tmp" / name))
    given = parameters("data.name=folder", f"data={data}", "data.limit=0")
    run = clsp(place / "home" / name, "run", "02", "--profile", "smoke", *given)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    table = pd.read_csv(place / "home" / name / "build/smoke/folder/figures/02_tsne.csv")
    assert set(table["class"]) <= {shown(name), "other", "_third"} and table["class"].nunique() > 1


@paths
@pytest.mark.slow
def test_a_relative_home_is_one_store_for_runner_and_kernel(tmp_path):
    other = checkout(tmp_path / "other")
    (tmp_path / "elsewhere").mkdir()
    run = python(
        "-m",
        "clsp_utils",
        "run",
        "01",
        "--profile",
        "smoke",
        *parameters(),
        cwd=tmp_path / "elsewhere",
        path=other,
        CLSP_HOME="of mine",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (other / "of mine/build/smoke/report.json").exists() and list(
        (other / "of mine/artifacts").glob("diffusion/*")
    )
    assert not list((tmp_path / "elsewhere").iterdir()) and not (other / "artifacts").exists()


# Computers ----------------------------------------------------------------------------------------

SCHEDULED = {
    "a world": {"WORLD_SIZE": "4"},
    "a world and ranks": {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"},
    "a master": {"MASTER_ADDR": "node17", "MASTER_PORT": "29500"},
    "a world of one": {
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "node17",
        "MASTER_PORT": "1",
    },
    "no numbers": {
        "WORLD_SIZE": "two",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "node17",
        "MASTER_PORT": "1",
    },
    "nothing in them": dict.fromkeys(
        ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), ""
    ),
    "srun": {"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7"},
    "Intel MPI": {"PMI_SIZE": "4", "PMI_RANK": "1", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"},
    "Open MPI": {
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    },
    "MVAPICH": {
        "MV2_COMM_WORLD_SIZE": "4",
        "MV2_COMM_WORLD_RANK": "1",
        "MV2_COMM_WORLD_LOCAL_RANK": "1",
    },
}
LAUNCHED = {
    "WORLD_SIZE": "4",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def asked(monkeypatch):
    """What accelerate is asked for, and the environment that it reads."""
    calls = []

    def record(cpu):
        calls.append((cpu, dict(os.environ)))
        return SimpleNamespace(num_processes=1)

    for name in (*LAUNCHED, *(name for one in SCHEDULED.values() for name in one), "CLSP_DEVICE"):
        monkeypatch.setenv(name, "")  # so that what is taken away comes back
        monkeypatch.delenv(name)
    monkeypatch.setattr(distributed, "PartialState", record)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return lambda: (distributed.state.__wrapped__(), calls[-1])[1]


@computers
@pytest.mark.parametrize("left", SCHEDULED)
def test_what_a_scheduler_leaves_launches_nothing(asked, monkeypatch, left):
    for name, value in SCHEDULED[left].items():
        monkeypatch.setenv(name, value)
    _, environment = asked()
    read = {*LAUNCHED, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}
    assert not read & environment.keys()


@computers
@pytest.mark.parametrize("kernel", [False, True])
def test_a_launched_process_is_one_of_several_and_a_kernel_never_is(asked, monkeypatch, kernel):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    else:
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    _, environment = asked()
    assert (environment.get("WORLD_SIZE") == "4") is not kernel


@computers
@pytest.mark.parametrize(
    "asked_for, there, used",
    [
        ("", True, False),
        ("mps", True, True),
        ("mps", False, False),
        ("cuda", True, False),
        ("MPS", True, False),
    ],
)
def test_the_gpu_of_a_mac_is_used_only_if_asked_for(asked, monkeypatch, asked_for, there, used):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    monkeypatch.setenv("CLSP_DEVICE", asked_for)
    on_cpu, _ = asked()
    assert on_cpu is not used


@computers
@pytest.mark.parametrize("threads", ["0", "abc", "2,2", "", "-1", " 3 "])
def test_threads_that_are_no_number_reach_no_library(asked, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    _, environment = asked()
    assert int(environment["OMP_NUM_THREADS"]) >= 0


@computers
def test_windows_is_told_of_wsl_at_once():
    run = python("-c", "import os; os.name = 'nt'; import clsp_utils", cwd=ROOT, path=ROOT)
    assert run.returncode == 1 and "WSL" in run.stderr.splitlines()[-1]


TERMINALS = {
    "Latin-1": {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"},
    "ASCII": {
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "POSIX",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    },
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
}


@computers
@pytest.mark.parametrize("terminal", TERMINALS)
def test_a_terminal_without_our_signs_gets_its_sentence(place, terminal):
    words = ["run", "\u03c0", "--profile", "smoke"]
    run = python(
        "-m",
        "clsp_utils",
        *words,
        cwd=place,
        path=ROOT,
        **TERMINALS[terminal],
        CLSP_HOME=str(place),
    )
    assert (
        run.returncode == 2
        and run.stderr.startswith("error: notebook=")
        and run.stderr.count("\n") == 1
    ), run.stderr
    run = python("-m", "clsp_utils", "run", "--help", cwd=place, path=ROOT, **TERMINALS[terminal])
    assert run.returncode == 0 and "usage" in run.stdout


@computers
@pytest.mark.slow
@pytest.mark.rounds(short=1, long=3)
def test_a_notebook_runs_on_an_odd_computer(place, monkeypatch, round):
    """A bare terminal, what schedulers leave, no display, no home, a long TMPDIR."""
    left = {key: value for one in SCHEDULED.values() for key, value in one.items()} | LAUNCHED
    temporary = place / ("t" * 150)
    temporary.mkdir()
    (place / "no home").touch()
    odd = {
        **left,
        **list(TERMINALS.values())[round],
        "OMP_NUM_THREADS": "2,2",
        "MPLBACKEND": ["", "QtAgg", "TkAgg"][round],
        "TMPDIR": str(temporary),
        "HOME": str(place / "no home"),
        "XDG_CONFIG_HOME": str(place / "no home"),
    }
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DISPLAY", raising=False)
    run = clsp(place / "home", "run", "01", "--profile", "smoke", *parameters())
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0 and "Traceback" not in said, said
    assert json.loads((place / "home/build/smoke/report.json").read_text())[0]["status"] == "ok"


# Settings -----------------------------------------------------------------------------------------

OLD_NAMES = {
    "mix_weight=0.3": "candidates.mix_weight",
    "n_shown=3": "study.n_shown",
    "k=6": "study.k_shown",
    "n_steps=20": "study.mask_steps",
    "n_pairs=100": "study.n_pairs",
    "n_neighbours=5": "study.n_neighbours",
    "t_shown=50": "study.t_shown",
    "epochs=3": "simclr.epochs",
    "lr=0.1": "diffusion.lr",
}


@settings
@pytest.mark.parametrize("given", OLD_NAMES)
def test_a_plain_name_is_refused_with_the_setting_that_is_meant(home, no_kernel, capsys, given):
    assert cli.main(["run", "04", "-p", given]) == 2
    said = one_sentence(capsys)
    assert f"-p {given}: no such parameter" in said and OLD_NAMES[given] in said
    assert cli.main(["stage", "diffusion", "-p", given]) == 2
    assert OLD_NAMES[given] in one_sentence(capsys)
    name, value = given.split("=")
    with pytest.raises(ConfigError, match=OLD_NAMES[given]):
        Companion("smoke", 0, {name: value})


REFUSED = {
    "study.tsne=3": "tsne=3",
    "study.n_pairs=5": "n_pairs=5",
    "study.n_shown=0": "n_shown=0",
    "study.k_shown=0": "k_shown=0",
    "study.t_shown=1000": "t_shown=1000",
    "study.mask_steps=7": "mask_steps=7",
    "study.n_neighbours=0": "n_neighbours=0",
    "study.sweep_seeds=4": "sweep_seeds=4",
    "study.methods=('SimCLR','CLSP-SimCLR','supervised')": "'supervised'",
    "simclr.backbone.projection=1": "projection=1",
    "diffusion.unet.channels=(1,1)": "channels.0=1",
    "probe.lr=1e39": "lr=1e+39",
    "diffusion.clip=1e300": "clip=1e+300",
    "moco.weight_decay=1e31": "weight_decay=1e+31",
}


@settings
@pytest.mark.parametrize("given", REFUSED)
def test_what_something_later_could_not_bear_is_refused_at_once(home, no_kernel, capsys, given):
    assert cli.main(["run", "-p", given]) == 2
    assert REFUSED[given] in one_sentence(capsys)


@settings
def test_nothing_but_the_plain_profile_draws_into_figures(home, monkeypatch):
    monkeypatch.setenv("CLSP_REDRAW", "1")
    assert Companion("laptop").figures == home / "figures"
    same = {"candidates.mix_weight": 0.1, "study.n_shown": 12}  # what it is anyway
    assert Companion("laptop", 0, same).figures == home / "figures"
    others = [
        {f"study.{name}": value}
        for name, value in (
            ("n_shown", 3),
            ("k_shown", 2),
            ("t_shown", 5),
            ("n_neighbours", 5),
            ("n_pairs", 100),
            ("mask_steps", 10),
            ("samples", 100),
            ("seeds", 5),
        )
    ]
    others += [{"candidates.mix_weight": 0.3}, {"precision": "fp32"}, {"simclr.watch_every": 1}]
    for overrides in others:
        assert Companion("laptop", 0, overrides).figures == home / "build/laptop/figures", overrides
    assert Companion("laptop", 1).figures == home / "build/laptop/figures"
    assert Companion("smoke").figures == home / "build/smoke/figures"
