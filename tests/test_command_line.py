"""The command line: what it refuses, with which words, and what it passes on."""

import os
import sys

import numpy as np
import pytest

from clsp_utils import __main__ as cli
from clsp_utils.book import lab
from clsp_utils.book import run_notebooks as runner
from clsp_utils.diffusion import pretrained


def assert_refused(capsys, arguments, shown):
    assert cli.main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith(".\n") and error.count("\n") == 1
    assert shown in error


@pytest.mark.parametrize(
    "arguments, shown",
    [
        (["99"], "99"),
        (["--profile", "huge"], "huge"),
        (["-p", "seed"], "seed"),
        (["-p", "nosuch=1"], "nosuch=1"),
        (["-p", "candidates.mix_weight=2"], "mix_weight=2"),
        (["-p", "seed=half"], "seed=half"),
    ],
)
def test_command_line_refuses_bad_input_in_one_sentence(home, no_kernel, capsys, arguments, shown):
    assert_refused(capsys, arguments, shown)


@pytest.mark.parametrize("given, shown", [
    ("diffusion.source=/no/such/weights.pt", "'/no/such/weights.pt' is neither a file"),
    ("diffusion.source=owner/weights.pt", "'owner/weights.pt' is neither a file"),
    ("diffusion.source=nosuch", "'nosuch' is neither a file"),
    ("diffusion.source=empty", "empty' has no weights"),
    ("diffusion.source=damaged.pt", "damaged.pt' is damaged"),
    ("data=/no/such/folder", "/no/such/folder: there is no such file or folder"),
    ("data=few.npy", "few.npy: this is a file; unpack it if it is an archive, and name the folder"),
    ("data=twice", "train and training could both be the split 'train'"),
    ("class_diffusion.source=/no/such.pt", "'/no/such.pt' is not a file"),
    ("class_diffusion.source=damaged.pt", "damaged.pt' is damaged"),
    ("candidates.source=no/such.npy", "no/such.npy: No such file or directory"),
    ("candidates.source=damaged.pt", "damaged.pt: this is no .npy file"),
    ("candidates.source=few.npy", "few.npy: it holds uint8 (5, 2, 16, 16, 3); 2 candidates"),
    ("class_candidates.source=few.npy", "are uint8 (256, 2 or more, 16, 16, 3)"),
])  # fmt: skip
def test_a_run_refuses_what_it_cannot_read_before_any_kernel(
    home, no_kernel, monkeypatch, capsys, given, shown
):
    monkeypatch.chdir(home)
    (home / "empty").mkdir()
    for split in ("train", "training", "test"):
        (home / "twice" / split / "some class").mkdir(parents=True)
    (home / "damaged.pt").write_text("no weights")
    np.save(home / "few.npy", np.zeros((5, 2, 16, 16, 3), np.uint8))
    assert_refused(capsys, ["01", "--profile", "smoke", "-p", given], shown)


def test_a_name_on_the_hub_is_left_to_the_stage(home, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "run_notebook", lambda *given: seen.append(given))
    monkeypatch.setattr(pretrained, "snapshot_download", lambda *_: pytest.fail("fetched"))
    assert cli.main(["run", "01", "--profile", "smoke", "-p", "diffusion.source=owner/name"]) == 0
    assert len(seen) == 1


@pytest.mark.parametrize(
    "settings, shown",
    [
        (["data.name=folder", "data=/no/such/folder"], "/no/such/folder"),
        (["diffusion.source=/no/such/weights.pt"], "/no/such/weights.pt"),
    ],
)
def test_stage_refuses_what_it_cannot_read_in_one_sentence(home, capsys, settings, shown):
    parameters = [word for setting in settings for word in ("-p", setting)]
    assert cli.main(["stage", "diffusion", "--profile", "smoke", *parameters]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and shown in error


def test_stage_that_diverges_says_what_to_lower(home, capsys):
    assert (
        cli.main(
            [
                "stage",
                "diffusion",
                "--profile",
                "smoke",
                "-p",
                "diffusion.lr=1e9",
                "-p",
                "precision=fp32",
            ]
        )
        == 1
    )
    error = capsys.readouterr().err.split("\r")[-1]  # what stands after the progress bar
    assert error.startswith("error: ") and error.count("\n") == 1 and "lower diffusion.lr" in error


def test_command_line_refuses_a_folder_that_cannot_be_written(home, no_kernel, monkeypatch, capsys):
    (home / "file").touch()
    monkeypatch.setenv("CLSP_HOME", str(home / "file"))
    assert_refused(capsys, [], str(home / "file"))


@pytest.mark.parametrize("failures, status", [(0, 0), (1, 1), (3, 1)])
def test_command_line_tells_failures_by_its_status(home, monkeypatch, failures, status):
    monkeypatch.setattr(runner, "run", lambda *_: failures)
    assert cli.main(["run"]) == status


def test_command_line_passes_everything_on(home, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "run", lambda *arguments: seen.extend(arguments) or 0)
    cli.main(
        [
            "run",
            "03",
            "01",
            "--profile",
            "smoke",
            "-p",
            "seed=3",
            "-p",
            "candidates.k=4",
            "--timeout",
            "9",
        ]
    )
    notebooks, build, *rest = seen
    assert [path.name[:2] for path in notebooks] == ["01", "03"] and build == home / "build"
    assert rest == ["smoke", {"seed": 3, "candidates.k": 4}, 9, None]


@pytest.mark.parametrize(
    "profile, seconds", [("smoke", 3600), ("laptop", 3600), ("gpu", None), ("paper", None)]
)
def test_a_cell_may_take_an_hour_and_on_gpus_any_time(home, monkeypatch, profile, seconds):
    seen = []
    monkeypatch.setattr(runner, "run", lambda *arguments: seen.append(arguments[-2]) or 0)
    assert cli.main(["run", "--profile", profile]) == 0 and seen == [seconds]


def test_figures_are_redrawn_where_asked_and_by_the_plain_profile_alone(home, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(runner, "run", lambda *_: asked.append(os.environ.get("CLSP_REDRAW")) or 0)
    monkeypatch.setenv("CLSP_REDRAW", "")
    assert cli.main(["run", "01"]) == 0 and cli.main(["run", "01", "--redraw"]) == 0
    assert asked == ["", "1"]
    for others in (["--profile", "smoke"], ["-p", "seed=1"]):
        assert_refused(capsys, ["01", "--redraw", *others], "--redraw")
    assert len(asked) == 2


def test_lab_opens_the_first_of_the_copies_and_later_their_folder(home, monkeypatch):
    opened = []
    monkeypatch.setattr(os, "execv", lambda program, words: opened.append(words))
    stored = [path.name for path in runner.find_notebooks(runner.PROJECT / "notebooks")]
    for shown in (f"lab/{stored[0]}", "lab"):
        cli.main(["lab"])
        assert opened[-1][:3] == [sys.executable, "-m", "jupyterlab"]
        assert f"--LabApp.default_url=/lab/tree/{shown}" in opened[-1]
        assert f"--LabApp.app_settings_dir={lab.SETTINGS}" in opened[-1]
        assert sorted(path.name for path in (home / "lab").iterdir()) == stored


def test_interrupt_is_no_traceback(home, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupt)
    assert cli.main(["run"]) == 130
    assert "kept" in capsys.readouterr().err
