"""Exploring by hand in JupyterLab: controls, and a picture that follows them. Computes nothing."""

from collections.abc import Callable
from typing import Any

from IPython.display import display
from ipywidgets import Label, Widget, interactive


def explore(draw: Callable[..., Any], **controls: Widget) -> None:
    """Shows controls, and below them what `draw` shows for their values, anew at each change.

    A slider counts once it is let go, or with an arrow key. While something is drawn, a word says
    so, and Jupyter keeps the last change alone, so that a slow `draw` does not fall behind. Its
    errors take the place of the picture.

    Args:
        draw: called with the controls' values by name; shows something.
        controls: by the name of the argument that they set. No lists (`Dropdown`, `Select`): their
            arrow keys go to JupyterLab, which moves on to another cell.
    """
    for control in controls.values():
        control.style.description_width = "initial"  # long ones would be cut
        if control.style.has_trait("button_width"):
            control.style.button_width = "auto"
        if control.has_trait("continuous_update"):
            control.continuous_update = False
    word = Label()

    def draw_and_say_so(**values: Any) -> None:
        word.value = "drawing …"
        try:
            draw(**values)
        finally:
            word.value = ""

    shown = interactive(draw_and_say_so, **controls)
    shown.children = (*controls.values(), word, shown.out)
    display(shown)
