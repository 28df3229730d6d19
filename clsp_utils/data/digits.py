"""The default data set, which needs no download: handwritten digits on coloured backgrounds.

Digits that scikit-learn bundles are drawn in a random ink on a random wave between two colours. The
digit is the *content*, the rest is the *background*. Both are known exactly, which no photograph
offers.
"""

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from clsp_utils.config import Data
from clsp_utils.data.images import Images
from clsp_utils.data.pixels import LUMA

CONTRAST = 0.3  # least difference in lightness between ink and background, of 1
WAVELENGTHS = (0.5, 2.0)  # of a background, in sides of the image: from stripes to one gradient


def draw_factors(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws what makes `n` backgrounds, and the ink of the content on each.

    A background is a wave between two colours: its direction and phase are uniform, and so is the
    logarithm of its wavelength in `WAVELENGTHS`. All colours are uniform in RGB, given that the ink
    is lighter than both of the background's colours, or darker than both, by `CONTRAST`: a digit
    can be read wherever it lies, and no lightness says what is ink.

    Returns:
        `angle` and `phase` in [0, 2 pi), `wavelength` in sides of the image, `(n,)`; `colour_a`,
        `colour_b` and `ink`, `(n, 3)` in [0, 1].
    """
    angle, phase = rng.uniform(0, 2 * np.pi, (2, n))
    shortest, longest = np.log(WAVELENGTHS)
    wavelength = np.exp(rng.uniform(shortest, longest, n))
    colours = rng.random((3, n, 3))
    while True:
        a, b, ink = colours @ LUMA
        near = np.minimum(np.abs(ink - a), np.abs(ink - b)) < CONTRAST
        redo = near | ((ink > a) != (ink > b))
        if not redo.any():
            wave = {"angle": angle, "wavelength": wavelength, "phase": phase}
            return wave | dict(zip(("colour_a", "colour_b", "ink"), colours, strict=True))
        colours[:, redo] = rng.random((3, redo.sum(), 3))


def draw_background(factors: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Waves `(N, size, size, 3)` in [0, 1] from their factors (see `draw_factors`)."""
    grid = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    angle, wavelength, phase = (
        factors[name][:, None, None] for name in ("angle", "wavelength", "phase")
    )
    along = x * np.cos(angle) + y * np.sin(angle)
    height = 0.5 + 0.5 * np.cos(2 * np.pi * along / wavelength + phase)
    a, b = factors["colour_a"][:, None, None], factors["colour_b"][:, None, None]
    return a + (b - a) * height[..., None]


def draw_digits(
    strokes: np.ndarray, draws: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Draws each stroke `draws` times, each time with its own background and ink.

    Args:
        strokes: `(N, 8, 8)` ink coverage in [0, 1].
        draws: pictures of each stroke.
        size: pixels a side of a picture.
        rng: is drawn from.

    Returns:
        images uint8 `(N * draws, size, size, 3)`, backgrounds fp32 in [0, 1], and the factors.
    """
    cover = ndimage.zoom(strokes, (1, size / 8, size / 8), order=1, grid_mode=True, mode="nearest")
    return draw_on_waves(np.repeat(cover, draws, axis=0).clip(0, 1), rng)


def draw_on_waves(
    cover: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Lays ink, each time a random one, on random backgrounds (see `draw_factors`).

    Args:
        cover: `(N, size, size)` in [0, 1], how much of a pixel is ink.
        rng: is drawn from.

    Returns:
        images uint8 `(N, size, size, 3)`, backgrounds fp32 in [0, 1], and the factors.
    """
    factors = draw_factors(len(cover), rng)
    background = draw_background(factors, cover.shape[1])
    cover = cover[..., None]
    image = cover * factors["ink"][:, None, None] + (1 - cover) * background
    return np.rint(image * 255).astype(np.uint8), background.astype(np.float32), factors


def read_digits(cfg: Data) -> tuple[Images, Images]:
    """Training and test split; a group is a stroke, drawn on several backgrounds."""
    bunch = load_digits()
    strokes, labels = bunch.images / 16.0, bunch.target.astype(np.int64)
    names = tuple(map(str, bunch.target_names))
    parts = train_test_split(np.arange(len(labels)), test_size=500, random_state=0, stratify=labels)

    def draw(part: np.ndarray, draws: int, seed: int) -> Images:
        rng = np.random.default_rng(seed)
        images, background, factors = draw_digits(strokes[part], draws, cfg.size, rng)
        own_labels, groups = np.repeat(labels[part], draws), np.repeat(part, draws)
        return Images(images, own_labels, groups, names, background, factors)

    return draw(parts[0], cfg.draws, seed=1), draw(parts[1], 2, seed=2)
