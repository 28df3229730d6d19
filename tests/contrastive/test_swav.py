"""SwAV: Sinkhorn's algorithm in closed form and by a loop, and the loss by a slow loop."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clsp_utils.config import Backbone, SwAV
from clsp_utils.contrastive import Batch, build_method
from clsp_utils.contrastive.methods.swav import sinkhorn
from clsp_utils.runtime import ALONE

BACKBONE = Backbone(layers=(1,), width=8, hidden=32, projection=16)


def build(method="CLSP-SwAV", **changes):
    cfg = SwAV(backbone=BACKBONE, batch=8, queue=12, prototypes=6, **changes)
    return build_method(method, cfg, 10, seed=0).train()


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch(z, step=0):
    return Batch(z, z, torch.zeros(len(z[0])), ALONE, step=step, total=10)


def scaled_in_turn(scores, epsilon, iterations):
    """Sinkhorn's algorithm as it is written: columns to N / K, rows to 1."""
    q = np.exp(scores.double().numpy() / epsilon)
    n, k = q.shape
    for _ in range(iterations):
        for column in range(k):
            q[:, column] *= n / k / q[:, column].sum()
        for row in range(n):
            q[row] /= q[row].sum()
    return torch.from_numpy(q).float()


# Codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
@pytest.mark.parametrize("iterations", [1, 3])
def test_codes_against_a_loop(epsilon, iterations):
    scores = unit(9, 16) @ unit(5, 16, seed=1).T
    expected = scaled_in_turn(scores, epsilon, iterations)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected)


def test_rows_sum_to_one_and_columns_to_what_all_prototypes_get():
    q = sinkhorn(unit(12, 16) @ unit(4, 16, seed=1).T, 0.2, iterations=100)
    torch.testing.assert_close(q.sum(1), torch.ones(12))
    torch.testing.assert_close(q.sum(0), torch.full((4,), 12 / 4), rtol=1e-3, atol=0)
    assert (q >= 0).all() and q.std() > 0.05


def test_codes_of_equal_embeddings_are_uniform():
    scores = unit(1, 16).expand(8, 16) @ unit(5, 16, seed=1).T
    torch.testing.assert_close(sinkhorn(scores, 0.05), torch.full((8, 5), 1 / 5))


def test_codes_carry_no_gradient_and_do_not_overflow():
    scores = (unit(6, 16) @ unit(3, 16, seed=1).T).requires_grad_()
    q = sinkhorn(scores, 0.001)
    assert not q.requires_grad and q.isfinite().all()


# Loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("step", [0, 9])
def test_loss_against_a_loop(n_views, step):
    method = build(queue_from=0.5)
    z = [unit(8, 16, seed=i) for i in range(n_views)]
    method.queue.push([unit(12, 16, seed=7), unit(12, 16, seed=8)])
    c = method.prototypes.detach()
    total = 0.0
    for i in (0, 1):
        rows = torch.cat([method.queue.rows[i], z[i]]) if step >= 5 else z[i]
        codes = scaled_in_turn(rows @ c.T, 0.05, 3)[-8:]
        for v in range(n_views):
            if v != i:
                for j in range(8):
                    log_p = F.log_softmax(c @ z[v][j] / 0.1, 0)
                    total -= (codes[j] @ log_p).item() / 8 / (n_views - 1) / 2
    assert method.loss(batch(z, step)).item() == pytest.approx(total, rel=1e-4)


def test_loss_of_equal_embeddings_is_that_of_a_uniform_code():
    method = build()
    z = [unit(1, 16).expand(8, 16)] * 3
    log_p = F.log_softmax(method.prototypes.detach() @ z[0][0] / 0.1, 0)
    assert method.loss(batch(z)).item() == pytest.approx(-log_p.mean().item(), rel=1e-5)
    assert method.loss(batch(z)).item() >= math.log(6)


def test_a_third_view_predicts_and_sets_no_target():
    method = build()
    z = [unit(8, 16, seed=i).requires_grad_() for i in range(3)]
    method.loss(batch(z)).backward()
    method.after_step(0.1)
    assert all(own.grad.abs().sum() > 0 for own in z)
    assert torch.equal(method.queue.rows[:, :8], torch.stack(z[:2]).detach())


def test_prototypes_stay_until_they_are_free_and_then_have_unit_norm():
    method = build(freeze=0.5)
    z = [unit(8, 16, seed=i) for i in range(3)]
    before = method.prototypes.detach().clone()
    loss = method.loss(batch([own.requires_grad_() for own in z], step=4))
    loss.backward()
    assert method.prototypes.grad is None
    method.loss(batch(z, step=5)).backward()
    with torch.no_grad():
        method.prototypes -= method.prototypes.grad
    method.after_step(0.6)
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(6))
    assert not torch.allclose(method.prototypes, before)


def test_autocast_changes_nothing():
    method, z = build(), [unit(8, 16, seed=i) for i in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(batch(z))
    assert torch.equal(loss, method.loss(batch(z)))


def test_a_queue_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="queue=4 must be at least batch=8"):
        SwAV(batch=8, queue=4)
