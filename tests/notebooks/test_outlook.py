"""What the first cells of notebooks announce at the profile laptop, from an empty store."""

import nbformat
import pytest

from clsp_utils.config import PROJECT

# The plan of the profile, with steps that take no time.
LIGHT = {
    "data.limit": 256, "diffusion.batch": 8, "pretrain.batch": 32, "classifier.batch": 32,
    "candidates.batch": 8, "class_candidates.batch": 8, "rcg_candidates.batch": 8,
    "cluster_candidates.batch": 8, "swav.prototypes": 16, "precision": "fp32",
}  # fmt: skip
NOTEBOOKS = [
    path for path in sorted((PROJECT / "notebooks").glob("*.ipynb")) if path.stem[:2] != "10"
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cells_tell_the_time_of_all_that_is_to_be_made(home, monkeypatch, capsys, path):
    monkeypatch.chdir(path.parent)
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    names = {}
    for cell in cells:
        exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names["overrides"] = LIGHT
        if ".outlook(" in cell.source:
            break
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to make: ")]
    assert any(line.startswith("to make: 1 x diffusion, about ") for line in told)
    assert all(line.endswith(" min here") for line in told)
    assert not list(home.rglob("manifest.json"))
