"""Where the project is, and what the configuration costs to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from clsp_utils.config import home

ROOT = Path(__file__).parents[2]


def test_home_is_the_project_unless_the_environment_names_another(monkeypatch):
    monkeypatch.delenv("CLSP_HOME", raising=False)
    assert home() == ROOT and home("data", "x") == ROOT / "data" / "x"
    monkeypatch.setenv("CLSP_HOME", "/elsewhere")
    assert (
        home("data") == Path("/elsewhere/data")
        and home("notebooks") == ROOT / "notebooks"
        and home() == ROOT
    )


@pytest.mark.parametrize(
    "module", ["config", "store", "pipeline", "book.run_notebooks", "__main__"]
)
def test_declarations_do_not_import_torch(module):
    code = f"import sys, clsp_utils.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
