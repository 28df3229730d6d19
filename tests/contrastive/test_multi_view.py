"""Losses of several views: against slow loops and closed forms."""

import math
from itertools import combinations, permutations

import pytest
import torch
from torch.nn import functional as F

from clsp_utils.contrastive import cacr, mv_dhel, mv_info_nce, nt_xent, pairwise_nt_xent

LOSSES = {
    "pairwise_nt_xent": lambda u: pairwise_nt_xent(u, 0.2),
    "mv_info_nce": lambda u: mv_info_nce(u, 0.2),
    "mv_dhel": lambda u: mv_dhel(u, 0.2),
    "cacr": lambda u: cacr(u, 1.0, 0.9)[0],
}
every_loss = pytest.mark.parametrize("name", LOSSES)
views_and_anchors = pytest.mark.parametrize("n_views, n_anchors", [(2, 4), (3, 5), (4, 2)])
temperatures = pytest.mark.parametrize("temperature", [0.07, 0.5])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape, seed=0):
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def equal(n_views, n_anchors):
    return unit(8).expand(n_views, n_anchors, 8)


def dot(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist()))


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist()))


# Slow loops -----------------------------------------------------------------------------------


@views_and_anchors
@temperatures
def test_mv_info_nce_against_a_loop(n_views, n_anchors, temperature):
    u = unit(n_views, n_anchors, 7)
    rows = [(i, view) for i in range(n_anchors) for view in range(n_views)]
    loss = 0.0
    for i in range(n_anchors):
        positives, everything = 0.0, 0.0
        for view in range(n_views):
            for j, other in rows:
                if (j, other) != (i, view):
                    term = math.exp(dot(u[view, i], u[other, j]) / temperature)
                    everything += term
                    positives += term if j == i else 0.0
        loss -= math.log(positives / everything) / n_anchors
    assert mv_info_nce(u, temperature).item() == pytest.approx(loss, rel=1e-4)


@views_and_anchors
@temperatures
def test_mv_dhel_against_a_loop(n_views, n_anchors, temperature):
    u = unit(n_views, n_anchors, 7)
    loss = 0.0
    for i in range(n_anchors):
        positives = sum(
            math.exp(dot(u[a, i], u[b, i]) / temperature)
            for a, b in combinations(range(n_views), 2)
        )
        loss -= math.log(positives) / n_anchors
        for view in u:
            others = (dot(view[i], view[j]) for j in range(n_anchors) if j != i)
            loss += math.log(sum(math.exp(s / temperature) for s in others)) / n_anchors
    assert mv_dhel(u, temperature).item() == pytest.approx(loss, rel=1e-4)


def weighted(distances, t):
    """Weights that are softmax of `t` times the distances, and the weighted mean of these."""
    terms = [math.exp(t * d) for d in distances]
    weights = [term / sum(terms) for term in terms]
    return weights, sum(w * d for w, d in zip(weights, distances))


@views_and_anchors
@pytest.mark.parametrize("t_plus, t_minus", [(1.0, 0.9), (1.0, 2.0), (0.0, 0.0)])
def test_cacr_against_a_loop(n_views, n_anchors, t_plus, t_minus):
    u = unit(n_views, n_anchors, 7)
    attraction, repulsion, got = [], [], [[] for _ in range(n_views)]
    for a in range(n_views):
        others = [b for b in range(n_views) if b != a]
        for i in range(n_anchors):
            weights, mean = weighted([distance(u[a, i], u[b, i]) for b in others], t_plus)
            attraction.append(mean)
            for b, weight in zip(others, weights):
                got[b].append(weight)
                negatives = [distance(u[a, i], u[b, j]) for j in range(n_anchors) if j != i]
                repulsion.append(-weighted(negatives, -t_minus)[1])
    loss, p_plus = cacr(u, t_plus, t_minus)
    expected = sum(attraction) / len(attraction) + sum(repulsion) / len(repulsion)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert p_plus.tolist() == pytest.approx([sum(own) / len(own) for own in got], rel=1e-4)


@temperatures
def test_pairwise_nt_xent_of_two_views_is_nt_xent(temperature):
    u = unit(2, 6, 7)
    assert torch.equal(pairwise_nt_xent(u, temperature), nt_xent(u[0], u[1], temperature))


def test_pairwise_nt_xent_is_the_mean_over_pairs():
    a, b, c = u = unit(3, 6, 7)
    expected = (nt_xent(a, b, 0.2) + nt_xent(a, c, 0.2) + nt_xent(b, c, 0.2)) / 3
    torch.testing.assert_close(pairwise_nt_xent(u, 0.2), expected)


def test_mv_info_nce_of_two_views_is_not_nt_xent():
    u = unit(2, 6, 7)
    assert abs(mv_info_nce(u, 0.2) - nt_xent(u[0], u[1], 0.2)) > 0.01


# Closed forms ---------------------------------------------------------------------------------


@views_and_anchors
@temperatures
def test_equal_embeddings(n_views, n_anchors, temperature):
    u = equal(n_views, n_anchors)
    expected = math.log((n_anchors * n_views - 1) / (n_views - 1))
    assert mv_info_nce(u, temperature).item() == pytest.approx(expected, abs=1e-5)
    expected = -math.log(math.comb(n_views, 2)) - 1 / temperature
    expected += n_views * math.log(n_anchors - 1) + n_views / temperature
    assert mv_dhel(u, temperature).item() == pytest.approx(expected, rel=1e-5)
    expected = math.log(2 * n_anchors - 1)
    assert pairwise_nt_xent(u, temperature).item() == pytest.approx(expected, abs=1e-5)
    loss, p_plus = cacr(u, 1.0, 0.9)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert p_plus.tolist() == pytest.approx([1 / (n_views - 1)] * n_views)


def test_cacr_of_perfectly_separated_anchors():
    u = torch.eye(6).expand(3, 6, 6)  # views equal, anchors orthogonal
    assert cacr(u, 1.0, 0.9)[0].item() == pytest.approx(-2)


def test_cacr_weighs_the_far_view_more_and_weights_have_no_gradient():
    u = unit(3, 16, 8)
    u = torch.stack([u[0], F.normalize(u[0] + 0.1 * u[1], dim=1), u[2]]).requires_grad_()
    _, p_plus = cacr(u, 1.0, 0.9)
    assert p_plus[2] > 0.7 and p_plus[:2].max() < 0.5 and not p_plus.requires_grad
    assert p_plus.sum().item() == pytest.approx(3 / 2)


def test_mv_dhel_has_no_negatives_in_other_views():
    # Views that each spread alike: that anchors of one meet other anchors of another is no loss.
    u = torch.eye(6)
    apart = torch.stack([F.pad(u, (0, 6)), F.pad(u, (6, 0))])
    crossed = torch.stack([F.pad(u, (0, 6)), F.pad(u.roll(1, 0), (0, 6))])
    torch.testing.assert_close(mv_dhel(apart, 0.2), mv_dhel(crossed, 0.2))
    assert mv_info_nce(crossed, 0.2) > mv_info_nce(apart, 0.2) + 1


# All losses -----------------------------------------------------------------------------------


@every_loss
def test_permutation_of_views_and_of_anchors_changes_nothing(name):
    u = unit(3, 6, 7)
    for order in permutations(range(3)):
        torch.testing.assert_close(LOSSES[name](u[list(order)]), LOSSES[name](u))
        torch.testing.assert_close(
            cacr(u[list(order)], 1.0, 0.9)[1], cacr(u, 1.0, 0.9)[1][list(order)]
        )
    torch.testing.assert_close(LOSSES[name](u[:, [3, 0, 5, 1, 4, 2]]), LOSSES[name](u))


@every_loss
@pytest.mark.parametrize("n_views, n_anchors", [(2, 2), (3, 5)])
def test_gradients_are_finite_and_vanish_at_collapse(name, n_views, n_anchors):
    x = (3 * equal(n_views, n_anchors)).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](F.normalize(x, dim=-1)), x)
    assert gradient.isfinite().all() and gradient.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["pairwise_nt_xent", "mv_info_nce", "mv_dhel"])
def test_exponentials_do_not_overflow(name):
    # e^(1 / 0.005) is more than fp32 can hold.
    function = {"pairwise_nt_xent": pairwise_nt_xent, "mv_info_nce": mv_info_nce}.get(name, mv_dhel)
    x = normal(3, 8, 6).requires_grad_()
    loss = function(F.normalize(x, dim=-1), 0.005)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite() and gradient.isfinite().all()


@every_loss
def test_gradient_steps_lower_the_loss(name):
    x = normal(3, 8, 6).requires_grad_()
    values = []
    for _ in range(4):
        loss = LOSSES[name](F.normalize(x, dim=-1))
        values.append(loss.item())
        x.data -= 0.1 * torch.autograd.grad(loss, x)[0]
    assert values == sorted(values, reverse=True) and values[-1] < values[0] - 1e-3


def test_gradient_of_cacr_passes_through_its_weights():
    x, step = normal(3, 4, 5).requires_grad_(), 1e-2 * unit(3, 4, 5, seed=1)
    slope = (cacr(x + step, 1.0, 0.9)[0] - cacr(x - step, 1.0, 0.9)[0]) / 2
    (gradient,) = torch.autograd.grad(cacr(x, 1.0, 0.9)[0], x)
    assert (gradient * step).sum().item() == pytest.approx(slope.item(), rel=0.02)


@every_loss
def test_loss_is_fp32_from_bf16_and_needs_no_gradient(name):
    u = unit(3, 8, 6).bfloat16()
    loss = LOSSES[name](u)
    assert loss.dtype == torch.float32 and loss.shape == () and not loss.requires_grad
    torch.testing.assert_close(loss, LOSSES[name](u.float()))


@pytest.mark.parametrize("name", ["mv_info_nce", "mv_dhel", "cacr"])
def test_autocast_changes_nothing(name):
    u = unit(3, 8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](u)
    assert torch.equal(loss, LOSSES[name](u))
