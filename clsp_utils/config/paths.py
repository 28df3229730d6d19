"""Where the project is, and where its products go."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def home(*parts: str) -> Path:
    """The project's folder, or a path below it; the variable CLSP_HOME names another one.

    A relative CLSP_HOME starts in the project's folder, as all relative paths do, so that it is the
    same for a command and for the kernels of notebooks. The notebooks are always the project's.
    """
    base = PROJECT
    if parts and parts[0] != "notebooks":
        base = PROJECT / os.path.expanduser(os.environ.get("CLSP_HOME", ""))
    return base.joinpath(*parts)
