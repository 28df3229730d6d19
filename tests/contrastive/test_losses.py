"""Losses against slow loops and closed forms."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from clsp_utils.contrastive import (
    clsp_term,
    feature_contrast,
    info_nce,
    nearest,
    neighbour_nce,
    nt_xent,
    sup_con,
)
from clsp_utils.contrastive.losses import spread


def unit(*shape, seed=0):
    rows = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=-1)


def dot(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist()))


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_nt_xent_against_a_loop(temperature):
    n = 5
    z = [*unit(n, 7), *unit(n, 7, seed=1)]
    loss = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = sum(math.exp(dot(z[i], z[j]) / temperature) for j in range(2 * n) if j != i)
        loss -= math.log(math.exp(dot(z[i], z[partner]) / temperature) / others) / (2 * n)
    found = nt_xent(unit(n, 7), unit(n, 7, seed=1), temperature)
    assert found.item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_nt_xent_of_equal_embeddings(n):
    z = unit(1, 8).expand(n, 8)
    assert nt_xent(z, z, 0.2).item() == pytest.approx(math.log(2 * n - 1), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_nt_xent_of_perfectly_separated_pairs(temperature):
    n, z = 6, torch.eye(6)  # partners equal, all others orthogonal
    expected = math.log(math.exp(1 / temperature) + 2 * n - 2) - 1 / temperature
    assert nt_xent(z, z, temperature).item() == pytest.approx(expected, abs=1e-6)


def test_nt_xent_does_not_depend_on_which_view_is_first():
    a, b = unit(9, 4), unit(9, 4, seed=1)
    torch.testing.assert_close(nt_xent(a, b, 0.2), nt_xent(b, a, 0.2))


def test_nt_xent_wants_partners_in_the_same_row():
    z = torch.eye(6)
    assert nt_xent(z, z.roll(1, 0), 0.2) > nt_xent(z, z, 0.2) + 1


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_against_a_loop(temperature):
    q, k, queue = unit(5, 7), unit(5, 7, seed=1), unit(11, 7, seed=2)
    loss = 0.0
    for i in range(5):
        right = math.exp(dot(q[i], k[i]) / temperature)
        wrong = sum(math.exp(dot(q[i], past) / temperature) for past in queue)
        loss -= math.log(right / (right + wrong)) / 5
    found = info_nce(q, k, queue.float(), temperature)
    assert found.item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("size", [1, 10, 100])
def test_info_nce_of_equal_embeddings(size):
    z = unit(1, 8).float()
    loss = info_nce(z.expand(4, 8), z.expand(4, 8), z.expand(size, 8), 0.2)
    assert loss.item() == pytest.approx(math.log(size + 1), abs=1e-5)


@pytest.mark.parametrize(
    "sign, expected", [(1, 0), (0, 2), (-1, 4)], ids=["same", "orthogonal", "opposite"]
)
def test_clsp_term_of_known_angles(sign, expected):
    z = torch.eye(6)
    positive = sign * z if sign else z.roll(1, 0)
    assert clsp_term(z, positive).item() == expected


def test_clsp_term_has_value_and_gradient_of_two_minus_two_cos():
    raw, positive = (
        torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
        unit(5, 7).float(),
    )
    results = []
    for loss in (
        lambda x: clsp_term(F.normalize(x, dim=1), positive),
        lambda x: (2 - 2 * F.cosine_similarity(x, positive)).mean(),
    ):
        x = raw.clone().requires_grad_()
        value = loss(x)
        results.append((value.detach(), *torch.autograd.grad(value, x)))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][1].abs().max() > 0.01


LOSSES = {
    "nt_xent": lambda z: nt_xent(z, unit(8, 6, seed=1).float(), 0.2),
    "info_nce": lambda z: info_nce(z, unit(8, 6, seed=1).float(), unit(20, 6, seed=2).float(), 0.2),
    "clsp_term": lambda z: clsp_term(z, unit(8, 6, seed=1).float()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_steps_lower_the_loss(name):
    x = unit(8, 6).float().requires_grad_()
    values = []
    for _ in range(4):
        loss = LOSSES[name](F.normalize(x, dim=1))
        values.append(loss.item())
        x.data -= 0.1 * torch.autograd.grad(loss, x)[0]
    assert values == sorted(values, reverse=True) and values[-1] < values[0] - 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_fp32_from_bf16_and_needs_no_gradient(name):
    z = unit(8, 6).bfloat16()
    loss = LOSSES[name](z)
    assert loss.dtype == torch.float32 and loss.shape == () and not loss.requires_grad
    torch.testing.assert_close(loss, LOSSES[name](z.float()))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_sup_con_against_a_loop(temperature):
    z, labels = unit(9, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])
    total = 0.0
    for i in range(9):
        others = sum(math.exp(dot(z[i], z[j]) / temperature) for j in range(9) if j != i)
        positives = [j for j in range(9) if j != i and labels[j] == labels[i]]
        total -= (
            sum(math.log(math.exp(dot(z[i], z[p]) / temperature) / others) for p in positives)
            / len(positives)
            / 9
        )
    assert sup_con(z, labels, temperature).item() == pytest.approx(total, rel=1e-5)


def test_sup_con_of_classes_of_one_image_is_nt_xent():
    z1, z2 = unit(6, 4), unit(6, 4, seed=1)
    labels = torch.arange(6)
    torch.testing.assert_close(
        sup_con(torch.cat([z1, z2]), torch.cat([labels, labels]), 0.3), nt_xent(z1, z2, 0.3)
    )


def test_sup_con_has_a_gradient_without_nan():
    z = unit(6, 4).float().requires_grad_()
    sup_con(z, torch.tensor([0, 0, 1, 1, 2, 2]), 0.1).backward()
    assert z.grad.isfinite().all() and z.grad.abs().sum() > 0


def test_nearest_are_the_rows_of_the_queue_with_the_largest_cosine():
    z, queue = unit(4, 6).float(), unit(20, 6, seed=1).float()
    found = nearest(z, queue, 3)
    assert found.shape == (4, 3, 6)
    for own, rows in zip(z, found):
        expected = sorted(queue, key=lambda row: -dot(row, own))[:3]
        assert torch.equal(rows, torch.stack(expected))


def test_neighbour_nce_against_a_loop():
    n, p = unit(5, 7), unit(5, 7, seed=1)
    total = 0.0
    for i in range(5):
        total -= (
            math.log(
                math.exp(dot(n[i], p[i]) / 0.2)
                / sum(math.exp(dot(n[i], p[j]) / 0.2) for j in range(5))
            )
            / 5
        )
    assert neighbour_nce(n, p, 0.2).item() == pytest.approx(total, rel=1e-5)


def test_feature_contrast_against_a_loop_and_its_least_value():
    a, b, c, d = (torch.randn(50, 3, generator=torch.Generator().manual_seed(i)) for i in range(4))
    own, other = [], []
    for x, y in ((a, c), (b, d)):
        for i in range(3):
            for j in range(3):
                cosine = dot(x[:, i], y[:, j]) / math.sqrt(
                    dot(x[:, i], x[:, i]) * dot(y[:, j], y[:, j])
                )
                own.append((1 - cosine) ** 2) if i == j else other.append(cosine**2)
    expected = (math.sqrt(sum(own) / 6) + math.sqrt(sum(other) / 12)) / 2
    assert feature_contrast([a, b], [c, d]).item() == pytest.approx(expected, rel=1e-4)
    orthogonal = torch.linalg.qr(a).Q
    assert feature_contrast([orthogonal] * 2, [3 * orthogonal] * 2).item() == pytest.approx(
        0, abs=1e-5
    )


# How far apart projections lie --------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 50])
def test_the_spread_of_one_vector_is_nothing(n):
    assert spread(unit(1, 8).expand(n, 8)) == pytest.approx(0, abs=1e-3)
    assert spread(torch.eye(8)[:1].expand(n, 8)) == 0


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_the_spread_of_vectors_whose_mean_is_nothing_is_one(dim):
    axes = torch.eye(dim)
    assert spread(torch.cat([axes, -axes])) == 1


def test_the_spread_of_two_vectors_is_the_sine_of_half_their_angle():
    for angle in (0.1, 1.0, 2.5, math.pi):
        z = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
        assert spread(z) == pytest.approx(math.sin(angle / 2), rel=1e-4)


def test_spread_is_the_root_of_half_the_mean_squared_distance():
    z = unit(9, 5)
    squares = [(a - b).square().sum().item() for a, b in itertools.product(z, z)]
    found = spread(z)
    assert type(found) is float
    assert found == pytest.approx(math.sqrt(sum(squares) / 81 / 2), rel=1e-5)


def test_spread_of_bf16_stays_in_its_range():
    z = unit(1, 64).bfloat16().expand(100, 64)  # whose length is a little more or less than 1
    assert 0 <= spread(z) < 0.1
