"""Notebooks as pages of the site: the stored text, and beside it what a run of it has printed."""

import ast
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from clsp_utils.book.copies import is_solution, tags

EXPLORE = "*Here JupyterLab has something to turn by hand, which a page cannot: `make lab`.*"


def notebook_page(stored: NotebookNode, executed: NotebookNode | None) -> NotebookNode:
    """A stored notebook with the outputs of its executed copy, and a line on how they came about.

    Outputs belong to cells whose code is still the same. What is only for readers at the screen
    becomes a sentence, and a solution is folded.

    Args:
        executed: the copy that papermill wrote; None where the notebook was not run.
    """
    outputs = {cell.id: cell for cell in executed.cells} if executed else {}
    n_cells = n_left_out = 0
    for cell in stored.cells:
        if cell.cell_type != "code":
            continue
        if is_solution(cell):
            cell.metadata.tags.append("hide-input")
            cell.metadata.mystnb = {"code_prompt_show": "Show a solution"}
        elif "skip-execution" in tags(cell):
            # A cell that only prepares for the one with the controls says nothing.
            source = EXPLORE if "ipywidgets" in cell.source else ""
            cell.update(cell_type="markdown", source=source)
            del cell["outputs"], cell["execution_count"]
        else:
            n_cells += 1
            own = outputs.get(cell.id)
            if own and own.execution_count and own.source == cell.source:
                cell.outputs, cell.execution_count = own.outputs, own.execution_count
                _give_alternative_text(cell)
            else:
                n_left_out += 1
    stored.cells.insert(1, new_markdown_cell(f"*{_origin(executed, n_cells, n_left_out)}*"))
    return stored


def _give_alternative_text(cell: NotebookNode) -> None:
    """Copies a figure's caption to where myst-nb looks for it: once per cell."""
    for output in cell.outputs:
        if caption := output.get("metadata", {}).get("image/png", {}).get("alt"):
            cell.metadata.mystnb = {"image": {"alt": caption}}


def _origin(executed: NotebookNode | None, n_cells: int, n_left_out: int) -> str:
    """A sentence on how the outputs came about."""
    if executed is None:
        return "Not run yet: `make everything` makes the outputs that are missing here."
    run = executed.metadata.papermill
    given = ", ".join(f"`{name}={value!r}`" for name, value in run.parameters.items() if value)
    end = "did not come to its end" if run.duration is None else f"took {run.duration:.0f} s"
    text = f"Outputs of a run with {given}, which {end}."
    if n_left_out:
        text += (
            f" {n_left_out} of {n_cells} cells are without: they are newer than the run, or it did "
            f"not come to them."
        )
    return text


def used_names(notebooks: Sequence[Path]) -> dict[str, list[str]]:
    """What notebooks import of this package: names of each module, both in alphabetical order."""
    found: dict[str, set[str]] = {}
    for path in notebooks:
        for cell in nbformat.read(path, as_version=4).cells:
            for node in ast.walk(ast.parse(cell.source if cell.cell_type == "code" else "")):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("clsp_utils"):
                    found.setdefault(str(node.module), set()).update(a.name for a in node.names)
    return {module: sorted(found[module]) for module in sorted(found)}
