"""The table of symbols names what there is, and notebooks lead to it."""

import re
from pathlib import Path

import nbformat

from clsp_utils.book.run_notebooks import find_notebooks

ROOT = Path(__file__).parents[2]
NOTEBOOKS = find_notebooks(ROOT / "notebooks")


def test_names_in_the_table_of_symbols_are_those_of_the_code():
    files = [*NOTEBOOKS, *(ROOT / "clsp_utils").rglob("*.py")]
    code = set(re.findall(r"\w+", " ".join(path.read_text() for path in files)))
    rows = re.findall(r"^\| .*? \| (`.*?) \|", (ROOT / "docs/symbols.md").read_text(), re.M)
    assert len(rows) > 30
    assert not {name for row in rows for name in re.findall(r"[A-Za-z_]\w*", row)} - code


def test_each_notebook_leads_to_glossary_and_symbols_and_nowhere_in_vain():
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        assert "[glossary](../docs/glossary.md), [symbols](../docs/symbols.md)" in texts[1], path
        for link in re.findall(r"\]\(([^)#]+)", "\n".join(texts)):
            assert link.startswith("https://") or (path.parent / link).exists(), link
