"""Exploring by hand in JupyterLab: controls, and a picture that follows them. Computes nothing."""

from collections.abc import Callable
from typing import Any

from IPython.display import display
from ipywidgets import Widget, interactive


def explore(draw: Callable[..., Any], **controls: Widget) -> None:
    """Shows controls, and below them what `draw` shows for their values, anew at each change.

    A slider counts once it is let go, or with an arrow key. While something is drawn, Jupyter keeps
    the last change alone, so that a slow `draw` does not fall behind. Its errors take the place of
    the picture.

    Args:
        draw: called with the controls' values by name; shows something.
        controls: by the name of the argument that they set. No lists (`Dropdown`, `Select`): their
            arrow keys go to JupyterLab, which moves on to another cell.
    """
    for control in controls.values():
        control.style.description_width = "initial"  # long ones would be cut
        if control.has_trait("continuous_update"):
            control.continuous_update = False
    display(interactive(draw, **controls))
