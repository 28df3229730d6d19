"""Pretraining: every method learns, resumes exactly, and sees the views that its name promises."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clsp_utils import data, methods, pretrain, training
from clsp_utils.config import Data, Encoder, Pretrain, Views
from clsp_utils.losses import feature_contrast
from clsp_utils.methods import METHODS, MoCoV2, build
from clsp_utils.pretrain import draw_candidates

CFG = Pretrain(
    encoder=Encoder(layers=(1,), width=8, stem_stride=2, hidden=32, projection=16),
    epochs=4, batch=32, queue=48, lr=0.05, warmup=1.0,
)
SYNTHETIC = [name for name, recipe in METHODS.items() if recipe.needs_bank]


def settings(method, **changes):
    return dataclasses.replace(CFG, method=method, **changes)


@pytest.fixture(scope="module")
def split():
    return data.load(Data())[0][:64]


@pytest.fixture(scope="module")
def train(split, tmp_path_factory):
    """`train(cfg)` gives encoder and losses; the bank's candidates are the anchors, slightly darker."""
    bank = np.stack([split.images - split.images // 10, split.images - split.images // 5], 1)

    def run(cfg, work=None):
        work = work or tmp_path_factory.mktemp("work")
        return pretrain.pretrain(cfg, split.images, split.labels, split.statistics, work, "fp32", bank)

    return run


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Learning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(train, method):
    # Weak views and a queue that the first step fills: what is left to fall is the method's loss.
    views = Views(crop_area=(0.6, 1.0), p_jitter=0.0, p_grey=0.0)
    encoder, losses = train(settings(method, epochs=20, queue=32, views=views))
    assert losses.shape == (40,) and not encoder.training
    assert losses[-8:].mean() < losses[2:10].mean() - 0.05


@pytest.mark.parametrize("method", SYNTHETIC)
def test_a_method_with_synthetic_positives_needs_a_bank(split, tmp_path, method):
    with pytest.raises(ValueError, match=method):
        pretrain.pretrain(settings(method), split.images, split.labels, split.statistics, tmp_path, "fp32")


def test_a_batch_larger_than_the_data_is_the_data(train):
    assert train(settings("SimCLR", batch=100, queue=100))[1].shape == (4,)


# Reproducibility --------------------------------------------------------------------------------


# Steps 3 and 4 lie on both sides of the border between two epochs.
@pytest.mark.parametrize("saved", [3, 4])
@pytest.mark.parametrize("method", ["SimCLR", "CLSP-MoCoV2", "All4One", "supervised"])
def test_resumed_equals_uninterrupted_bit_for_bit(train, tmp_path, monkeypatch, killed, method, saved):
    cfg = settings(method, clsp_ramp=0.5)
    unbroken, losses = train(cfg)
    with killed(after=5, saved=saved):
        train(cfg, tmp_path)

    steps = []
    original = training.Checkpoint.after_step
    monkeypatch.setattr(
        training.Checkpoint, "after_step", lambda self, step, *rest: (steps.append(step), original(self, step, *rest))
    )
    resumed, resumed_losses = train(cfg, tmp_path)
    assert steps == list(range(saved, 8))  # it did go on, rather than start anew
    assert np.array_equal(losses, resumed_losses)
    assert same(unbroken, resumed)


def test_methods_start_from_the_same_weights():
    first = build(CFG, 10)
    torch.manual_seed(99)  # the global state has no say
    for method in METHODS:
        other = build(settings(method), 10)
        assert same(first.encoder.backbone, other.encoder.backbone)
        if method != "supervised":
            assert same(first.encoder.projector, other.encoder.projector)
    assert not same(first.encoder, build(settings("SimCLR", seed=1), 10).encoder)


def test_building_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    build(CFG, 10)
    assert torch.equal(torch.get_rng_state(), state)


OTHERS = {
    "clsp_weight": 3.0, "clsp_ramp": 0.9, "queue": 40, "key_momentum": 0.5, "key_momentum_end": 0.6, "temperature": 0.7
}


@pytest.mark.parametrize("method", METHODS)
def test_ignored_settings_do_not_change_the_result_and_others_do(train, method):
    first, losses = train(settings(method))
    ignored = {name: OTHERS[name] for name in METHODS[method].ignores}
    again, same_losses = train(settings(method, **ignored))
    assert np.array_equal(losses, same_losses) and same(first, again)
    for name in OTHERS.keys() - ignored.keys():
        assert not same(first, train(settings(method, **{name: OTHERS[name]}))[0]), name


def test_seed_changes_the_result(train):
    assert not np.array_equal(train(CFG)[1], train(settings("SimCLR", seed=1))[1])


# Views ------------------------------------------------------------------------------------------


@pytest.fixture
def views(monkeypatch):
    """Every batch that is augmented and the views that come out, in order."""
    seen = []
    augment = pretrain.augment

    def spy(images, *rest):
        seen.append((images.clone(), augment(images, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(pretrain, "augment", spy)
    return seen


def test_methods_of_a_seed_see_the_same_anchors_in_the_same_views(train, views, split):
    rows = {}
    for method in METHODS:
        views.clear()
        train(settings(method))
        n = METHODS[method].base.n_views + bool(METHODS[method].third)
        assert len(views) == 8 * n
        rows[method] = [views[i : i + n] for i in range(0, len(views), n)]
    for method, steps in rows.items():
        for (anchors, first), *others in steps:
            assert not any(torch.equal(first, view) for _, view in others)
        for mine, reference in zip(steps, rows["SimCLR"], strict=True):
            for (images, view), (expected, expected_view) in zip(mine[:2], reference):
                assert torch.equal(images, expected) and torch.equal(view, expected_view), method
    # An epoch shows every image once, and the next epoch in another order.
    epochs = [torch.cat([rows["SimCLR"][i][0][0] for i in pair]).numpy() for pair in ((0, 1), (2, 3))]
    assert not np.array_equal(*epochs)
    for epoch in epochs:
        assert sorted(map(bytes, epoch)) == sorted(map(bytes, split.images))


def test_the_third_view_shows_the_anchor_or_one_of_its_candidates(train, views):
    for method, darker in (("third view", (0,)), ("CLSP-SimCLR", (10, 5))):
        views.clear()
        train(settings(method))
        for (anchors, _), _, (source, _) in zip(*[iter(views)] * 3):
            allowed = [anchors - anchors // d if d else anchors for d in darker]
            matches = torch.stack([(source == images).all((1, 2, 3)) for images in allowed])
            assert matches.any(0).all() and matches.any(1).all()  # only those, and each of them


def test_draw_candidates_picks_from_the_anchors_own_row():
    # A pixel of candidate j of anchor i says (i, j).
    bank = np.zeros((50, 4, 2, 2, 3), np.uint8)
    bank[..., 0], bank[..., 1] = np.arange(50)[:, None, None, None], np.arange(4)[:, None, None]
    anchors = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:40]
    drawn = draw_candidates(bank, anchors, torch.Generator().manual_seed(1))
    assert drawn.shape == (40, 2, 2, 3) and drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, 0, 0, 0].long(), anchors)
    assert set(drawn[:, 0, 0, 1].tolist()) == {0, 1, 2, 3}
    assert not torch.equal(drawn, draw_candidates(bank, anchors, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("method", [name for name, recipe in METHODS.items() if recipe.third])
@pytest.mark.parametrize(
    ("ramp", "expected"),
    [(0.0, [2.0] * 8), (0.5, [0.4, 0.8, 1.2, 1.6, 2, 2, 2, 2])],
)
def test_weight_of_the_third_view_rises_over_the_ramp(train, monkeypatch, method, ramp, expected):
    # With a base loss of nothing and a term of one, the loss is the weight.
    for name in ("nt_xent", "info_nce"):
        monkeypatch.setattr(methods, name, lambda z, *rest: 0 * z.sum())
    monkeypatch.setattr(pretrain, "clsp_term", lambda z, z3: 1 + 0 * z.sum())
    _, losses = train(settings(method, clsp_weight=2.0, clsp_ramp=ramp))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_the_extra_term_pulls_the_second_view_to_the_third(train, monkeypatch):
    seen = []
    for module, name in ((methods, "nt_xent"), (pretrain, "clsp_term")):
        def spy(a, b, *rest, original=getattr(module, name)):
            seen.append((a, b))
            return original(a, b, *rest)

        monkeypatch.setattr(module, name, spy)
    train(settings("CLSP-SimCLR", epochs=1))
    (view1, view2), (anchor, positive) = seen[:2]
    assert torch.equal(anchor, view2)
    assert not torch.equal(positive, view1) and not torch.equal(positive, view2)


# MoCo -------------------------------------------------------------------------------------------


def moco_step(method, n=16, seed=0):
    views = [torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed + i)) for i in (0, 1)]
    z = list(method.encoder(torch.cat(views)).chunk(2))
    return method.loss(z, views, torch.zeros(n)), z


@pytest.fixture
def moco():
    method = MoCoV2(settings("MoCoV2", queue=40, batch=16), 10).train()
    with torch.no_grad():  # a twin that differs from the encoder
        for p in method.twin.parameters():
            p.mul_(0.9)
    return method


def test_moco_loss_against_a_slow_loop(moco):
    loss, z = moco_step(moco)
    total = 0.0
    for queries, keys, queue in ((z[0], moco.keys[1], moco.queue.rows[1]), (z[1], moco.keys[0], moco.queue.rows[0])):
        for q, k in zip(queries, keys):
            logits = torch.stack([q @ k, *(q @ old for old in queue)]) / CFG.temperature
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
    assert all(p.grad is None for p in moco.twin.parameters())
    assert all(p.grad is not None for p in moco.encoder.parameters())


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_twin_follows_by_a_momentum_that_rises_by_a_cosine(moco, progress):
    moco.twin.start, moco.twin.end = 0.2, 0.8
    momentum = {0.0: 0.2, 0.25: 0.5 - 0.3 * math.cos(math.pi / 4), 0.5: 0.5, 1.0: 0.8}[progress]
    moco_step(moco)
    before = [p.clone() for p in moco.twin.parameters()]
    moco.after_step(progress)
    for p, old, new in zip(moco.twin.parameters(), before, moco.encoder.parameters(), strict=True):
        torch.testing.assert_close(p, momentum * old + (1 - momentum) * new.detach())


# Neighbours -------------------------------------------------------------------------------------


def test_nnclr_loss_against_a_slow_loop():
    method = build(settings("NNCLR", queue=40), 10).train()
    z = [F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(i)), dim=1) for i in (0, 1)]
    loss = method.loss(z, z, torch.zeros(8))
    total = 0.0
    for mine, other in ((0, 1), (1, 0)):
        p = F.normalize(method.predictor(z[mine]), dim=1)
        for i in range(8):
            best = max(method.queue.rows[0], key=lambda row: float(row @ z[other][i]))
            logits = torch.stack([best @ p[j] / CFG.temperature for j in range(8)])
            total += -F.log_softmax(logits, 0)[i] / 16
    torch.testing.assert_close(loss, total)


def test_the_queue_of_nnclr_takes_the_first_views_embeddings():
    method = build(settings("NNCLR", queue=40), 10).train()
    z = [F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(i)), dim=1) for i in (0, 1)]
    before = method.queue.rows.clone()
    method.loss(z, z, torch.zeros(8))
    method.after_step(0.5)
    assert torch.equal(method.queue.rows[0, :8], z[0]) and torch.equal(method.queue.rows[0, 8:], before[0, 8:])


@pytest.fixture
def all4one():
    method = build(settings("All4One", queue=40, batch=16), 10).train()
    with torch.no_grad():
        for p in method.twin.parameters():
            p.mul_(0.9)
    return method


def test_all4one_loss_against_slow_loops(all4one):
    loss, z = moco_step(all4one, n=8)
    views = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    with torch.no_grad():
        keys = all4one.twin.encoder(torch.cat(views)).chunk(2)
        predictions = [F.normalize(all4one.predictor(own), dim=1) for own in z]
        inserted = [all4one.second_predictor(own) for own in z]
    position = torch.tensor([[f(p / 10_000 ** (2 * i / 16)) for i in range(8) for f in (math.sin, math.cos)] for p in range(5)])
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
            neighbours = torch.stack([nearest[i][0] @ predictions[other][j] for j in range(8)]) / CFG.temperature
            centroids = torch.stack([summary(nearest[i]) @ shifted[j] for j in range(8)]) / CFG.temperature
            total += -(0.5 * F.log_softmax(neighbours, 0)[i] + 0.5 * F.log_softmax(centroids, 0)[i]) / 16
    total += 5 * feature_contrast(list(keys), [z[1], z[0]])
    torch.testing.assert_close(loss, total)


def test_all4one_trains_all_its_networks_but_the_twin_which_follows(all4one):
    before = all4one.queue.rows.clone()
    moco_step(all4one)[0].backward()
    for name in ("encoder", "predictor", "second_predictor", "attention"):
        for p in getattr(all4one, name).parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name
        assert any(p.grad.abs().sum() > 0 for p in getattr(all4one, name).parameters()), name
    assert all(p.grad is None for p in all4one.twin.parameters()) and not all4one.queue.rows.requires_grad
    old = next(all4one.twin.parameters()).clone()
    all4one.after_step(0.5)
    assert torch.equal(all4one.queue.rows[0, :16], all4one.keys) and torch.equal(all4one.queue.rows[0, 16:], before[0, 16:])
    assert not torch.equal(next(all4one.twin.parameters()), old)


def test_the_log_has_a_row_an_epoch_and_scores_where_they_were_asked_for(split, tmp_path):
    scores = iter([0.25, 0.5])
    cfg = settings("SimCLR", watch_every=2)
    _, losses = pretrain.pretrain(
        cfg, split.images, split.labels, split.statistics, tmp_path, "fp32", watch=lambda backbone: next(scores)
    )
    log = [line.split(",") for line in (tmp_path / "log.csv").read_text().split()]
    assert log[0] == ["epoch", "loss", "lr", "knn"]
    assert [row[0] for row in log[1:]] == ["1", "2", "3", "4"]
    assert [row[3] for row in log[1:]] == ["", "0.2500", "", "0.5000"]
    np.testing.assert_allclose([float(row[1]) for row in log[1:]], losses.reshape(4, 2).mean(1), atol=1e-5)
    assert float(log[1][2]) == pytest.approx(cfg.lr * training.warmup_cosine(1, 8, 2), abs=1e-6)


def test_watching_does_not_change_the_result(train, split, tmp_path):
    encoder, losses = train(settings("CLSP-MoCoV2"))
    bank = np.stack([split.images - split.images // 10, split.images - split.images // 5], 1)
    watch = lambda backbone: backbone(torch.zeros(2, 3, 16, 16)).sum().item()  # noqa: E731
    cfg = settings("CLSP-MoCoV2", watch_every=1)
    watched = pretrain.pretrain(cfg, split.images, split.labels, split.statistics, tmp_path, "fp32", bank, watch)
    assert np.array_equal(losses, watched[1]) and same(encoder, watched[0])
