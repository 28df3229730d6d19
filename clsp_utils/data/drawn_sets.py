"""Data sets that need no download and are drawn on the waves that the digits lie on.

Of each the content is known, and so is the background. They lie at different distances from the
digits: printed digits in their place, letters, the letters of ten scripts that are told apart by
script, textures, and waves with nothing on them, where what the digits lie on is asked for.

matplotlib brings the fonts along. Training, validation and test show glyphs of different designs
(printed, letters), different glyphs (scripts), or different instances (textures, waves).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clsp_utils.config import Transfer
from clsp_utils.data.digits import draw_background, draw_factors, draw_on_waves
from clsp_utils.data.images import Images
from clsp_utils.runtime import seed_for

FINER = 4  # drawn with so many pixels for each, then averaged: no ragged edges
EM = 0.9  # size of a font, in sides of the image
# No two splits share a family, of which the members are variants of one design.
FACES = (
    ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
     "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique",
     "DejaVuSansMono-BoldOblique"),
    ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
     "cmr10", "cmb10", "cmss10", "cmtt10"),
)  # fmt: skip
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# First and last code point of letters whose glyphs DejaVu Sans has, and that no other script here
# resembles.
SCRIPTS = {
    "Arabic": (0x0627, 0x063A), "Armenian": (0x0561, 0x0587), "Braille": (0x2801, 0x28FF),
    "Canadian": (0x1454, 0x14BD), "Georgian": (0x10D0, 0x10F0), "Hebrew": (0x05D0, 0x05EA),
    "hexagrams": (0x4DC0, 0x4DFF), "Lisu": (0xA4D0, 0xA4F7), "Ogham": (0x1681, 0x169A),
    "Tifinagh": (0x2D30, 0x2D65),
}  # fmt: skip
SHARES = (0.6, 0.8)  # of the glyphs of a script, where validation and test begin


class Splits(NamedTuple):
    """One split to train on, one to choose settings on, and one that scores are reported on."""

    train: Images
    validation: Images
    test: Images


def in_turn(n: int, options: Sequence[int]) -> np.ndarray:
    """A class and one of its options for each of n pictures: both take turns.

    Args:
        options: of each class, how many there are.

    Returns:
        `(n, 2)`.
    """
    rounds, labels = np.divmod(np.arange(n), len(options))
    return np.stack([labels, rounds % np.asarray(options)[labels]], 1)


# glyphs -------------------------------------------------------------------------------------------

Glyph = tuple[str, str]  # name of the font's file, and character


def glyphs_by_split(name: str) -> tuple[tuple[str, ...], list[list[list[Glyph]]]]:
    """Names of the classes, and for each split the glyphs of every class."""
    if name == "scripts":
        rng = np.random.default_rng(0)
        shuffled = [rng.permutation(np.arange(a, b + 1)) for a, b in SCRIPTS.values()]
        parts = [np.split(x, [round(share * len(x)) for share in SHARES]) for x in shuffled]
        return tuple(SCRIPTS), [
            [[("DejaVuSans", chr(code)) for code in part] for part in split]
            for split in zip(*parts, strict=True)
        ]
    characters = tuple("0123456789") if name == "printed" else LETTERS
    return characters, [[[(face, x) for face in faces] for x in characters] for faces in FACES]


def draw_glyph(glyph: Glyph, side: int) -> Image.Image:
    """A glyph in the middle of an image of `side` x `side` grey levels, which are cover."""
    from matplotlib import get_data_path  # where fonts lie; its import takes a while

    face, character = glyph
    path = Path(get_data_path(), "fonts", "ttf", f"{face}.ttf")
    font = ImageFont.truetype(str(path), round(EM * side))
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
    return image


def distort(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by up to 15 degrees, sheared, scaled and shifted a little, all uniform."""
    angle, shear = rng.uniform(-np.pi / 12, np.pi / 12), rng.uniform(-0.2, 0.2)
    scale, shift = rng.uniform(0.85, 1.15), rng.uniform(-0.08, 0.08, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = turn @ np.array([[1, shear], [0, 1]]) / scale  # from a pixel to where it comes from
    centre = np.full(2, image.width / 2)
    offset = centre - back @ (centre + shift * image.width)
    coefficients = (*back[0], offset[0], *back[1], offset[1])
    how = Image.Resampling.BILINEAR
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, how)


def draw_glyphs(name: str, cfg: Transfer, size: int) -> Splits:
    """Splits of "printed", "letters" or "scripts"; a group is a glyph."""
    classes, splits = glyphs_by_split(name)
    parts, first = [], 0
    for number, (n, of_class) in enumerate(zip(cfg.pictures, splits, strict=True)):
        rng = np.random.default_rng(seed_for(name, number))
        drawn = [[draw_glyph(x, FINER * size) for x in glyphs] for glyphs in of_class]
        chosen = in_turn(n, [len(glyphs) for glyphs in of_class])
        cover = [np.asarray(distort(drawn[a][b], rng).reduce(FINER)) for a, b in chosen]
        before = np.cumsum([first, *(len(glyphs) for glyphs in of_class)])
        groups, first = before[chosen[:, 0]] + chosen[:, 1], before[-1]
        images, background, factors = draw_on_waves(np.stack(cover) / 255, rng)
        parts.append(Images(images, chosen[:, 0], groups, classes, background, factors))
    return Splits(*parts)


# textures -----------------------------------------------------------------------------------------


PERIODS = (0.25, 0.5)  # of a texture, in sides of the image


def _triangles(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Three waves at 60 degrees."""
    half, height = x / 2, y * 0.75**0.5
    return np.cos(x) + np.cos(half + height) + np.cos(half - height)


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Joints between rows and across them; every other row is shifted by half a brick."""
    row = np.floor(y / (2 * np.pi))
    return np.maximum(np.cos(y), np.cos(x / 4 + np.pi / 2 * row) ** 16)


def _noise(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sum of 24 waves in random directions: smooth noise of one wavelength."""
    angle, phase = rng.uniform(0, 2 * np.pi, (2, 24))
    waves = (np.cos(x * np.cos(a) + y * np.sin(a) + p) for a, p in zip(angle, phase, strict=True))
    return np.sum(list(waves), axis=0)


def _cells(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much nearer the nearest of random points is than the next: 0 on the edges of cells."""
    points = rng.uniform(-18, 25, (60, 2))  # all that coordinates may come to
    distance = np.hypot(x - points[:, :1, None], y - points[:, 1:, None])
    nearest, next_one = np.partition(distance, 1, axis=0)[:2]
    return next_one - nearest


# Where there is ink, in coordinates of which 2 pi are a period.
TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "stripes": lambda x, y, rng: np.cos(x) > 0,
    "checks": lambda x, y, rng: np.cos(x) * np.cos(y) > 0,
    "dots": lambda x, y, rng: np.cos(x) + np.cos(y) > 0.7,
    "grid": lambda x, y, rng: np.maximum(np.cos(x), np.cos(y)) > 0.7,
    "bricks": lambda x, y, rng: _bricks(x, y) > 0.7,
    "zigzag": lambda x, y, rng: np.cos(x + 2 * np.abs(y / np.pi % 2 - 1)) > 0,
    "rings": lambda x, y, rng: np.cos(np.hypot(x, y)) > 0,
    "triangles": lambda x, y, rng: _triangles(x, y) > 0.2,
    "spots": lambda x, y, rng: _noise(x, y, rng) > 2,
    "cells": lambda x, y, rng: _cells(x, y, rng) < 1.5,
}


def draw_textures(cfg: Transfer, size: int) -> Splits:
    """Ten textures, each picture turned, shifted and scaled at random; a group is a picture."""
    grid = (np.arange(FINER * size) + 0.5) / (FINER * size) - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    parts, first = [], 0
    for number, n in enumerate(cfg.pictures):
        rng = np.random.default_rng(seed_for("textures", number))
        labels, cover = np.arange(n) % len(TEXTURES), np.empty((n, size, size))
        for i, kind in enumerate(list(TEXTURES.values())[label] for label in labels):
            angle, period = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(*np.log(PERIODS)))
            u, v = (
                2 * np.pi / period * (x * np.cos(a) + y * np.sin(a)) + rng.uniform(0, 2 * np.pi)
                for a in (angle, angle + np.pi / 2)
            )
            cover[i] = kind(u, v, rng).reshape(size, FINER, size, FINER).mean((1, 3))
        images, background, factors = draw_on_waves(cover, rng)
        groups = first + np.arange(n)
        parts.append(Images(images, labels, groups, tuple(TEXTURES), background, factors))
        first += n
    return Splits(*parts)


# waves --------------------------------------------------------------------------------------------

DIRECTIONS = 8  # of waves; the opposite of a direction is the same


def draw_waves(cfg: Transfer, size: int) -> Splits:
    """Backgrounds alone, told apart by their direction; a group is a picture."""
    names = tuple(f"{180 * i / DIRECTIONS:g} degrees" for i in range(DIRECTIONS))
    parts, first = [], 0
    for number, n in enumerate(cfg.pictures):
        factors = draw_factors(n, np.random.default_rng(seed_for("waves", number)))
        background = draw_background(factors, size)
        images = np.rint(background * 255).astype(np.uint8)
        sector = np.round(factors["angle"] / np.pi * DIRECTIONS).astype(np.int64)
        groups = first + np.arange(n)
        background = background.astype(np.float32)
        parts.append(Images(images, sector % DIRECTIONS, groups, names, background, factors))
        first += n
    return Splits(*parts)
