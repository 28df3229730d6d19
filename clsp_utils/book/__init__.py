"""The notebooks as a book: their figures and tables, all of one look and written one way.

Knows nothing of what they compute. `run_notebooks` runs them and is imported by itself; what draws
is imported when it is asked for, since matplotlib takes seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clsp_utils.book.figures import (
        COLORS,
        FULL,
        HALF,
        dots,
        image_grid,
        legible,
        save_figure,
        save_table,
        set_style,
        tile,
    )


_DRAWS = (
    "COLORS", "FULL", "HALF", "dots", "image_grid", "legible", "save_figure", "save_table",
    "set_style", "tile",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _DRAWS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.figures"), name)
