"""Copies for students and for those who teach, from one source."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from clsp_utils import __main__ as cli
from clsp_utils.book import copies
from clsp_utils.book.run_notebooks import find_notebooks
from clsp_utils.config import home


def cell(source, *tags, kind=new_code_cell):
    return kind(source, metadata={"tags": list(tags)} if tags else {})


@pytest.fixture
def notebook(tmp_path):
    cells = [
        cell("# Title", kind=new_markdown_cell),
        cell("seed: int = 0", "parameters"),
        cell("### 07.1, 5 minutes", "07.1", kind=new_markdown_cell),
        cell("answer = None", "07.1", "exercise"),
        cell("think", "07.1", "hint", kind=new_markdown_cell),
        cell("check(answer)", "07.1", "check"),
        cell("answer = 3", "07.1", "solution", "skip-execution"),
        cell("guess = None", "07.2", "predict"),
        cell("draw()", "interactive", "skip-execution"),
        cell("predicted(guess)", "07.2", "check"),
        cell("guess = 4", "solution", "07.2", "skip-execution"),
        cell("later = 5"),
    ]
    path = tmp_path / "07_name.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    copies.write_copies([path], tmp_path / "course")
    return path


def read(folder, path):
    return nbformat.read(path.parent / "course" / folder / path.name, as_version=4)


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def test_student_copy_is_the_notebook_without_solutions(notebook):
    copy = read("student", notebook)
    nbformat.validate(copy)
    everything = sources(nbformat.read(notebook, as_version=4))
    assert sources(copy) == [s for s in everything if s not in ("answer = 3", "guess = 4")]
    fixed = [cell.source for cell in copy.cells if not cell.metadata.get("editable", True)]
    assert fixed == ["check(answer)", "predicted(guess)"]


def test_instructor_copy_has_solutions_in_the_place_of_stubs(notebook):
    copy = read("instructor", notebook)
    nbformat.validate(copy)
    stubs = {"answer = None": "answer = 3", "guess = None": "guess = 4"}
    assert sources(copy) == [stubs.get(s, s) for s in sources(read("student", notebook))]
    skipped = [c.source for c in copy.cells if "skip-execution" in c.metadata.get("tags", [])]
    assert skipped == ["draw()"]


def test_solution_without_a_number_stays(tmp_path):
    cells = [cell("x = None", "exercise"), cell("x = 1", "solution"), cell("assert x == 1")]
    path = tmp_path / "07_x.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    copies.write_copies([path], tmp_path / "course")
    for folder in ("student", "instructor"):
        assert sources(read(folder, path)) == ["x = None", "x = 1", "assert x == 1"]


def test_source_is_left_as_it_was_and_copies_are_the_same_again(notebook):
    before = notebook.read_bytes()
    folder = notebook.parent / "course"
    made = {path: path.read_bytes() for path in folder.rglob("*.ipynb")}
    copies.write_copies([notebook], folder)
    assert notebook.read_bytes() == before
    assert {path: path.read_bytes() for path in folder.rglob("*.ipynb")} == made


def test_exercise_without_a_solution_stays_a_stub(tmp_path):
    path = tmp_path / "01_x.ipynb"
    nbformat.write(new_notebook(cells=[cell("answer = None", "01.1", "exercise")]), path)
    copies.write_copies([path], tmp_path / "course")
    assert sources(read("instructor", path)) == ["answer = None"]


def test_command_writes_both_copies_of_all_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLSP_HOME", str(tmp_path))
    assert cli.main(["student"]) == 0
    assert str(tmp_path / "build/course") in capsys.readouterr().out
    names = [path.name for path in find_notebooks(home("notebooks"))]
    for folder in ("student", "instructor"):
        assert sorted(path.name for path in (tmp_path / "build/course" / folder).iterdir()) == names
    assert {path.name for path in (tmp_path / "build/course/docs").iterdir()} == {
        "glossary.md",
        "symbols.md",
    }
