"""The notebooks as a book: figures and tables of one look, exercises, copies for a class.

`run_notebooks` runs notebooks and `copies` writes copies of them; both are imported by themselves.
What draws or checks is imported when it is asked for, since matplotlib and torch take seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clsp_utils.book.exercises import check, predict, predicted
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
        show_figure,
        tile,
    )


_DRAWS = (
    "COLORS", "FULL", "HALF", "dots", "image_grid", "legible", "save_figure", "save_table",
    "set_style", "show_figure", "tile",
)  # fmt: skip
_CHECKS = ("check", "predict", "predicted")


def __getattr__(name: str) -> Any:
    if name not in _DRAWS + _CHECKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "exercises" if name in _CHECKS else "figures"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
