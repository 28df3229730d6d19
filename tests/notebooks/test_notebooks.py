"""The notebooks as they are stored, through papermill from an empty store, and in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import built_site
import nbformat
import numpy as np
import papermill
import pytest
from lab_page import OUTPUT, LabPage, jupyterlab

from clsp_utils.book import copies
from clsp_utils.book import run_notebooks as runner
from clsp_utils.book.lab import refresh_copies
from clsp_utils.book.run_notebooks import find_notebooks
from clsp_utils.config import PROJECT, home
from clsp_utils.pipeline import Profile

NOTEBOOKS = find_notebooks(home("notebooks"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def exercises(notebook):
    """Number of each exercise, in the order of the notebook -> its cells."""
    found = {}
    for cell in notebook.cells:
        if copies.number(cell):
            found.setdefault(copies.number(cell), []).append(cell)
    return found


@each_notebook
def test_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1 and "injected-parameters" not in tags
    # Widgets are for readers: a run may wait for their messages for ever.
    widgets = [cell for cell in code if "widgets" in cell.source or "explore" in cell.source]
    assert all({"interactive", "skip-execution"} <= copies.tags(cell) for cell in widgets)
    assert max(len(cell.source.splitlines()) for cell in code) <= 40


@each_notebook
def test_exercises_are_whole(path):
    """Text, stub, hint, check, solution: a check sees what was typed, and not the solution."""
    found = exercises(nbformat.read(path, as_version=4))
    assert list(found) == [f"{path.stem[:2]}.{i}" for i in range(1, len(found) + 1)]
    assert path.stem[:2] > "06" or 4 <= len(found) <= 6
    for number, (text, *cells) in found.items():
        assert text.source.startswith(f"### Exercise {number} · ")
        assert re.search(r"^\*[\w ,]+ · [●○]{3} · \d+ minutes\*$", text.source, re.M)
        assert "**Expected:** " in text.source
        kinds = [copies.tags(cell) - {number} for cell in cells if len(copies.tags(cell)) > 1]
        assert kinds in [
            [{stub}, {"hint"}, {"check"}, {"solution", "skip-execution"}] for stub in copies.STUBS
        ]
        *_, check, solution = cells
        assert f'"{number}"' in check.source
        assert solution.metadata.jupyter.source_hidden


def test_nothing_to_strip():
    keys = "metadata.papermill cell.metadata.papermill cell.metadata.execution"
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", "--extra-keys", keys]
    result = subprocess.run([*command, *map(str, NOTEBOOKS)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@each_notebook
def test_parameters_are_documented(path):
    parameters = papermill.inspect_notebook(str(path))
    assert {"profile", "seed", "overrides"} <= set(parameters)
    for name, entry in parameters.items():
        assert entry["inferred_type_name"] != "None" and entry["help"], (
            f"{name} lacks a type or a comment"
        )


def clsp(store, *arguments):
    """The command line in a process of its own, with its products below `store`."""
    environment = os.environ | {"CLSP_HOME": str(store)}
    command = [sys.executable, "-m", "clsp_utils", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """All notebooks at smoke, from an empty store."""
    store = tmp_path_factory.mktemp("smoke")
    result = clsp(store, "run", "--profile", "smoke")
    assert result.returncode == 0, result.stdout + result.stderr
    return store


def artifacts(store):
    return {path: path.stat().st_mtime_ns for path in (store / "artifacts").rglob("manifest.json")}


@pytest.mark.slow
def test_every_notebook_runs_to_its_end(smoke):
    report = json.loads((smoke / "build/smoke/report.json").read_text())
    assert [entry["name"] for entry in report] == [path.stem for path in NOTEBOOKS]
    assert {entry["status"] for entry in report} == {"ok"}
    executed = smoke / "build/smoke/notebooks"
    assert sorted(path.name for path in executed.iterdir()) == [path.name for path in NOTEBOOKS]


def check_outputs(path):
    """Number of each exercise of an executed notebook -> what its check printed."""
    checks = {
        number: cell
        for number, cells in exercises(nbformat.read(path, as_version=4)).items()
        for cell in cells
        if "check" in copies.tags(cell)
    }
    return {n: "".join(out.get("text", "") for out in c.outputs) for n, c in checks.items()}


@pytest.mark.slow
def test_run_is_that_of_a_student_who_answers_nothing(smoke):
    """Solutions are not executed, so that what ran is, cell by cell, the student's copy."""
    for path in NOTEBOOKS:
        executed = smoke / "build/smoke/notebooks" / path.name
        cells = nbformat.read(executed, as_version=4).cells
        assert not any(cell.execution_count for cell in cells if copies.is_solution(cell))
        for number, text in check_outputs(executed).items():
            assert re.fullmatch(rf"not yet: {number} waits for your answer( \(.+\))?\.\n", text)


@pytest.mark.slow
def test_with_solutions_every_check_passes(smoke, monkeypatch, tmp_path):
    """From the store that is there; figures and tables stay as they are without answers."""
    asking = [path for path in NOTEBOOKS if exercises(nbformat.read(path, as_version=4))]
    copies.write_copies(asking, tmp_path)
    monkeypatch.setenv("CLSP_HOME", str(smoke))
    csv = {path.name: path.read_bytes() for path in (smoke / "build/smoke/figures").glob("*.csv")}
    assert runner.run(find_notebooks(tmp_path / "instructor"), tmp_path / "build", "smoke", {}) == 0
    for path in asking:
        for number, text in check_outputs(tmp_path / "build/smoke/notebooks" / path.name).items():
            assert text.startswith(f"✓ {number}: "), text
    after = {path.name: path.read_bytes() for path in (smoke / "build/smoke/figures").glob("*.csv")}
    assert after == csv


@pytest.mark.slow
def test_the_first_cell_says_what_is_to_be_made(smoke):
    """In an empty store, notebook by notebook; what follows from what was made before it."""
    said = {}
    for path in NOTEBOOKS[:6]:
        cells = nbformat.read(smoke / "build/smoke/notebooks" / path.name, as_version=4).cells
        (cell,) = (cell for cell in cells if "companion.outlook(" in cell.source)
        text = "".join(output.get("text", "") for output in cell.outputs)
        said[path.stem[:2]] = sorted(re.findall(r"^(?:to make: |All that)(.*)$", text, re.M))
    methods = Profile("smoke").study.methods
    assert said == {
        "01": ["1 x diffusion"],
        "02": [" takes long is in the store."],
        "03": ["1 x pretrain supervised"],
        "04": [" takes long is in the store."],
        "05": ["1 x candidates", *sorted(f"2 x pretrain {method}" for method in methods)],
        "06": ["2 x pretrain SimCLR", "3 x candidates", "3 x pretrain CLSP-SimCLR"],
    }


@pytest.mark.slow
def test_every_figure_has_its_table_and_a_caption(smoke):
    figures = smoke / "build/smoke/figures"
    pictures = {path.stem for path in figures.glob("*.png")}
    assert pictures <= {path.stem for path in figures.glob("*.csv")}
    assert {name[:2] for name in pictures} == {path.name[:2] for path in NOTEBOOKS}
    for path in (smoke / "build/smoke/notebooks").iterdir():
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if "save_figure" in cell.source and "image/png" in output.get("data", {}):
                    assert output.metadata["image/png"]["alt"]


@pytest.mark.slow
def test_second_run_finds_everything_in_the_store(smoke):
    before = artifacts(smoke)
    csv = {path.name: path.read_bytes() for path in (smoke / "build/smoke/figures").glob("*.csv")}
    result = clsp(smoke, "run", "03", "05", "06", "--profile", "smoke")
    assert result.returncode == 0, result.stdout + result.stderr
    assert artifacts(smoke) == before
    assert {
        path.name: path.read_bytes() for path in (smoke / "build/smoke/figures").glob("*.csv")
    } == csv


@pytest.mark.slow
def test_plain_papermill_from_another_directory(tmp_path):
    source = next(path for path in NOTEBOOKS if path.name.startswith("04"))
    command = [
        "papermill",
        str(source),
        "out.ipynb",
        "-p",
        "profile",
        "smoke",
        "-p",
        "seed",
        "1",
        "--no-progress-bar",
    ]
    environment = os.environ | {"CLSP_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    run = [c for c in cells if c.cell_type == "code" and "skip-execution" not in c.metadata.tags]
    assert all(cell.execution_count for cell in run)


@pytest.mark.slow
def test_damaged_artifact_is_made_anew(smoke):
    model = smoke / "artifacts/diffusion" / Profile("smoke").diffusion.request.key
    weights = model / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    result = clsp(smoke, "run", "01", "--profile", "smoke")
    assert result.returncode == 0, result.stdout + result.stderr
    assert any("damaged" in path.name for path in (smoke / "artifacts/diffusion").iterdir())
    assert weights.read_bytes() == whole


def photographs(path, labels):
    """An archive of 300 images for training and 100 for testing, of random pixels."""
    rng = np.random.default_rng(0)
    splits = {"train": 300, "test": 100}
    arrays = {
        f"{name}_x": rng.integers(0, 256, (n, 20, 20, 3), np.uint8) for name, n in splits.items()
    }
    np.savez(path, **arrays, **{f"{name}_y": rng.choice(labels, n) for name, n in splits.items()})
    return str(path)


@pytest.mark.slow
def test_every_notebook_runs_on_more_classes_than_ten_of_which_some_images_have_no_label(tmp_path):
    data = photographs(tmp_path / "images.npz", [-1, -1, *range(11), 99])
    result = clsp(
        tmp_path, "run", "--profile", "smoke", "-p", "data.name=cifar100", "-p", f"data={data}"
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_notebooks_that_score_refuse_images_without_labels_before_they_train(tmp_path):
    data = photographs(tmp_path / "images.npz", [-1])
    result = clsp(
        tmp_path,
        "run",
        "02",
        "03",
        "04",
        "05",
        "06",
        "--profile",
        "smoke",
        "-p",
        "data.name=cifar10",
        "-p",
        f"data={data}",
    )
    assert (
        result.returncode == 1 and result.stdout.count("None of these images has a label") == 5
    ), result.stdout
    assert not artifacts(tmp_path)


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--profile", "huge"], "huge"),
        (["-p", "sede=1"], "sede"),
        (["-p", "candidates.k=0"], "candidates.k=0"),
        (["-p", "candidates.mix_weight=1.5"], "1.5"),
        (["-p", "data.size=17"], "17"),
        (["04", "-p", "seed=two"], "two"),
        (["77"], "77"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, arguments, part):
    result = clsp(tmp_path, "run", *arguments)
    assert result.returncode == 2
    message = result.stderr.strip()
    assert part in message and message.startswith("error: ") and "\n" not in message
    assert not (tmp_path / "build/laptop").exists(), "nothing ran"


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = clsp(tmp_path / "file", "run", "01")
    assert result.returncode == 2 and "cannot be written" in result.stderr


@pytest.fixture(scope="module")
def site(smoke):
    """The site of the notebooks at smoke; a warning of Sphinx, as of a link in vain, ends it."""
    options = ["--quiet", "--nitpicky", "--fail-on-warning", "-D", "profile=smoke"]
    command = [sys.executable, "-m", "sphinx", *options, "-c", "docs", "-d", smoke / "doctrees"]
    environment = os.environ | {"CLSP_HOME": str(smoke)}
    shutil.copytree(PROJECT / "play/src", smoke / "build/play")  # the page without its networks
    result = subprocess.run(
        [*command, ".", smoke / "site"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return built_site.pages(smoke / "site")


@pytest.mark.slow
def test_site_needs_nothing_from_elsewhere_and_links_lead_somewhere(site):
    assert not built_site.broken(site)
    elsewhere = {link for page in site.values() for link in page.loads if "//" in link}
    assert not elsewhere
    (play,) = (page for page in site.values() if page.path.parent.name == "play")
    assert play.links == ["../docs/index.html"]


@pytest.mark.slow
def test_site_shows_every_figure_of_the_run_with_its_caption(site, smoke):
    for path in NOTEBOOKS:
        outputs = [
            output
            for cell in nbformat.read(smoke / "build/smoke/notebooks" / path.name, 4).cells
            for output in cell.get("outputs", [])
        ]
        captions = [
            output.metadata["image/png"]["alt"]
            for output in outputs
            if "image/png" in output.get("data", {})
        ]
        page = site[smoke / "site/notebooks" / f"{path.stem}.html"]
        assert captions and [alt for _, alt in page.pictures] == captions
        text = page.path.read_text()
        assert "Outputs of a run with" in text and "cells are without" not in text
        download = smoke / "site/_sources/notebooks" / path.name
        assert download.read_bytes() == path.read_bytes()
    assert all(alt for page in site.values() for _, alt in page.pictures)
    gallery = {Path(src).name for src, _ in site[smoke / "site/docs/index.html"].pictures}
    assert gallery >= {path.name for path in (PROJECT / "figures").glob("*.png")}


@pytest.mark.slow
def test_site_can_be_searched(site, smoke):
    index = (smoke / "site/searchindex.js").read_text()
    known = json.loads(re.search(r'"docnames":(\[.*?\])', index)[1])
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS} < set(known)
    assert {"docs/glossary", "docs/results", "docs/teaching", "docs/api"} < set(known)
    assert '"misconcept"' in index and "background_match" in index


# In JupyterLab ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(browser, smoke, tmp_path_factory):
    """Folder with working copies at smoke, and a page with JupyterLab on it."""
    folder, place = (tmp_path_factory.mktemp(name) for name in ("lab", "server"))
    refresh_copies(NOTEBOOKS, folder)
    for path in folder.iterdir():
        plain = path.read_text()
        at_smoke = plain.replace('profile: str = \\"laptop\\"', 'profile: str = \\"smoke\\"')
        assert at_smoke != plain
        path.write_text(at_smoke)
    with jupyterlab(folder, place, CLSP_HOME=str(smoke)) as address:
        yield folder, LabPage(browser, address)


@pytest.mark.slow
@each_notebook
def test_in_jupyterlab_all_cells_run_and_every_control_changes_what_it_shows(lab, path):
    """Nothing is said on the console, and what JupyterLab saves is the copy alone."""
    folder, page = lab
    stored = path.read_bytes()
    with page.opened(path.name):
        assert page.run_all() == {"errors": [], "left_out": 0}
        if "interactive" in path.read_text():
            controls = page.controls()
            assert controls
            for control in controls:
                page.move(control)
        page.page.screenshot(path=home("build", "browser", f"{path.stem}.png"))
        assert page.page.query_selector(".Toastify__toast") is None  # it asks for nothing
        assert page.console == []
    assert path.read_bytes() == stored
    saved = nbformat.read(folder / path.name, as_version=4)
    assert any(cell.get("outputs") for cell in saved.cells)


SLOW = """
import time
from IPython.display import HTML, display
from ipywidgets import IntSlider
from clsp_utils.book.explore import explore

drawn = []

def draw(x):
    drawn.append(x)
    time.sleep(0.3)
    display(HTML(f"<img alt=''>{len(drawn)} drawn, 12 / {x - 20} = {12 / (x - 20)}"))

explore(draw, x=IntSlider(max=30))
"""


@pytest.mark.slow
def test_a_slow_picture_does_not_fall_behind_and_an_error_is_shown(lab):
    folder, page = lab
    cell = nbformat.v4.new_code_cell(SLOW, metadata={"tags": ["interactive"]})
    kernel = {"kernelspec": nbformat.read(NOTEBOOKS[0], as_version=4).metadata.kernelspec}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / "slow.ipynb")
    with page.opened("slow.ipynb"):
        assert page.run_all() == {"errors": [], "left_out": 0}
        (slider,) = page.controls()
        slider.focus()
        for _ in range(22):
            page.page.keyboard.press("ArrowUp")
        page.page.wait_for_selector("text=12 / 2 = 6.0")
        assert int(page.page.inner_text(OUTPUT).split()[0]) < 22, "every step was drawn"
        for _ in range(2):
            page.page.keyboard.press("ArrowDown")
        page.page.wait_for_selector("text=ZeroDivisionError")
