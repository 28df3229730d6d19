"""Sets that are drawn: what is known of them, and splits that share no content."""

import numpy as np
import pytest
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font

from clsp_utils.config import Transfer
from clsp_utils.data import load_transfer
from clsp_utils.data.digits import CONTRAST, draw_background
from clsp_utils.data.drawn_sets import (
    FACES,
    LETTERS,
    SCRIPTS,
    TEXTURES,
    draw_glyph,
    glyphs_by_split,
    in_turn,
)
from clsp_utils.data.transfer_sets import DRAWN

SIZE, FEW = 16, Transfer(pictures=(300, 120, 200))
each = pytest.mark.parametrize("name", DRAWN)


@pytest.fixture(scope="module")
def sets():
    return {name: load_transfer(name, FEW, SIZE) for name in DRAWN}


def charmap(face):
    return FT2Font(f"{get_data_path()}/fonts/ttf/{face}.ttf").get_charmap()


@each
def test_shapes_and_ranges(sets, name):
    for part, n in zip(sets[name], FEW.pictures):
        assert part.images.shape == part.background.shape == (n, SIZE, SIZE, 3)
        assert part.images.dtype == np.uint8 and part.background.dtype == np.float32
        assert part.labels.shape == part.groups.shape == (n,)
        assert set(part.labels.tolist()) == set(range(len(part.class_names)))


@each
def test_two_draws_are_equal_and_another_size_has_the_same_labels(sets, name):
    again, larger = load_transfer(name, FEW, SIZE), load_transfer(name, FEW, 24)
    for part, same, other in zip(sets[name], again, larger):
        assert np.array_equal(part.images, same.images)
        assert np.array_equal(part.labels, other.labels) and other.images.shape[1] == 24


@each
def test_splits_share_no_content(sets, name):
    groups = [set(part.groups.tolist()) for part in sets[name]]
    assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & groups[2]
    colours = np.concatenate([part.background[:, 0, 0] for part in sets[name]])
    assert len(np.unique(colours, axis=0)) == len(colours), "no two pictures share a background"


@pytest.mark.parametrize("name", ["printed", "letters", "scripts"])
def test_no_glyph_is_in_two_splits_and_no_family_of_letters(name):
    classes, splits = glyphs_by_split(name)
    assert all(len(split) == len(classes) for split in splits)
    glyphs = [{glyph for of_class in split for glyph in of_class} for split in splits]
    assert not glyphs[0] & glyphs[1] and not (glyphs[0] | glyphs[1]) & glyphs[2]
    if name != "scripts":
        families = [{glyph[0].partition("-")[0][:11] for glyph in some} for some in glyphs]
        assert not families[0] & families[2] and not families[1] & families[2]
        assert not {x for some in families for x in some} - {
            "DejaVuSans", "DejaVuSerif", "DejaVuSansM", "STIXGeneral", "cmr10", "cmb10", "cmss10",
            "cmtt10",
        }  # fmt: skip


def test_a_group_is_one_glyph_of_one_class(sets):
    for name in ("printed", "letters", "scripts"):
        for part, of_class in zip(sets[name], glyphs_by_split(name)[1]):
            assert len(np.unique(part.groups)) <= sum(map(len, of_class))
            for group in np.unique(part.groups):
                assert len(np.unique(part.labels[part.groups == group])) == 1


def test_every_font_has_its_glyphs():
    wanted = {ord(character) for character in "0123456789" + "".join(LETTERS)}
    for face in sum(FACES, ()):
        assert wanted <= set(charmap(face)), face
    of_scripts = {code for a, b in SCRIPTS.values() for code in range(a, b + 1)}
    assert of_scripts <= set(charmap("DejaVuSans"))


@pytest.mark.parametrize("glyph", [("DejaVuSans", "W"), ("STIXGeneralItalic", "J"), ("cmr10", "1")])
def test_a_glyph_lies_in_the_middle(glyph):
    cover = np.asarray(draw_glyph(glyph, 64))
    for axis in (0, 1):
        inked = np.flatnonzero(cover.max(1 - axis))
        assert inked[0] > 0 and inked[-1] < 63, "nothing is cut off"
        assert abs((inked[0] + inked[-1]) / 2 - 31.5) <= 1.5
    assert cover.max() == 255


@each
def test_the_background_follows_from_its_factors_and_shows_where_there_is_no_ink(sets, name):
    part = sets[name].train
    background = draw_background(part.factors, SIZE)
    assert np.allclose(part.background, background, atol=1e-6)
    # A picture is cover * ink + (1 - cover) * background: the cover is the same in all channels.
    to_ink = part.factors["ink"][:, None, None] - background
    cover = ((part.images / 255 - background) * to_ink).sum(-1) / (to_ink**2).sum(-1)
    expected = background + cover[..., None] * to_ink
    assert np.abs(part.images / 255 - expected).max() < 1.01 / 255
    assert cover.min() > -0.02 and cover.max() < 1.02
    if name == "waves":
        assert np.abs(cover).max() < 0.02
    else:
        assert (cover < 0.02).mean() > 0.2 and (cover > 0.9).mean() > 0.02


@each
def test_classes_take_turns(sets, name):
    if name != "waves":  # directions are drawn
        for part in sets[name]:
            counts = np.bincount(part.labels)
            assert counts.max() - counts.min() <= 1


def test_options_take_turns_within_a_class():
    chosen = in_turn(12, [2, 3])
    assert chosen[:, 0].tolist() == [0, 1] * 6
    assert chosen[chosen[:, 0] == 0, 1].tolist() == [0, 1, 0, 1, 0, 1]
    assert chosen[chosen[:, 0] == 1, 1].tolist() == [0, 1, 2, 0, 1, 2]


def test_waves_are_told_apart_by_their_direction(sets):
    part = sets["waves"].test
    degrees = np.array([float(name.split()[0]) for name in part.class_names])[part.labels]
    angle = np.degrees(part.factors["angle"])
    off = np.abs((angle - degrees + 90) % 180 - 90)  # the opposite is the same wave
    assert off.max() <= 180 / len(part.class_names) / 2 + 1e-9


def test_textures_differ_by_class_and_by_picture(sets):
    part = sets["textures"].train
    assert part.class_names == tuple(TEXTURES)
    assert len(np.unique(part.images, axis=0)) == len(part)


def test_ink_is_far_from_the_background(sets):
    luma = np.array([0.299, 0.587, 0.114])
    for name in ("letters", "textures"):
        part = sets[name].train
        ink, paper = part.factors["ink"] @ luma, part.background @ luma
        assert np.abs(ink[:, None, None] - paper).min() > CONTRAST - 1e-5
