"""RankMe, alignment and uniformity: against slow loops and closed forms."""

import math

import pytest
import torch

from clsp_utils.evaluation import GEOMETRY, alignment, geometry, rank_me, uniformity


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values, n=60, d=12):
    """Features `(n, d)` in general position, whose singular values are these, then zeros."""
    left, right = (torch.linalg.qr(normal(size, len(values), seed=size)).Q for size in (n, d))
    return left @ torch.diag(torch.tensor(values)) @ right.T


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_rank_me_of_k_equal_singular_values_is_k(k):
    assert rank_me(with_singular_values([3.0] * k)) == pytest.approx(k, rel=1e-4)


def test_rank_me_against_a_loop():
    values = [5.0, 2.0, 0.7, 0.1]
    entropy = 0.0
    for value in values:
        entropy -= value / sum(values) * math.log(value / sum(values))
    features = with_singular_values(values)
    assert rank_me(features) == pytest.approx(math.exp(entropy), rel=1e-4)
    assert rank_me(0.01 * features) == pytest.approx(math.exp(entropy), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, -70.0])
def test_rank_me_of_a_constant_is_1(value):
    assert rank_me(torch.full((500, 32), value)) == pytest.approx(1, abs=1e-3)


def test_rank_me_is_at_most_the_number_of_images_or_of_features():
    assert 4 < rank_me(normal(5, 100)) <= 5 + 1e-4
    assert 4 < rank_me(normal(100, 5)) <= 5 + 1e-4


@pytest.mark.parametrize(
    "sign, expected", [(1, 0), (0, 2), (-1, 4)], ids=["same", "orthogonal", "opposite"]
)
def test_alignment_of_known_angles(sign, expected):
    z = torch.eye(6)
    partner = sign * z if sign else z.roll(1, 0)
    assert alignment(z, partner) == expected
    assert alignment(7 * z, 0.1 * partner) == pytest.approx(expected, abs=1e-6)


def test_alignment_against_a_loop():
    z1, z2 = normal(9, 5), normal(9, 5, seed=1)
    total = 0.0
    for a, b in zip(z1, z2):
        total += sum((x - y) ** 2 for x, y in zip((a / a.norm()).tolist(), (b / b.norm()).tolist()))
    assert alignment(z1, z2) == pytest.approx(total / 9, rel=1e-5)


@pytest.mark.parametrize(
    "z, expected",
    [
        (torch.ones(7, 4), 0),
        (torch.tensor([[1.0, 0.0], [-3.0, 0.0]]), -8),
        (2 * torch.eye(5), -4),
        # The three corners of a triangle have a squared distance of 3.
        (torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]), -6),
    ],
    ids=["equal", "opposite", "orthogonal", "triangle"],
)
def test_uniformity_of_known_angles(z, expected):
    assert uniformity(z) == pytest.approx(expected, abs=1e-5)


def test_uniformity_against_a_loop():
    z = normal(11, 5)
    u = [row / row.norm() for row in z]
    pairs = [(i, j) for i in range(11) for j in range(11) if i != j]
    mean = sum(math.exp(-2 * (u[i] - u[j]).square().sum()) for i, j in pairs) / len(pairs)
    assert uniformity(z) == pytest.approx(math.log(mean), rel=1e-5)


@pytest.mark.parametrize("cosines", [1, 101, 3 * 101, 40 * 101 + 7, 101 * 101])
def test_size_of_a_block_changes_nothing(monkeypatch, cosines):
    z = normal(101, 8)
    expected = uniformity(z)
    monkeypatch.setattr(geometry, "COSINES", cosines)
    assert uniformity(z) == pytest.approx(expected, rel=1e-6)


def test_uniformity_of_50_000_features_needs_less_than_a_gigabyte():
    blocks = 4 * geometry.COSINES * 4  # cosines, their multiples, exponentials, those above
    features = 2 * 50_000 * 512 * 4  # as they come, and of unit norm
    assert geometry.COSINES >= 50_000 and blocks + features < 1e9


def test_measures_are_of_bf16_features_too():
    z = normal(20, 6).bfloat16()
    assert rank_me(z) == rank_me(z.float())
    assert alignment(z, z.roll(1, 0)) == alignment(z.float(), z.float().roll(1, 0))
    assert uniformity(z) == uniformity(z.float())


def test_geometry_by_name_of_a_collapsed_and_of_a_spread_encoder():
    same, spread = torch.ones(6, 4), torch.eye(6)
    found = {name: measure(same, same) for name, measure in GEOMETRY.items()}
    assert found == pytest.approx({"rank_me": 1, "alignment": 0, "uniformity": 0}, abs=1e-5)
    found = {name: measure(spread, -spread) for name, measure in GEOMETRY.items()}
    assert found == pytest.approx({"rank_me": 6, "alignment": 4, "uniformity": -4})
