"""Where the project is, and where its products go."""

import os
import re
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


def is_hub_name(source: str) -> bool:
    """Whether this may name weights on the Hub, "owner/name", and not a file that is missing."""
    is_file_name = Path(source).suffix in (".pt", ".pth", ".bin", ".safetensors")
    return not is_file_name and bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source))
