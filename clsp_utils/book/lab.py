"""Working copies of the notebooks: what JupyterLab saves goes there, and not into the stored ones.

A copy follows its notebook for as long as nobody has typed in it. What somebody typed is kept: if
the notebook has changed meanwhile, the old copy gets another name, and that is said.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from clsp_utils.store import replace_file

SETTINGS = Path(__file__).with_name("lab_settings")  # it asks nobody whether to fetch news
BEGUN = "text_when_copied"  # in a copy's metadata: digest of the text that it began with


def refresh_copies(
    notebooks: Sequence[Path], folder: Path, log: Callable[[str], None] = print
) -> None:
    """Copies to `folder` the notebooks that are not there, or that are newer than their copy.

    Args:
        log: says which copy was set aside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        notebook, copy = nbformat.read(path, as_version=4), folder / path.name
        text = _digest(notebook)
        if copy.exists():
            own, begun = _text_and_beginning(copy)
            if text in (own, begun):
                continue  # nothing is new
            if own != begun:
                aside = _free_name(copy)
                copy.rename(aside)
                log(f"{copy.name} has changed; the copy that you typed in is now {aside.name}.")
        notebook.metadata[BEGUN] = text
        replace_file(copy, f"{nbformat.writes(notebook)}\n".encode())


def _text_and_beginning(copy: Path) -> tuple[str, str]:
    """Digests of a copy's text, and of that which it began with; one that is damaged has neither.

    They differ then too: what cannot be read may still be somebody's work.
    """
    try:
        notebook = nbformat.read(copy, as_version=4)
        return _digest(notebook), notebook.metadata.get(BEGUN, "")
    except Exception:  # reading what is no notebook ends in many ways
        return "damaged", ""


def _digest(notebook: NotebookNode) -> str:
    """Of what a person types: kind and text of the cells, without outputs."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _free_name(copy: Path) -> Path:
    names = (copy.with_stem(f"{copy.stem}-yours-{i}") for i in count(1))
    return next(name for name in names if not name.exists())
