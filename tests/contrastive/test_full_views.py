"""Methods to which all views are full ones: their loss over the ramp, and what CACR logs."""

import pytest
import torch
from torch.nn import functional as F

from clsp_utils.config import CACR, METHODS, Backbone, MultiView
from clsp_utils.contrastive import (
    Batch,
    build_method,
    cacr,
    mv_dhel,
    mv_info_nce,
    pairwise_nt_xent,
)
from clsp_utils.runtime import ALONE

BACKBONE = Backbone(layers=(1,), width=8, hidden=32, projection=16)
LOSSES = {
    "pairwise NT-Xent": lambda u: pairwise_nt_xent(u, 0.3),
    "MV-InfoNCE": lambda u: mv_info_nce(u, 0.3),
    "MV-DHEL": lambda u: mv_dhel(u, 0.3),
    "CACR": lambda u: cacr(u, 0.7, 1.5)[0],
}


def build(name, ramp):
    if name == "CACR":
        cfg = CACR(backbone=BACKBONE, ramp=ramp, t_plus=0.7, t_minus=1.5)
    else:
        cfg = MultiView(backbone=BACKBONE, ramp=ramp, temperature=0.3)
    return build_method(name, cfg, 10, seed=0)


def batch(step, total=10):
    g = torch.Generator().manual_seed(0)
    z = [F.normalize(torch.randn(6, 16, generator=g), dim=1) for _ in range(3)]
    return Batch(z, z, torch.zeros(6), ALONE, step, total)


@pytest.mark.parametrize("name", LOSSES)
def test_without_a_ramp_all_views_count_from_the_first_step_on(name):
    one = batch(0)
    torch.testing.assert_close(build(name, 0.0).loss(one), LOSSES[name](torch.stack(one.z)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("step", "risen"), [(0, 1 / 6), (2, 0.5), (5, 1.0), (9, 1.0)])
def test_the_loss_of_two_views_gives_way_to_that_of_all(name, step, risen):
    one = batch(step)
    u = torch.stack(one.z)
    expected = (1 - risen) * LOSSES[name](u[:2]) + risen * LOSSES[name](u)
    torch.testing.assert_close(build(name, 0.5).loss(one), expected)


def test_cacr_logs_the_weight_that_the_synthetic_view_gets():
    method, one = build("CACR", 0.0), batch(0)
    assert list(method.logged) == ["p_plus"]
    method.loss(one)
    assert method.logged["p_plus"] == cacr(torch.stack(one.z), 0.7, 1.5)[1][2].item()
    same = one._replace(z=[one.z[0]] * 3)
    method.loss(same)
    assert method.logged["p_plus"] == pytest.approx(0.5)  # equally far: one of two positives each


def test_only_cacr_logs_something():
    for name, recipe in METHODS.items():
        method = build_method(name, recipe.settings(backbone=BACKBONE), 10, seed=0)
        assert bool(method.logged) == (name == "CACR")
