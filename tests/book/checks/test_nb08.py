"""The checks of notebook 08 on right answers, and on each mistake that they name."""

import pytest

RIGHT = (40**2 + 15**2 + 5**2) / 60**2


@pytest.mark.parametrize(
    "answer, part",
    [
        (RIGHT, "✓ 08.1: 0.514, less than the purity of 0.667"),
        (None, "not yet"),
        (0.51, "✓"),
        (100 * RIGHT, "not percent"),
        (51, "not percent"),
        (2 / 3, "that is the purity"),
        (1 / 3, "not as a third"),
        (60 * RIGHT, "divide once more"),
        (1 - RIGHT, "the chance to differ"),
    ],
)
def test_agreement(said, answer, part):
    assert part in said("08.1", answer)


@pytest.mark.parametrize(
    "answer, part",
    [
        (lambda c, n, g: (1 + g) * c - g * n, "✓ 08.2: g = 0 is the condition alone"),
        (lambda c, n, g: n + (1 + g) * (c - n), "✓ 08.2"),
        (lambda c, n, g: None, "not yet"),
        (lambda c, n, g: (1 + g) * n - g * c, "reversed"),
        (lambda c, n, g: (1 - g) * c + g * n, "a mean of the two"),
        (lambda c, n, g: (1 + g) * c, "sum to 1"),
        (lambda c, n, g: g * (c - n), "its share is 1 + g"),
        (lambda c, n, g: n + g * (c - n), "start from it"),
        (lambda c, n, g: c, "off by up to"),
    ],
)
def test_guidance(said, answer, part):
    assert part in said("08.2", answer)
