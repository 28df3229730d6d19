"""The checks of notebook 07 on right answers, and on each mistake that they name."""

import numpy as np
import pytest

FEATURES = np.random.default_rng(0).normal(1, 2, (50, 4))
TRACE = np.cov(FEATURES.T).trace()


@pytest.mark.parametrize(
    "answer, part",
    [
        (TRACE, "✓"),
        (float(f"{TRACE:.4g}"), "✓"),
        (np.cov(FEATURES.T), "one number is expected, and the shape of this is (4, 4)"),
        (None, "not yet"),
        (0, "one picture has no spread"),
        (np.sqrt(TRACE), "a square already"),
        (2 * TRACE, "counts once"),
        ((FEATURES.mean(0) ** 2).sum(), "the means are equal"),
        (TRACE / 4, "sum the variances"),
        (np.cov(FEATURES).trace(), "np.cov(features.T)"),
        (FEATURES.var(0).sum(), "divides by N - 1"),
    ],
)
def test_collapsed(said, answer, part):
    assert part in said("07.1", answer, features=FEATURES)


@pytest.mark.parametrize(
    "answer, part",
    [
        (1 / 12, "✓"),
        (0.08, "✓"),
        (8.3, "not percent"),
        (1 / 360, "for six moments"),
        (1 / 24, "the mirror image"),
        (1 / 8, "4! orders"),
        (1 / 3, "for three moments"),
        (0, "never 0"),
    ],
)
def test_smallest_p(said, answer, part):
    assert part in said("07.2", answer)
