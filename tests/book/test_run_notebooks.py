"""The runner on small notebooks made here. Each kernel costs a second."""

import json
import subprocess
import sys
import time
from html import escape

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from clsp_utils.book import run_notebooks as runner
from clsp_utils.config import ConfigError

PARAMETERS = 'profile: str = "laptop"  # smoke or laptop\noverrides: dict = {}\nseed: int = 0\n'


def write(path, *sources, parameters=PARAMETERS):
    """A notebook: a title (cell 1), the parameters (cell 2), then `sources` (cells 3, 4, ...)."""
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    cells += [new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def notebooks(tmp_path):
    """Two notebooks that are only looked at, and never run."""
    first = write(tmp_path / "01_first.ipynb")
    return [
        first,
        write(
            tmp_path / "02_second.ipynb",
            parameters=PARAMETERS + "noise: float = 0.5\nfull: bool = False\n",
        ),
    ]


# Names and parameters --------------------------------------------------------------------------


def test_parameters_are_read_as_literals_else_as_text():
    pairs = [
        "seed=3",
        "w=0.5",
        "full=True",
        "layers=(1, 2)",
        "name=smoke",
        "empty=",
        "text=a=b",
        "seed=4",
    ]
    assert runner.parse_parameters(pairs) == {
        "seed": 4,
        "w": 0.5,
        "full": True,
        "layers": (1, 2),
        "name": "smoke",
        "empty": "",
        "text": "a=b",
    }


@pytest.mark.parametrize("pair", ["seed", "=3", ""])
def test_parameter_without_name_or_value_is_refused(pair):
    with pytest.raises(ConfigError, match=f"'{pair}'.*name=value"):
        runner.parse_parameters([pair])


@pytest.fixture
def folder(tmp_path):
    for name in ("03_b.ipynb", "01_a.ipynb", "10_d.ipynb", "03_c.ipynb", "notes.ipynb", "02_x.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ([], ["01_a", "03_b", "03_c", "10_d"]),
        (["10", "01"], ["01_a", "10_d"]),
        (["03_c", "03_c.ipynb"], ["03_c"]),
        (["somewhere/03_b.ipynb"], ["03_b"]),
    ],
)
def test_notebooks_are_found_in_order(folder, wanted, expected):
    assert [path.stem for path in runner.find_notebooks(folder, wanted)] == expected


@pytest.mark.parametrize(
    "word", ["99", "03", "a", ""]
)  # unknown, two of them, no beginning, nothing
def test_notebook_that_is_not_one_is_refused_with_all_names(folder, word):
    with pytest.raises(ConfigError, match=f"'{word}'.*01_a, 03_b, 03_c, 10_d"):
        runner.find_notebooks(folder, ["01", word])


def test_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=tmp_path.name):
        runner.find_notebooks(tmp_path)


def test_parameters_go_to_the_notebooks_that_have_them(notebooks):
    parameters = {"seed": 3, "noise": 1, "candidates.k": 4, "diffusion.unet.channels": (16, 32)}
    common = {
        "profile": "smoke",
        "overrides": {"candidates.k": 4, "diffusion.unet.channels": [16, 32]},
        "seed": 3,
    }
    found = runner.assign(notebooks, "smoke", parameters)
    assert found == [common, common | {"noise": 1.0}]
    assert type(found[1]["noise"]) is float, "a whole number will do for a float"


@pytest.mark.parametrize(
    "given", [{"candidates.k": 4}, "{'candidates.k': 4}"], ids=["dictionary", "text"]
)
def test_overrides_may_be_given_as_a_dictionary_or_its_text(notebooks, given):
    [found] = runner.assign(notebooks[:1], "smoke", {"overrides": given, "probe.lr": 0.5})
    assert found == {"profile": "smoke", "overrides": {"candidates.k": 4, "probe.lr": 0.5}}


def test_overrides_are_refused_as_they_were_written_and_handed_on_as_in_json(notebooks):
    with pytest.raises(ConfigError, match=r"candidates\.k=\(4,\)"):
        runner.assign(notebooks, "smoke", {"candidates.k": (4,)})
    [found] = runner.assign(notebooks[:1], "smoke", {"study.mix_weights": {0.5}, "data.draws": 2})
    assert found["overrides"] == {"study.mix_weights": [0.5], "data.draws": 2}


def test_of_one_setting_given_twice_the_parameter_counts(notebooks):
    [found] = runner.assign(
        notebooks[:1], "smoke", {"candidates.k": 5, "overrides": {"candidates.k": 4}}
    )
    assert found["overrides"] == {"candidates.k": 5}


def test_paths_that_exist_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("some images", "list.txt"):
        (tmp_path / name).touch()
    given = {
        "data": "some images",
        "data.wnids": "list.txt",
        "diffusion.source": "google/ddpm-cifar10-32",
        "seed": 1,
    }
    overrides, path, others = runner.split_settings(given)
    assert path == str(tmp_path / "some images") and others == {"seed": 1}
    assert overrides == {
        "data.wnids": f"{tmp_path}/list.txt",
        "diffusion.source": "google/ddpm-cifar10-32",
    }
    given = {"data": "nosuch", "overrides": {"candidates.k": 4}}
    assert runner.split_settings(given) == ({"candidates.k": 4}, "nosuch", {})
    assert given == {"data": "nosuch", "overrides": {"candidates.k": 4}}, "left as it was"
    assert runner.split_settings({"precision": "fp32", "k": 3}) == (
        {"precision": "fp32"},
        "",
        {"k": 3},
    )
    assert runner.split_settings({"data": "", "diffusion.source": ""}) == (
        {"diffusion.source": ""},
        "",
        {},
    )


@pytest.mark.parametrize(
    "parameters, shown",
    [
        ({"nosuch": 1}, "nosuch=1.*full, noise, overrides, seed"),
        ({"profile": "laptop"}, "profile=laptop"),  # it has an option of its own
        ({"seed": "three"}, "seed=three.*int"),
        ({"seed": 0.5}, "seed=0.5.*int"),
        ({"seed": True}, "seed=True.*int"),
        ({"full": 1}, "full=1.*bool"),
        ({"noise": None}, "noise=None.*float"),
        ({"candidates.nosuch": 1}, "candidates.nosuch=1"),
        ({"candidates.mix_weight": 1.5}, "mix_weight=1.5"),
        ({"overrides": {"candidates.k": 0}}, "k=0"),
        ({"overrides": "{'candidates.k': 0}"}, "k=0"),
        ({"overrides": "candidates.k=4"}, "overrides='candidates.k=4'"),
        ({"overrides": 5}, "5"),
    ],
)
def test_bad_parameter_is_refused_by_value(notebooks, parameters, shown):
    with pytest.raises(ConfigError, match=shown):
        runner.assign(notebooks, "smoke", parameters)


# Runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Notebooks that end in every way, run in order: (failures, folder of results, report)."""
    folder = tmp_path_factory.mktemp("runs")
    sources = {
        "01_good": ["print(f'{profile} {seed}')"],
        "02_error": ["1", "raise ValueError('no luck')", "2"],
        "03_exit": ["import sys; sys.exit(0)", "2"],
        "04_killed": ["import os; os.kill(os.getpid(), 9)"],
        "05_after": ["from pathlib import Path; Path('reached').touch()"],
    }
    paths = [write(folder / f"{name}.ipynb", *cells) for name, cells in sources.items()]
    failures = runner.run(paths, folder / "build", "smoke", {"seed": 7}, timeout=60)
    report = json.loads((folder / "build/smoke/report.json").read_text())
    return failures, folder, {entry["name"]: entry for entry in report}


def test_run_counts_failures_and_goes_on_after_them(outcome):
    failures, folder, report = outcome
    assert failures == 3
    assert {name: entry["status"] for name, entry in report.items()} == {
        "01_good": "ok",
        "02_error": "failed",
        "03_exit": "failed",
        "04_killed": "failed",
        "05_after": "ok",
    }
    assert (folder / "reached").exists(), "a notebook runs in its own folder"
    assert all(entry["seconds"] > 0 for entry in report.values())


@pytest.mark.parametrize(
    "name, shown",
    [
        ("02_error", ["cell 4 ", "ValueError: no luck"]),
        ("03_exit", ["stopped early", "cell 3 "]),
        ("04_killed", ["kernel died in cell 3"]),
    ],
)
def test_failure_is_told_in_one_sentence(outcome, name, shown):
    error = outcome[2][name]["error"]
    assert "\n" not in error
    for part in shown:
        assert part in error


def test_page_of_a_run_tells_of_those_that_failed_too(outcome):
    page = (outcome[1] / "build/smoke/report.html").read_text()
    assert "2 of 5 notebooks ran to their" in page
    for name, entry in outcome[2].items():
        assert f'<td class="{entry["status"]}">' in page and f'<h2 id="{name}">' in page
        assert escape(entry["error"] or "") in page


def test_good_run_has_no_error_and_an_executed_copy(outcome):
    _, folder, report = outcome
    assert report["01_good"]["error"] is None
    assert report["01_good"]["parameters"] == {"profile": "smoke", "overrides": {}, "seed": 7}
    copy = nbformat.read(folder / "build/smoke/notebooks/01_good.ipynb", as_version=4)
    assert copy.cells[-1].outputs[0].text == "smoke 7\n"
    assert len(nbformat.read(folder / "01_good.ipynb", as_version=4).cells) == 3, (
        "the source is left as it was"
    )


def test_cell_for_readers_at_the_screen_is_left_out(tmp_path):
    path = write(tmp_path / "01_screen.ipynb", "raise ValueError", "print('went', 'on')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["interactive", "skip-execution"]
    nbformat.write(notebook, path)
    runner.run_notebook(path, tmp_path / "copy.ipynb", {}, timeout=60)
    assert (
        "went on" in nbformat.read(tmp_path / "copy.ipynb", as_version=4).cells[-1].outputs[0].text
    )


def test_cell_that_takes_too_long_is_stopped(tmp_path):
    path = write(tmp_path / "01_long.ipynb", "import time; time.sleep(600)")
    with pytest.raises(RuntimeError, match="cell 3 ran longer than 1 s"):
        runner.run_notebook(path, tmp_path / "copy.ipynb", {}, timeout=1)


@pytest.mark.skipif(not runner.ENCRYPTED, reason="this build of ZeroMQ cannot encrypt")
def test_what_goes_to_a_kernel_is_encrypted(tmp_path, capfd):
    asks = (
        "from ipykernel.kernelapp import IPKernelApp\nassert IPKernelApp.instance().curve_secretkey"
    )
    runner.run_notebook(
        write(tmp_path / "01_asks.ipynb", asks), tmp_path / "out" / "01_asks.ipynb", {}, 60
    )
    assert "encryption" not in capfd.readouterr().err


def test_memory_peak_is_that_of_the_processes_below():
    hold = "import time; x = b'x' * 300_000_000; time.sleep(1.5)"
    with runner.MemoryPeak() as peak:
        time.sleep(0.7)
        before = peak.bytes
        subprocess.run([sys.executable, "-c", hold], check=True)
    assert 300e6 < peak.bytes - before < 400e6


# One figure ---------------------------------------------------------------------------------------


def drawing(folder):
    """A notebook whose last cell would fail, with two figures before it."""
    return write(
        folder / "04_draws.ipynb",
        'def save_figure(fig, folder, name):\n    open(name + ".csv", "w").close()',
        'save_figure(None, None, "04_one")',
        'save_figure(\n    None,\n    None,\n    "04_two",\n)',
        "raise RuntimeError",
    )


def test_a_figure_is_found_with_the_cells_that_it_takes(tmp_path):
    path = drawing(tmp_path)
    assert runner.find_figure(tmp_path, "04_one") == (path, 4)
    assert runner.find_figure(tmp_path, "04_two") == (path, 5)
    with pytest.raises(ConfigError, match="figure='04_tow': use one of 04_two"):
        runner.find_figure(tmp_path, "04_tow")


def test_only_the_cells_that_a_figure_takes_are_run(tmp_path):
    path = drawing(tmp_path)
    assert runner.run([path], tmp_path / "build", "smoke", {}, n_cells=4) == 0
    assert (tmp_path / "04_one.csv").exists() and not (tmp_path / "04_two.csv").exists()
    assert runner.run([path], tmp_path / "build", "smoke", {}) == 1  # the whole one fails


def test_the_list_tells_what_is_drawn(tmp_path):
    path = drawing(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "04_one.csv").touch()
    lines = runner.listed([path], [tmp_path / "figures"]).splitlines()
    assert lines[0] == "04_draws (profile, overrides, seed)"
    assert lines[1:] == [f"  04_one: {tmp_path / 'figures'}", "  04_two: not drawn yet"]


def test_every_figure_of_the_project_is_found_by_its_name():
    """A figure whose name is computed could not be asked for."""
    folder = runner.PROJECT / "notebooks"
    for path in runner.find_notebooks(folder):
        source = path.read_text()
        saves = source.count("save_figure(") + source.count("save_table(")
        assert len(runner.figures_of(path)) == saves
