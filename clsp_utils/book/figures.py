"""Style, palette, image grids, and one way to save a figure. Computes nothing."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsp_utils.store import replace_file

FULL, HALF = 4.8, 2.4  # inches: the width of the paper's text, and half of it
_PALETTE = sns.color_palette("colorblind")
COLORS = {
    "SimCLR": _PALETTE[0],
    "MoCoV2": _PALETTE[2],
    "CLSP-SimCLR": _PALETTE[3],
    "CLSP-MoCoV2": _PALETTE[1],
    "third view": _PALETTE[7],
    "third view MoCoV2": "0.3",
    "recoloured third view": "0.15",
    "CLSP-SimCLR in turn": "#8c2d04",
    "inflation": "#e7298a",
    "RCG": "#1b7837",
    "RCG-cluster": "#41b6c4",
    "class positives": _PALETTE[4],
    "class positives MoCoV2": _PALETTE[9],
    "SupCon": _PALETTE[5],
    "NNCLR": _PALETTE[6],
    "All4One": _PALETTE[8],
    "pairwise NT-Xent": "#4a1486",
    "MV-InfoNCE": "#807dba",
    "MV-DHEL": "#d94801",
    "CACR": "#006d2c",
    "SwAV": "#08306b",
    "CLSP-SwAV": "#fd8d3c",
    "MCL": "#35978f",
    "independent SimCLR": "0.45",
    "supervised": "#5e3c99",
    "untrained": "0.8",
    "content": _PALETTE[3],
    "background": _PALETTE[0],
}


def set_style() -> None:
    """Gives all notebooks one look."""
    sns.set_theme("paper", "ticks", "colorblind", rc={
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
        "figure.constrained_layout.use": True, "savefig.dpi": 200,
        "font.size": 8, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip


def image_grid(
    rows: Sequence[np.ndarray], labels: Sequence[str] = (), width: float = FULL
) -> Figure:
    """Images in rows, drawn as one picture: one axis per image would take seconds.

    Args:
        rows: each uint8 `(n, H, W, 3)` or float in [0, 1].
        labels: one per row.
        width: of the figure, in inches.
    """
    picture = tile(rows)
    grid_width = width - 0.085 * max(map(len, labels), default=0)  # inches per character
    size = (width, grid_width * picture.shape[0] / picture.shape[1])
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01)
    ax.imshow(picture, interpolation="nearest")
    ax.set_anchor("E")  # labels need their room on the left
    centres = (np.arange(len(labels)) + 0.5) * (picture.shape[0] / len(rows)) - 0.5
    ax.set(xticks=[], yticks=centres, yticklabels=labels)
    ax.tick_params(length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    return fig


def tile(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of images as one uint8 picture; gaps and missing images are white.

    Args:
        rows: each uint8 `(m, H, W, 3)` or float in [0, 1], all H x W alike.
    """
    n, (height, width) = max(map(len, rows)), rows[0].shape[1:3]
    gap = max(1, width // 16)
    picture = np.full((len(rows), height + gap, n, width + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        images = row if row.dtype == np.uint8 else np.rint(row * 255).astype(np.uint8)
        picture[i, :height, : len(row), :width] = images.swapaxes(0, 1)
    return picture.reshape(len(rows) * (height + gap), n * (width + gap), 3)


def dots(ax: Axes, table: pd.DataFrame, value: str, half_width: str) -> None:
    """Draws a dot with its interval for each method of `table`, first row on top.

    No bars: their length says something only where the axis starts at 0.

    Args:
        table: rows with a column "method"; value, half_width: names of two more columns.
    """
    for row, (name, mean, half) in enumerate(
        zip(table.method, table[value], table[half_width], strict=True)
    ):
        ax.errorbar(mean, row, xerr=half, fmt="o", ms=4, capsize=2, color=COLORS[name])
    ax.set_yticks(range(len(table)), table.method)
    ax.set_ylim(len(table) - 0.5, -0.5)


def legible(names: Sequence[str], longest: int = 20) -> dict[str, str]:
    """Each name as a legend shows it: on one line, short, letter by letter, none left out.

    What stands between two "$" would be drawn as mathematics, and a name that begins with "_" would
    be left out. Names that are the same once they are short get a number.
    """
    drawn: dict[str, str] = {}
    for name in names:
        line = name if name.isprintable() else ascii(name)[1:-1]
        label = line if len(line) <= longest else f"{line[: longest - 1]}…"
        label = f" {label}" if label.startswith("_") else label
        alike = sum(other == label or other.startswith(f"{label} (") for other in drawn.values())
        drawn[name] = f"{label} ({alike + 1})" if alike else label
    return {name: label.replace("$", r"\$") for name, label in drawn.items()}


def save_figure(
    fig: Figure, folder: Path, name: str, table: pd.DataFrame, caption: str, note: str = ""
) -> None:
    """Writes `name.png` and the table behind it as `name.csv`, then shows figure and caption.

    Args:
        caption: one or two sentences that say what is seen, over how many images and seeds; also
            the figure's alternative text.
        note: printed on the figure; notebooks pass "smoke" for runs that only test the wiring.
    """
    if note:
        look = {"fontsize": 40, "color": "0.5", "alpha": 0.35, "rotation": 20}
        fig.text(0.5, 0.5, note, ha="center", va="center", **look)
    save_table(table, folder, name)
    replace_file(folder / f"{name}.png", show_figure(fig, caption))


def show_figure(fig: Figure, caption: str) -> bytes:
    """Shows figure and caption, which is also its alternative text; returns the PNG."""
    picture = io.BytesIO()
    # Metadata without dates or versions: the same run writes the same bytes.
    fig.savefig(picture, format="png", metadata={"Software": None, "Description": caption})
    shown = Image(picture.getvalue(), format="png", width=int(fig.get_figwidth() * 150))
    display(shown, metadata={"image/png": {"alt": caption}})
    display(Markdown(f"*{textwrap.fill(caption, 100)}*"))
    plt.close(fig)
    return picture.getvalue()


def save_table(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Writes `name.csv`, with six digits: what is measured, and not the last bit of a library."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g").encode())
