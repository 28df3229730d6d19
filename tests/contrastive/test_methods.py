"""Methods: their weights, and each loss against slow loops."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from clsp_utils.config import METHODS, Backbone
from clsp_utils.contrastive import Batch, Encoder, build_method, feature_contrast
from clsp_utils.contrastive.methods.momentum import momentum_copy, momentum_update
from clsp_utils.runtime import ALONE

BACKBONE = Backbone(layers=(1,), width=8, stem_stride=2, hidden=32, projection=16)
TINY = Backbone(layers=(1, 1), width=8, hidden=16, projection=12)
TEMPERATURE = 0.2


def build(method, seed=0, **changes):
    """A method in training mode; `changes` are for methods whose settings have these fields."""
    kind = METHODS[method].settings
    names = {f.name for f in dataclasses.fields(kind)}
    fields = {"backbone": BACKBONE, "batch": 16, "queue": 40, "temperature": TEMPERATURE} | changes
    cfg = kind(**{name: value for name, value in fields.items() if name in names})
    return build_method(method, cfg, 10, seed).train()


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def batch(z, views):
    return Batch(z, views, torch.zeros(len(z[0])), ALONE, step=0, total=1)


def test_methods_start_from_the_same_weights():
    first = build("SimCLR")
    torch.manual_seed(99)  # the global state has no say
    for method in METHODS:
        other = build(method)
        assert same(first.encoder.backbone, other.encoder.backbone)
        if method != "supervised":
            assert same(first.encoder.projector, other.encoder.projector)
    assert not same(first.encoder, build("SimCLR", seed=1).encoder)


def test_building_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    build("SimCLR")
    assert torch.equal(torch.get_rng_state(), state)


# Momentum ---------------------------------------------------------------------------------------


def test_momentum_copy_is_equal_separate_and_without_gradients():
    encoder = Encoder(TINY)
    follower = momentum_copy(encoder)
    assert all(map(torch.equal, follower.state_dict().values(), encoder.state_dict().values()))
    assert not any(p.requires_grad for p in follower.parameters())
    assert all(p.requires_grad for p in encoder.parameters())
    with torch.no_grad():
        encoder.projector[0].bias.add_(1)
    assert not torch.equal(follower.projector[0].bias, encoder.projector[0].bias)


@pytest.mark.parametrize("m", [0.0, 0.3, 0.99, 1.0])
def test_momentum_update_against_its_formula(m):
    follower, encoder = momentum_copy(Encoder(TINY)), Encoder(TINY)
    before = [p.clone() for p in follower.parameters()]
    own = [p.detach().clone() for p in encoder.parameters()]
    momentum_update(follower, encoder, m)
    for p, old, new in zip(follower.parameters(), before, own, strict=True):
        torch.testing.assert_close(p, m * old + (1 - m) * new)
        if m in (0, 1):
            assert torch.equal(p, old if m else new)
    assert all(map(torch.equal, encoder.parameters(), own))


# MoCo -------------------------------------------------------------------------------------------


def moco_step(method, n=16, seed=0):
    views = [
        torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed + i)) for i in (0, 1)
    ]
    z = list(method.encoder(torch.cat(views)).chunk(2))
    return method.loss(batch(z, views)), z


@pytest.fixture
def moco():
    method = build("MoCoV2")
    with torch.no_grad():  # a key encoder that differs from the encoder
        for p in method.key_encoder.parameters():
            p.mul_(0.9)
    return method


def test_moco_loss_against_a_slow_loop(moco):
    loss, z = moco_step(moco)
    total = 0.0
    queues = moco.queue.rows
    for queries, keys, queue in ((z[0], moco.keys[1], queues[1]), (z[1], moco.keys[0], queues[0])):
        for q, k in zip(queries, keys):
            logits = torch.stack([q @ k, *(q @ old for old in queue)]) / TEMPERATURE
            total += -F.log_softmax(logits, 0)[0]
    torch.testing.assert_close(loss, total / 32)


def test_queue_takes_keys_in_order_and_wraps_round(moco):
    expected = moco.queue.rows.clone()
    for step in range(4):  # 64 keys into 40 places
        moco_step(moco, seed=10 * step)
        keys = [k.clone() for k in moco.keys]
        moco.after_step(0.5)
        for view in (0, 1):
            for i in range(16):
                expected[view, (16 * step + i) % 40] = keys[view][i]
        assert torch.equal(moco.queue.rows, expected)
    torch.testing.assert_close(moco.queue.rows.norm(dim=2), torch.ones(2, 40))


def test_keys_carry_no_gradient(moco):
    loss, _ = moco_step(moco)
    loss.backward()
    assert not any(k.requires_grad for k in moco.keys) and not moco.queue.rows.requires_grad
    assert all(p.grad is None for p in moco.key_encoder.parameters())
    assert all(p.grad is not None for p in moco.encoder.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_the_key_encoder_follows_by_a_momentum_that_rises_by_a_cosine(moco, progress):
    moco.key_encoder.start, moco.key_encoder.end = 0.2, 0.8
    momentum = {0.0: 0.2, 0.25: 0.5 - 0.3 * math.cos(math.pi / 4), 0.5: 0.5, 1.0: 0.8}[progress]
    moco_step(moco)
    before = [p.clone() for p in moco.key_encoder.parameters()]
    moco.after_step(progress)
    for p, old, new in zip(
        moco.key_encoder.parameters(), before, moco.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(p, momentum * old + (1 - momentum) * new.detach())


# Neighbours -------------------------------------------------------------------------------------


def test_nnclr_loss_against_a_slow_loop():
    method = build("NNCLR")
    z = [
        F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(i)), dim=1)
        for i in (0, 1)
    ]
    loss = method.loss(batch(z, z))
    total = 0.0
    for mine, other in ((0, 1), (1, 0)):
        p = F.normalize(method.predictor(z[mine]), dim=1)
        for i in range(8):
            best = max(method.queue.rows[0], key=lambda row: float(row @ z[other][i]))
            logits = torch.stack([best @ p[j] / TEMPERATURE for j in range(8)])
            total += -F.log_softmax(logits, 0)[i] / 16
    torch.testing.assert_close(loss, total)


def test_the_queue_of_nnclr_takes_the_first_views_embeddings():
    method = build("NNCLR")
    z = [
        F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(i)), dim=1)
        for i in (0, 1)
    ]
    before = method.queue.rows.clone()
    method.loss(batch(z, z))
    method.after_step(0.5)
    assert torch.equal(method.queue.rows[0, :8], z[0]) and torch.equal(
        method.queue.rows[0, 8:], before[0, 8:]
    )


@pytest.fixture
def all4one():
    method = build("All4One")
    with torch.no_grad():
        for p in method.key_encoder.parameters():
            p.mul_(0.9)
    return method


def test_all4one_loss_against_slow_loops(all4one):
    loss, z = moco_step(all4one, n=8)
    views = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    with torch.no_grad():
        keys = all4one.key_encoder.encoder(torch.cat(views)).chunk(2)
        predictions = [F.normalize(all4one.predictor(own), dim=1) for own in z]
        inserted = [all4one.second_predictor(own) for own in z]
    position = torch.tensor(
        [
            [f(p / 10_000 ** (2 * i / 16)) for i in range(8) for f in (math.sin, math.cos)]
            for p in range(5)
        ]
    )
    queue = all4one.queue.rows[0]

    def summary(rows):
        return F.normalize(all4one.attention((torch.stack(rows) + position)[None])[0, 0], dim=0)

    def found(view, i):
        return sorted(queue, key=lambda row: -float(row @ keys[view][i]))[:5]

    total = 0.0
    for mine, other in ((0, 1), (1, 0)):
        nearest = [found(mine, i) for i in range(8)]
        shifted = [summary([inserted[other][j], *found(other, j)[:4]]) for j in range(8)]
        for i in range(8):
            neighbours = (
                torch.stack([nearest[i][0] @ predictions[other][j] for j in range(8)]) / TEMPERATURE
            )
            centroids = (
                torch.stack([summary(nearest[i]) @ shifted[j] for j in range(8)]) / TEMPERATURE
            )
            total += (
                -(0.5 * F.log_softmax(neighbours, 0)[i] + 0.5 * F.log_softmax(centroids, 0)[i]) / 16
            )
    total += 5 * feature_contrast(list(keys), [z[1], z[0]])
    torch.testing.assert_close(loss, total)


def test_all4one_trains_all_its_networks_but_the_key_encoder_which_follows(all4one):
    before = all4one.queue.rows.clone()
    moco_step(all4one)[0].backward()
    for name in ("encoder", "predictor", "second_predictor", "attention"):
        for p in getattr(all4one, name).parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name
        assert any(p.grad.abs().sum() > 0 for p in getattr(all4one, name).parameters()), name
    assert (
        all(p.grad is None for p in all4one.key_encoder.parameters())
        and not all4one.queue.rows.requires_grad
    )
    old = next(all4one.key_encoder.parameters()).clone()
    all4one.after_step(0.5)
    assert torch.equal(all4one.queue.rows[0, :16], all4one.keys) and torch.equal(
        all4one.queue.rows[0, 16:], before[0, 16:]
    )
    assert not torch.equal(next(all4one.key_encoder.parameters()), old)
