"""Encoders: torchvision's ResNet with another stem, and unit-norm projections."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from clsp_utils.config import Backbone
from clsp_utils.contrastive import fast_conv
from clsp_utils.contrastive.backbone import Encoder, build_backbone

TINY = Backbone(layers=(1, 1), width=8, hidden=16, projection=12)


def images(n=4, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_projections_have_unit_norm():
    z = Encoder(TINY).eval()(images())
    assert z.shape == (4, 12)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(4))


def test_unit_norm_can_be_left_out():
    encoder = Encoder(TINY).eval()
    encoder.unit_norm = False
    z = encoder(images())
    torch.testing.assert_close(z, encoder.projector(encoder.backbone(images())))
    assert (z.norm(dim=1) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("max_pool", [False, True])
def test_width_64_and_four_stages_are_the_published_resnet18(max_pool):
    torch.manual_seed(0)
    ours = build_backbone(Backbone(layers=(2, 2, 2, 2), width=64, stem_stride=1, max_pool=max_pool))
    theirs = resnet18()
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.fc = nn.Identity()
    if not max_pool:
        theirs.maxpool = nn.Identity()
    for m in ours.modules():  # statistics that are not 0 and 1, or batch norm would go unseen
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.1), nn.init.uniform_(m.running_var, 0.5, 2)
    theirs.load_state_dict(ours.state_dict())  # strict: the names are torchvision's
    with torch.no_grad():
        assert torch.equal(ours.eval()(images(2, 32)), theirs.eval()(images(2, 32)))


def test_bottleneck_blocks_are_the_published_resnet50():
    cfg = Backbone(block="bottleneck", layers=(3, 4, 6, 3), width=64)
    with torch.device("meta"):  # shapes only: no weights are drawn
        ours, theirs = build_backbone(cfg).state_dict(), resnet50().state_dict()
    del theirs["fc.weight"], theirs["fc.bias"], theirs["conv1.weight"]
    assert {n: v.shape for n, v in ours.items() if n != "conv1.weight"} == {
        n: v.shape for n, v in theirs.items()
    }


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize(("block", "expansion"), [("basic", 1), ("bottleneck", 4)])
def test_n_features_is_what_comes_out(block, expansion, stages):
    net = build_backbone(Backbone(block=block, layers=(1,) * stages, width=8)).eval()
    assert net.n_features == 8 * 2 ** (stages - 1) * expansion
    assert net(images()).shape == (4, net.n_features)


@pytest.mark.parametrize(
    ("stride", "max_pool", "side"), [(1, False, 16), (2, False, 8), (1, True, 8), (2, True, 4)]
)
def test_stem_sets_the_resolution(stride, max_pool, side):
    net = build_backbone(Backbone(layers=(1,), width=8, stem_stride=stride, max_pool=max_pool))
    seen = []
    net.layer1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    net(images())
    assert seen == [(4, 8, side, side)]


def test_convolutions_start_as_in_torchvision():
    torch.manual_seed(0)
    net = build_backbone(Backbone(layers=(1, 1), width=64))
    for conv in (net.conv1, net.layer1[0].conv1, net.layer2[0].downsample[0]):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


# Fast convolution -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0)])
def test_the_gradient_for_few_pixels_is_that_of_conv2d(kernel, stride, padding):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 6, 4, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, kernel, kernel, generator=g, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride, padding)
    ours = fast_conv._FewPixels.apply(x, weight, (stride, stride), (padding, padding))
    assert torch.equal(ours, expected)
    grad = torch.randn(expected.shape, generator=g, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), grad),
        torch.autograd.grad(expected, (x, weight), grad),
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("size", "used"), [(4, True), (8, False)])
def test_the_gradient_for_few_pixels_is_used_in_bf16_and_there_only(monkeypatch, size, used):
    calls = []
    monkeypatch.setattr(
        fast_conv._FewPixels, "apply", lambda *args: calls.append(1) or F.conv2d(args[0], args[1])
    )
    conv = fast_conv.Conv2d(3, 4, 1, bias=False)
    conv(images(2, size))
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        conv(images(2, size))
    assert bool(calls) == used


def test_an_encoder_has_the_same_gradients_with_and_without_the_shortcut_for_few_pixels(
    monkeypatch,
):
    def gradients():
        torch.manual_seed(0)
        encoder = Encoder(Backbone(layers=(1, 1, 1), width=8)).train()
        with torch.autocast("cpu", torch.bfloat16):
            encoder(images(64)).square().mul(torch.arange(64.0)).sum().backward()
        return torch.cat([p.grad.flatten() for p in encoder.backbone.parameters()])

    ours = gradients()
    monkeypatch.setattr(fast_conv.Conv2d, "forward", nn.Conv2d.forward)
    theirs = gradients()
    assert not torch.equal(ours, theirs)
    assert (ours - theirs).norm() < 0.02 * theirs.norm()  # bf16 keeps eight bits
