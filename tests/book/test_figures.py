"""Figures: two files each, the same bytes every time."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from clsp_utils.book import figures
from clsp_utils.config import METHODS, Study

TABLE = pd.DataFrame(
    {"method": ["SimCLR", "CLSP-SimCLR"], "knn": [0.5, 2 / 3], "half": [0.01, 0.02]}
)


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        figures.set_style()
        yield
    plt.close("all")


def draw(folder, **changes):
    fig, ax = plt.subplots(figsize=(figures.HALF, 1.5))
    figures.dots(ax, TABLE, "knn", "half")
    arguments = {"table": TABLE, "caption": "What is seen."} | changes
    figures.save_figure(fig, folder, "result", **arguments)
    return (folder / "result.png").read_bytes(), (folder / "result.csv").read_text()


def test_save_figure_writes_picture_and_table(tmp_path):
    png, csv = draw(tmp_path / "a" / "new folder")
    assert png.startswith(b"\x89PNG")
    assert csv == "method,knn,half\nSimCLR,0.5,0.01\nCLSP-SimCLR,0.666667,0.02\n"
    pixels = plt.imread(tmp_path / "a" / "new folder" / "result.png")
    assert pixels.std() > 0.05  # something is drawn
    assert not plt.get_fignums()  # and closed, or notebooks show it twice


def test_save_figure_writes_the_same_bytes_again(tmp_path):
    first = draw(tmp_path)
    assert draw(tmp_path) == first
    assert draw(tmp_path / "elsewhere") == first


def test_the_picture_carries_its_caption_and_no_date_or_version(tmp_path):
    png, _ = draw(tmp_path)
    assert b"What is seen." in png
    assert b"matplotlib" not in png.lower() and b"tIME" not in png


def test_the_note_is_printed_on_the_figure_and_not_in_the_table(tmp_path):
    (_, csv), (_, same_csv) = draw(tmp_path / "plain"), draw(tmp_path / "noted", note="smoke")
    assert csv == same_csv
    a, b = (plt.imread(tmp_path / name / "result.png") for name in ("plain", "noted"))
    assert (a != b).any(2).mean() > 0.01


def test_dots_put_the_first_row_on_top_in_its_colour():
    _, ax = plt.subplots()
    figures.dots(ax, TABLE, "knn", "half")
    found = [container[0] for container in ax.containers]
    assert [line.get_xdata()[0] for line in found] == TABLE["knn"].tolist()
    assert [line.get_color() for line in found] == [figures.COLORS[m] for m in TABLE["method"]]
    assert [label.get_text() for label in ax.get_yticklabels()] == TABLE["method"].tolist()
    heights = [ax.transData.transform((0, line.get_ydata()[0]))[1] for line in found]
    assert heights[0] > heights[1]
    low, high = ax.containers[0][2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((0.49, 0.51))


def test_image_grid_shows_every_image_in_its_place():
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for n in (4, 2))
    fig = figures.image_grid([first, second / 255.0], ["anchors", "masks"], width=figures.HALF)
    assert fig.get_size_inches()[0] == figures.HALF
    picture = fig.axes[0].images[0].get_array()
    assert picture.shape == (18, 36, 3)
    white = np.full((8, 8, 3), 255)  # the short row ends early
    for top, row in ((0, first), (9, [*second, white, white])):
        for i, image in enumerate(row):
            np.testing.assert_array_equal(picture[top : top + 8, 9 * i : 9 * i + 8], image)
    assert (picture[8::9] == 255).all() and (picture[:, 8::9] == 255).all()
    labels = fig.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["anchors", "masks"]
    assert [label.get_position()[1] for label in labels] == [4, 13]  # in the middle of their rows


def test_image_grid_of_one_image():
    fig = figures.image_grid([np.zeros((1, 4, 4, 3), np.uint8)])
    assert fig.axes[0].images[0].get_array().shape == (5, 5, 3)


def test_every_compared_method_has_a_colour_of_its_own():
    colors = [figures.COLORS[method] for method in Study().methods]
    assert len(set(colors)) == len(Study().methods)


def test_every_method_has_a_colour_of_its_own():
    methods = set(METHODS) - {"supervised"}
    colors = {name: matplotlib.colors.to_rgb(figures.COLORS[name]) for name in methods}
    assert len(set(colors.values())) == len(methods)
