"""The Frechet distance: against closed forms."""

import numpy as np
import pytest

from clsp_utils.evaluation import frechet


def test_frechet_distance_of_a_shift_and_of_a_scale():
    x = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x + np.array([3, 4, 0, 0]), x) == pytest.approx(25)
    # Twice as wide about the same mean: tr(4 C + C - 2 sqrt(4 C C)) = tr(C).
    assert frechet(x.mean(0) + 2 * (x - x.mean(0)), x) == pytest.approx(np.trace(np.cov(x.T)))
