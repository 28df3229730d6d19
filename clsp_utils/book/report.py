"""What a run of the notebooks came to, as a page that a browser opens from the disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Template

TEMPLATE = Path(__file__).with_name("report.html")


def report_page(report: Sequence[dict[str, Any]], profile: str, executed: Path) -> str:
    """The page, in HTML; it holds the figures, so that it can be sent to others as it is.

    Args:
        report: as `run_notebooks.run` writes it, an entry per notebook.
        executed: the folder of the executed copies.
    """
    template = Template(TEMPLATE.read_text("utf-8"), autoescape=True)
    figures = {entry["name"]: _figures(executed / f"{entry['name']}.ipynb") for entry in report}
    return template.render(report=report, profile=profile, figures=figures)


def _figures(executed: Path) -> list[tuple[str, str]]:
    """Pictures of an executed notebook, as base64, and their captions; none if it never began."""
    if not executed.exists():
        return []
    return [
        (output.data["image/png"].replace("\n", ""), output.metadata["image/png"]["alt"])
        for cell in nbformat.read(executed, as_version=4).cells
        for output in cell.get("outputs", [])
        if "alt" in output.get("metadata", {}).get("image/png", {})
    ]
