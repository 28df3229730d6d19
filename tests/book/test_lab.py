"""Working copies: what a reader typed is never lost, and what nobody typed in stays new."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from clsp_utils.book.lab import refresh_copies


def write(path, *sources):
    """A notebook with these cells; those that are there keep their outputs and metadata."""
    notebook = nbformat.read(path, as_version=4) if path.exists() else new_notebook()
    for i, source in enumerate(sources):
        if i == len(notebook.cells):
            notebook.cells.append(new_code_cell())
        notebook.cells[i].source = source
    nbformat.write(notebook, path)


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def run(path):
    """What JupyterLab does to a file when cells are run, and folded, in it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.execution_count = 1
        cell.outputs = [new_output("stream", text="said")]
        cell.metadata["scrolled"] = True
    nbformat.write(notebook, path)


@pytest.fixture
def refresh(tmp_path):
    """Refreshes the copies in lab/; returns what is said."""
    write(tmp_path / "01_name.ipynb", "first", "second")
    (tmp_path / "lab").mkdir()

    def call():
        said = []
        refresh_copies([tmp_path / "01_name.ipynb"], tmp_path / "lab", said.append)
        return said

    assert call() == []
    return call


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_is_a_notebook_and_the_stored_one_stays_as_it_is(tmp_path, refresh):
    stored = (tmp_path / "01_name.ipynb").read_bytes()
    copy = tmp_path / "lab" / "01_name.ipynb"
    nbformat.validate(nbformat.read(copy, as_version=4))
    run(copy)
    assert sources(copy) == ["first", "second"]
    assert (tmp_path / "01_name.ipynb").read_bytes() == stored


@pytest.mark.parametrize("typed", [False, True])
def test_a_copy_of_what_has_not_changed_stays_byte_for_byte(tmp_path, refresh, typed):
    copy = tmp_path / "lab" / "01_name.ipynb"
    run(copy)
    if typed:
        write(copy, "first", "my answer")
    before = copy.read_bytes()
    assert refresh() == [] and copy.read_bytes() == before and names(copy.parent) == [copy.name]


def test_a_copy_in_which_nobody_typed_follows_its_notebook(tmp_path, refresh):
    copy = tmp_path / "lab" / "01_name.ipynb"
    for newer in ("second, mended", "second, mended again"):
        run(copy)
        write(tmp_path / "01_name.ipynb", "first", newer)
        assert refresh() == [] and sources(copy) == ["first", newer]
        assert names(copy.parent) == [copy.name]


def test_what_was_typed_is_set_aside_and_said_when_its_notebook_changes(tmp_path, refresh):
    copy = tmp_path / "lab" / "01_name.ipynb"
    for i in (1, 2):
        write(copy, "first", f"answer {i}")
        write(tmp_path / "01_name.ipynb", f"first, mended {i}")
        assert refresh() == [
            f"01_name.ipynb has changed; the copy that you typed in is now 01_name-yours-{i}.ipynb."
        ]
        assert sources(copy) == [f"first, mended {i}", "second"] and refresh() == []
    kept = [sources(copy.with_name(f"01_name-yours-{i}.ipynb")) for i in (1, 2)]
    assert kept == [["first", "answer 1"], ["first", "answer 2"]]


@pytest.mark.parametrize("content", ["no notebook", "{}", "[]", ""])
def test_a_copy_that_cannot_be_read_is_kept_too(tmp_path, refresh, content):
    copy = tmp_path / "lab" / "01_name.ipynb"
    copy.write_text(content)
    assert len(refresh()) == 1 and sources(copy) == ["first", "second"]
    assert copy.with_name("01_name-yours-1.ipynb").read_text() == content


def test_copies_that_people_made_stay(tmp_path, refresh):
    own = tmp_path / "lab" / "01_name-Copy1.ipynb"
    own.write_text("mine")
    assert refresh() == [] and own.read_text() == "mine"
