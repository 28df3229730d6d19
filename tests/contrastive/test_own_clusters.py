"""What a multistage method needs: negatives of the own cluster, encoders side by side."""

import math

import pytest
import torch
from torch.nn import functional as F

from clsp_utils.config import MCL, Backbone
from clsp_utils.contrastive import Batch, Encoder, Joined, backbones, build_method, nt_xent
from clsp_utils.runtime import ALONE

BACKBONE = Backbone(layers=(1,), width=8, hidden=32, projection=16)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("clusters", [(0, 0, 1, 1, 1, 2), (0, 0, 0, 0, 0, 0), (0, 1, 2, 3, 4, 5)])
def test_negatives_of_the_own_cluster_against_a_loop(clusters):
    z1, z2 = unit(6, 7), unit(6, 7, seed=1)
    rows, own = torch.cat([z1, z2]), clusters + clusters
    total = 0.0
    for i in range(12):
        terms = [
            math.exp(float(rows[i] @ rows[j]) / 0.2)
            for j in range(12)
            if j != i and own[j] == own[i]
        ]
        total -= math.log(math.exp(float(rows[i] @ rows[(i + 6) % 12]) / 0.2) / sum(terms)) / 12
    found = nt_xent(z1, z2, 0.2, torch.tensor(clusters))
    assert found.item() == pytest.approx(total, abs=1e-5)


def test_one_cluster_is_nt_xent_and_clusters_of_one_teach_nothing():
    z1, z2 = unit(6, 7).requires_grad_(), unit(6, 7, seed=1)
    assert torch.equal(nt_xent(z1, z2, 0.2, torch.zeros(6)), nt_xent(z1, z2, 0.2))
    alone = nt_xent(z1, z2, 0.2, torch.arange(6))
    assert alone.item() == 0 and torch.autograd.grad(alone, z1)[0].abs().max() == 0


def test_mcl_takes_the_labels_of_a_batch_as_clusters():
    method = build_method("MCL", MCL(backbone=BACKBONE, third_view=None), 3, seed=0)
    z, clusters = [unit(6, 16), unit(6, 16, seed=1)], torch.tensor([0, 0, 1, 1, 2, 2])
    batch = Batch(z, z, clusters, ALONE, step=0, total=1)
    assert torch.equal(method.loss(batch), nt_xent(*z, 0.2, clusters))


def test_encoders_side_by_side_give_the_features_of_all():
    one, two, three = (Encoder(BACKBONE).eval() for _ in range(3))
    x = torch.randn(4, 3, 8, 8)
    joined = Joined(Joined(one, two), three)
    expected = torch.cat([encoder.backbone(x) for encoder in (one, two, three)], 1)
    assert torch.equal(joined.backbone(x), expected) and joined.backbone is joined
    assert backbones(joined) == [one.backbone, two.backbone, three.backbone]
    assert backbones(two) == [two.backbone]
    assert not any("projector" in name for name in joined.state_dict())
