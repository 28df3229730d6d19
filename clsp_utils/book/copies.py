"""Copies of the notebooks for a class, for students and for those who teach, from one source.

Tags of cells decide. A cell of an exercise has its number as a tag, such as "04.2" (without one it
stays as it is), and what it is:

    exercise, predict  the stub that a student fills in; it runs as it is
    hint               text, folded
    check              sees what the student typed
    solution           takes the stub's place in the copy for teachers; after the check, so that it
                       never overwrites an answer, and left out by papermill ("skip-execution")
"""

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from clsp_utils.store import replace_file

STUBS = {"exercise", "predict"}


def write_copies(notebooks: Sequence[Path], folder: Path) -> None:
    """Writes `folder/student` and `folder/instructor`; cells that are no exercise stay as they are.

    Notebooks keep their names, so that copies run wherever the originals do.
    """
    for path in notebooks:
        for name, copy in (("student", student_copy), ("instructor", instructor_copy)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            own = nbformat.writes(copy(nbformat.read(path, as_version=4)))
            replace_file(folder / name / path.name, f"{own}\n".encode())


def student_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without solutions; its checks cannot be changed in JupyterLab."""
    notebook.cells = [cell for cell in notebook.cells if not is_solution(cell)]
    for cell in notebook.cells:
        if "check" in tags(cell):
            cell.metadata |= {"editable": False, "deletable": False}
    return notebook


def instructor_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook with each solution in the place of its stub."""
    solutions = {number(cell): cell for cell in notebook.cells if is_solution(cell)}
    notebook.cells = [cell for cell in notebook.cells if not is_solution(cell)]
    for cell in notebook.cells:
        if STUBS & tags(cell) and number(cell) in solutions:
            cell.source = solutions[number(cell)].source
    return notebook


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell is the solution of an exercise with a number."""
    return "solution" in tags(cell) and bool(number(cell))


def number(cell: NotebookNode) -> str:
    """The number of the exercise that a cell belongs to, such as "04.2"; "" for all others."""
    return next((tag for tag in tags(cell) if re.fullmatch(r"\d\d\.\d+", tag)), "")
