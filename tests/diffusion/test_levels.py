"""What each level of a UNet hands on: order, shapes, and that it is what the UNet computes."""

import pytest
import torch

from clsp_utils.config import UNetShape
from clsp_utils.diffusion import build_unet, encode, level_outputs

SHAPES = {
    "two levels": (UNetShape(channels=(8, 16), groups=4), [(8, 4), (16, 4)], [(16, 8), (8, 8)]),
    "three, with attention": (
        UNetShape(channels=(8, 16, 24), layers=2, attention=(4,), groups=4),
        [(8, 4), (16, 2), (24, 2)],
        [(24, 4), (16, 8), (8, 8)],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_level_hands_on_what_the_next_one_gets(name):
    shape, down, up = SHAPES[name]
    torch.manual_seed(0)
    unet = build_unet(shape, 8).eval()
    x = torch.randn(3, 3, 8, 8)
    found = level_outputs(unet, x, 50)
    n = len(down)
    names = [f"encoder {i + 1}" for i in range(n)] + ["middle"]
    assert list(found) == names + [f"decoder {i + 1}" for i in range(n)]
    expected = [*down, down[-1], *up]
    assert [tuple(h.shape) for h in found.values()] == [(3, c, side, side) for c, side in expected]
    with torch.inference_mode():
        features = encode(unet, x, 50)
        assert torch.equal(found["middle"], features.h)
        assert torch.equal(found[f"encoder {n}"], features.skips[-1])
        last = found[f"decoder {n}"]
        out = unet.conv_out(unet.conv_act(unet.conv_norm_out(last)))
        assert torch.equal(out, unet(x, 50).sample)


def test_it_leaves_no_hook_behind_even_if_the_network_fails():
    unet = build_unet(UNetShape(channels=(8, 16), groups=4), 8).eval()
    level_outputs(unet, torch.zeros(1, 3, 8, 8), torch.tensor([3]))
    with pytest.raises(RuntimeError):
        level_outputs(unet, torch.zeros(1, 5, 8, 8), 3)
    assert not any(module._forward_hooks for module in unet.modules())
