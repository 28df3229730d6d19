"""Grey levels: rounded, or cut off as a cast does."""

import torch

from clsp_utils.data import to_uint8

LEVELS = torch.arange(255.0)


def grey(levels, rounded):
    x = (levels / 127.5 - 1).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    out = to_uint8(x, rounded)
    assert out.dtype == torch.uint8 and out.shape == (1, 1, len(levels), 3)
    return out[0, 0, :, 0].float()


def test_levels_are_rounded_to_the_nearest_and_cut_off_to_the_one_below():
    for fraction in (0.25, 0.75):
        assert torch.equal(grey(LEVELS + fraction, rounded=True), LEVELS + (fraction > 0.5))
        assert torch.equal(grey(LEVELS + fraction, rounded=False), LEVELS)


def test_cutting_off_darkens_by_half_a_level():
    levels = torch.linspace(0.001, 254.999, 100_000)
    darker = grey(levels, rounded=True).mean() - grey(levels, rounded=False).mean()
    torch.testing.assert_close(darker, torch.tensor(0.5), atol=0.01, rtol=0)


def test_what_is_outside_is_clipped():
    x = torch.tensor([-3.0, -1.0, 1.0, 3.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    for rounded in (True, False):
        assert to_uint8(x, rounded)[0, 0, :, 0].tolist() == [0, 0, 255, 255]
