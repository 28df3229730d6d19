"""Where the project is, and where its products go."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def home(*parts: str) -> Path:
    """The project's folder, or a path below it; the variable CLSP_HOME names another one.

    The notebooks themselves are always the project's.
    """
    base = PROJECT
    if parts and parts[0] != "notebooks":
        base = Path(os.environ.get("CLSP_HOME", PROJECT))
    return base.joinpath(*parts)
