"""The notebooks as a book: their figures and tables, all of one look and written one way.

Knows nothing of what they compute; `book.run_notebooks` runs them, and is imported by itself.
"""

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
