"""Pretraining: every method learns, resumes exactly, and sees the views that its name promises."""

import csv
import dataclasses
import importlib
import itertools
import warnings

import numpy as np
import pytest
import torch

from clsp_utils import data, runtime
from clsp_utils.config import METHODS, Backbone, Data, Recipe, ThirdView, Views
from clsp_utils.contrastive import Batch, Encoder, Method, build_method, pretrain
from clsp_utils.contrastive.methods import base, moco, simclr
from clsp_utils.contrastive.methods.momentum import MomentumEncoder

# `contrastive.pretrain` is the function; the module is behind it.
loop = importlib.import_module("clsp_utils.contrastive.pretrain")

BACKBONE = Backbone(layers=(1,), width=8, stem_stride=2, hidden=32, projection=16)
SYNTHETIC = [
    name
    for name, recipe in METHODS.items()
    if recipe.more_anchors or not set(recipe.views) <= {"anchor", "recoloured"}
]
THIRD = [
    name
    for name, recipe in METHODS.items()
    if len(recipe.views) > 2 and hasattr(recipe.settings, "third_view")
]


def settings(method, **changes):
    """Small settings of a method; the queue is there for methods that have one."""
    fields = {"backbone": BACKBONE, "epochs": 4, "batch": 32, "lr": 0.05, "warmup": 1.0}
    fields |= {"queue": 48, "third_view": ThirdView() if method in THIRD else None} | changes
    kind = METHODS[method].settings
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in fields.items() if name in names})


@pytest.fixture(scope="module")
def split():
    return data.load(Data())[0][:64]


def darker(split):
    """A bank whose candidates are the anchors, slightly darker."""
    return np.stack([split.images - split.images // 10, split.images - split.images // 5], 1)


@pytest.fixture(scope="module")
def train(split, tmp_path_factory):
    """`train(method)` gives encoder and losses."""
    bank = darker(split)

    def run(method, work=None, seed=0, watch=None, **changes):
        cfg = settings(method, **changes)
        work = work or tmp_path_factory.mktemp("work")
        anchors = split.images, split.labels, split.statistics
        return pretrain(method, cfg, *anchors, seed, work, "fp32", bank, watch)

    return run


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Learning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(train, method):
    # Weak views, a queue that the first step fills, one loss throughout: what is left to fall is
    # the method's loss.
    views = Views(crop_area=(0.6, 1.0), p_jitter=0.0, p_grey=0.0)
    encoder, losses = train(method, epochs=20, queue=32, views=views, ramp=0.0)
    assert losses.shape == (40,) and not encoder.training
    assert losses[-8:].mean() < losses[2:10].mean() - 0.05


@pytest.mark.parametrize("method", SYNTHETIC)
def test_a_method_with_synthetic_positives_needs_a_bank(split, tmp_path, method):
    with pytest.raises(ValueError, match=method):
        pretrain(
            method,
            settings(method),
            split.images,
            split.labels,
            split.statistics,
            0,
            tmp_path,
            "fp32",
        )


def test_a_recoloured_view_needs_no_bank(train, split, tmp_path):
    method = "recoloured third view"
    anchors = split.images, split.labels, split.statistics
    encoder, losses = pretrain(method, settings(method), *anchors, 0, tmp_path, "fp32")
    with_bank = train(method)
    assert np.array_equal(losses, with_bank[1]) and same(encoder, with_bank[0])


def test_a_batch_larger_than_the_data_is_the_data(train):
    assert train("SimCLR", batch=100)[1].shape == (4,)


# Reproducibility --------------------------------------------------------------------------------


# Steps 3 and 4 lie on both sides of the border between two epochs.
@pytest.mark.parametrize("saved", [3, 4])
@pytest.mark.parametrize("method", ["SimCLR", "CLSP-MoCoV2", "All4One", "supervised"])
def test_resumed_equals_uninterrupted_bit_for_bit(
    train, tmp_path, monkeypatch, killed, method, saved
):
    ramp = {"third_view": ThirdView(ramp=0.5)}
    unbroken, losses = train(method, **ramp)
    with killed(after=5, saved=saved):
        train(method, tmp_path, **ramp)

    steps = []
    original = runtime.Checkpoint.after_step

    def after_step(self, step, *rest):
        steps.append(step)
        original(self, step, *rest)

    monkeypatch.setattr(runtime.Checkpoint, "after_step", after_step)
    resumed, resumed_losses = train(method, tmp_path, **ramp)
    assert steps == list(range(saved, 8))  # it did go on, rather than start anew
    assert np.array_equal(losses, resumed_losses)
    assert same(unbroken, resumed)


# Another value of every field of every class of settings; `watch_every` alone shapes no result.
OTHERS = {
    "backbone": dataclasses.replace(BACKBONE, hidden=24), "views": Views(p_grey=0.9), "epochs": 3,
    "batch": 16, "lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "warmup": 0.0, "temperature": 0.7,
    "queue": 40, "key_momentum": 0.5, "key_momentum_end": 0.6, "batch_norm": "per_view",
    "ramp": 0.9, "t_plus": 3.0, "t_minus": 0.5, "epsilon": 0.5, "prototypes": 20, "freeze": 0.8,
    "queue_from": 0.0,
}  # fmt: skip
THIRD_VIEWS = {"third_view.weight": ThirdView(weight=3.0), "third_view.ramp": ThirdView(ramp=0.9)}


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_of_a_method_changes_the_result(train, method):
    own = {f.name for f in dataclasses.fields(METHODS[method].settings)}
    none = {"watch_every", "third_view"} | {"stages", "clusters"}  # these two shape other runs
    if len(METHODS[method].views) == 1:
        none.add("batch_norm")
    changes = [(name, {name: OTHERS[name]}) for name in own - none]
    if method in THIRD:
        changes += [(name, {"third_view": value}) for name, value in THIRD_VIEWS.items()]
    first, _ = train(method)
    for name, change in changes:
        assert not same(first, train(method, **change)[0]), name


@pytest.mark.parametrize("method", sorted(METHODS.keys() - set(THIRD)))
def test_settings_of_a_third_view_shape_no_method_without_one(train, method):
    first, losses = train(method, third_view=None)
    again, same_losses = train(method, third_view=ThirdView(weight=3.0, ramp=0.9))
    assert np.array_equal(losses, same_losses)
    assert same(first, again)


@pytest.mark.parametrize("method", THIRD)
def test_a_third_view_needs_its_settings(train, method):
    with pytest.raises(ValueError, match="third_view=None"):
        train(method, third_view=None)


def test_seed_changes_the_result(train):
    assert not np.array_equal(train("SimCLR")[1], train("SimCLR", seed=1)[1])


# Views ------------------------------------------------------------------------------------------


@pytest.fixture
def views(monkeypatch):
    """Every batch that is augmented and the views that come out, in order."""
    seen = []
    augment = loop.augment

    def spy(images, *rest):
        view = augment(images, *rest)
        seen.append((images.cpu().clone(), view.cpu()))
        return view

    monkeypatch.setattr(loop, "augment", spy)
    return seen


def test_methods_of_a_seed_see_the_same_anchors_in_the_same_views(train, views, split):
    rows = {}
    for method in METHODS:
        views.clear()
        train(method)
        n = len(METHODS[method].views)
        assert len(views) == 8 * n
        rows[method] = [views[i : i + n] for i in range(0, len(views), n)]
    for method, steps in rows.items():
        for (_, first), *others in steps:
            assert not any(torch.equal(first, view) for _, view in others)
        if METHODS[method].more_anchors:
            continue  # its anchors are others
        for mine, reference in zip(steps, rows["SimCLR"], strict=True):
            for (images, view), (expected, expected_view) in zip(mine[:2], reference):
                assert torch.equal(images, expected) and torch.equal(view, expected_view), method
    # An epoch shows every image once, and the next epoch in another order.
    epochs = [
        torch.cat([rows["SimCLR"][i][0][0] for i in pair]).numpy() for pair in ((0, 1), (2, 3))
    ]
    assert not np.array_equal(*epochs)
    for epoch in epochs:
        assert sorted(map(bytes, epoch)) == sorted(map(bytes, split.images))


def test_the_third_view_shows_the_anchor_or_one_of_its_candidates(train, views):
    for method, parts in (("third view", (0,)), ("CLSP-SimCLR", (10, 5))):
        views.clear()
        train(method)
        for (anchors, _), _, (source, _) in zip(*[iter(views)] * 3):
            allowed = [anchors - anchors // d if d else anchors for d in parts]
            matches = torch.stack([(source == images).all((1, 2, 3)) for images in allowed])
            assert matches.any(0).all() and matches.any(1).all()  # only those, and each of them


@pytest.mark.parametrize("method", ["CLSP-SimCLR", "recoloured third view"])
def test_views_are_cut_from_larger_anchors_and_come_at_the_size_of_the_bank(
    split, views, tmp_path, method
):
    large = split.images.repeat(2, 1).repeat(2, 2)
    anchors = large, split.labels, split.statistics
    pretrain(
        method, settings(method, epochs=1), *anchors, 0, tmp_path, "fp32", darker(split), size=16
    )
    for (first, view), (second, _), (third, of_third) in zip(*[iter(views)] * 3):
        assert torch.equal(first, second) and first.shape[1:] == (32, 32, 3)
        assert third.shape[1:] == ((16, 16, 3) if method == "CLSP-SimCLR" else (32, 32, 3))
        assert view.shape == of_third.shape == (32, 3, 16, 16)


def test_in_turn_each_candidate_has_its_part_of_the_run(train, views):
    train("CLSP-SimCLR in turn")  # 4 epochs of 2 steps, 2 candidates
    for step, ((anchors, _), _, (source, _)) in enumerate(zip(*[iter(views)] * 3)):
        assert torch.equal(source, anchors - anchors // (10 if step < 4 else 5))


def test_candidates_in_turn_are_the_same_from_bank_and_first_views_on(train, views):
    seen = {}
    for method in ("CLSP-SimCLR", "CLSP-SimCLR in turn"):
        views.clear()
        train(method)
        seen[method] = [view for i, (_, view) in enumerate(views) if i % 3 < 2]
    assert all(map(torch.equal, *seen.values()))


def test_inflation_adds_anchors_at_the_same_number_of_steps(train, views, split):
    _, losses = train("inflation", epochs=30)
    assert len(losses) == len(train("SimCLR", epochs=30)[1]) == 60
    steps = list(zip(*[iter(views[:120])] * 2))
    assert all(torch.equal(one, other) for (one, _), (other, _) in steps)  # two views of an image
    assert not any(torch.equal(one, other) for (_, one), (_, other) in steps)
    bank = darker(split)
    names = {bytes(image): "anchor" for image in split.images}
    names |= {bytes(image): f"candidate {j}" for j in (0, 1) for image in bank[:, j]}
    shown = [[bytes(image) for image in one.numpy()] for (one, _), _ in steps]
    counts = dict.fromkeys(names.values(), 0)
    for first, second in zip(shown[::2], shown[1::2]):  # the two steps of an epoch
        assert len({*first, *second}) == 64  # none twice within an epoch
        for image in (*first, *second):
            counts[names[image]] += 1
    for count in counts.values():  # 1,920 images of three kinds, evenly but for chance
        assert count == pytest.approx(640, abs=100)


def test_the_recoloured_view_shows_the_anchors_in_the_colours_of_a_step(train, views):
    train("recoloured third view")
    steps = list(zip(*[iter(views)] * 3))
    for step, ((anchors, _), (second, _), (source, _)) in enumerate(steps):
        assert torch.equal(second, anchors)
        # Of the whole batch, by a generator of the step: processes that share it see the same.
        colours = runtime.generator(0, "colours", step)
        assert torch.equal(source, data.recolour(anchors, colours))
        assert (source != anchors).flatten(1).any(1).all()
    views.clear()
    train("SimCLR")
    for (first, second, _), expected in zip(steps, zip(*[iter(views)] * 2), strict=True):
        for (images, view), (expected_images, expected_view) in zip((first, second), expected):
            assert torch.equal(images, expected_images) and torch.equal(view, expected_view)


@pytest.mark.parametrize("method", THIRD)
@pytest.mark.parametrize(
    ("ramp", "expected"),
    [(0.0, [2.0] * 8), (0.5, [0.4, 0.8, 1.2, 1.6, 2, 2, 2, 2])],
)
def test_weight_of_the_third_view_rises_over_the_ramp(train, monkeypatch, method, ramp, expected):
    # With a base loss of nothing and a term of one, the loss is the weight.
    for module, name in ((simclr, "nt_xent"), (moco, "info_nce")):
        monkeypatch.setattr(module, name, lambda z, *rest: 0 * z.sum())
    monkeypatch.setattr(base, "clsp_term", lambda z, z3: 1 + 0 * z.sum())
    _, losses = train(method, third_view=ThirdView(weight=2.0, ramp=ramp))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize("batch_norm", ["joint", "per_view", "first_view"])
@pytest.mark.parametrize("method", ["CLSP-SimCLR", "CLSP-MoCoV2"])
def test_batch_norm_sees_all_views_together_or_one_by_one(train, monkeypatch, method, batch_norm):
    seen, z, forward = [], [], Encoder.forward
    together = batch_norm == "joint"

    def spy(self, x):
        seen.append(x)
        return forward(self, x)

    def see_batch(self, batch):
        z.append((batch.views, batch.z, self.encoder.backbone.bn1.running_mean.clone()))
        return sum(own.sum() for own in batch.z)

    monkeypatch.setattr(Encoder, "forward", spy)
    monkeypatch.setattr(base.Method, "loss", see_batch)
    monkeypatch.setattr(moco.MoCoV2, "after_step", lambda self, progress: None)
    train(method, epochs=1, batch_norm=batch_norm)
    n = len(METHODS[method].views)
    assert [len(x) for x in seen] == [32 * n] * 2 if together else [32] * 2 * n
    views, projected, running = z[0]
    first = build_method(method, settings(method), 10, 0).encoder.train().to(runtime.device())
    groups = [torch.cat(views)] if together else views
    running_means = []
    with torch.no_grad():
        expected = []
        for group in groups:
            expected.append(forward(first, group))
            running_means.append(first.backbone.bn1.running_mean.clone())
    torch.testing.assert_close(torch.cat(projected), torch.cat(expected), atol=1e-5, rtol=1e-4)
    moved = running_means[0 if batch_norm == "first_view" else -1]
    torch.testing.assert_close(running, moved, atol=1e-6, rtol=1e-4)
    assert together or (running_means[0] - running_means[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("batch_norm", ["joint", "per_view"])
def test_the_encoder_of_keys_normalises_as_the_other_does(batch_norm):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x + len(seen)

    cfg = settings("MoCoV2", batch_norm=batch_norm)
    views = [torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 3)]
    keys = MomentumEncoder(Spy(), cfg).keys(views, runtime.ALONE)
    assert seen == ([4] if batch_norm == "joint" else [2, 2])
    assert [len(k) for k in keys] == [2, 2] and not keys[0].equal(keys[1])


def test_the_extra_term_pulls_the_second_view_to_the_third(train, monkeypatch):
    seen = []

    def spied(loss):
        return lambda a, b, *rest: (seen.append((a, b)), loss(a, b, *rest))[1]

    monkeypatch.setattr(simclr, "nt_xent", spied(simclr.nt_xent))
    monkeypatch.setattr(base, "clsp_term", spied(base.clsp_term))
    train("CLSP-SimCLR", epochs=1)
    (view1, view2), (anchor, positive) = seen[:2]
    assert torch.equal(anchor, view2)
    assert not torch.equal(positive, view1) and not torch.equal(positive, view2)


class Nearer(Method):
    """A method of somebody else: a loss of its own over five views."""

    def __init__(self, cfg, n_classes):
        super().__init__(cfg)

    def loss(self, batch: Batch):
        assert len(batch.z) == len(batch.views) == 5
        first, *others = batch.z
        return sum((first - z).square().sum(1).mean() for z in others)


def test_a_new_method_is_a_module_a_line_and_any_number_of_views(train, views, monkeypatch):
    sources = ("anchor", "anchor", "synthetic", "anchor", "synthetic")
    monkeypatch.setattr(simclr, "Nearer", Nearer, raising=False)
    recipe = Recipe("simclr.Nearer", "simclr", METHODS["SimCLR"].settings, sources)
    monkeypatch.setitem(METHODS, "nearer", recipe)
    _, losses = train("nearer")
    assert losses[-1] < losses[0]
    steps = [views[i : i + 5] for i in range(0, len(views), 5)]
    for (anchors, _), *others in steps:
        for (images, _), source in zip(others, sources[1:]):
            assert torch.equal(images, anchors) == (source == "anchor")
        augmented = [view for _, view in others]
        assert not any(torch.equal(a, b) for a, b in itertools.pairwise(augmented))
    # The synthetic views of a step draw their candidates one after the other.
    assert any(not torch.equal(step[2][0], step[4][0]) for step in steps)


# The log, and what it says of a run ---------------------------------------------------------------


def read(log):
    with open(log, newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_has_a_row_per_epoch_and_scores_where_they_were_asked_for(train, tmp_path):
    scores = iter([0.25, 0.5])
    _, losses = train("SimCLR", tmp_path, watch=lambda backbone: next(scores), watch_every=2)
    log = [line.split(",") for line in (tmp_path / "log.csv").read_text().split()]
    assert log[0] == ["epoch", "loss", "lr", "spread", "knn"]
    assert [row[0] for row in log[1:]] == ["1", "2", "3", "4"]
    assert [row[4] for row in log[1:]] == ["", "0.2500", "", "0.5000"]
    np.testing.assert_allclose(
        [float(row[1]) for row in log[1:]], losses.reshape(4, 2).mean(1), atol=1e-5
    )
    assert float(log[1][2]) == pytest.approx(0.05 * runtime.warmup_cosine(1, 8, 2), abs=1e-6)


def test_watching_does_not_change_the_result(train):
    encoder, losses = train("CLSP-MoCoV2")

    def watch(backbone):
        return backbone(torch.zeros(2, 3, 16, 16, device=runtime.device())).sum().item()

    watched = train("CLSP-MoCoV2", watch=watch, watch_every=1)
    assert np.array_equal(losses, watched[1]) and same(encoder, watched[0])


@pytest.mark.parametrize("method", ["SimCLR", "CLSP-SimCLR", "MoCoV2"])
def test_the_log_has_the_spread_of_the_first_view_at_the_end_of_each_epoch(
    train, tmp_path, monkeypatch, method
):
    seen, loss = [], base.Method.loss

    def see_batch(self, batch):
        seen.append(batch.z[0].detach().clone())
        return loss(self, batch)

    monkeypatch.setattr(base.Method, "loss", see_batch)
    train(method, tmp_path)
    found = [float(row["spread"]) for row in read(tmp_path / "log.csv")]
    expected = [(1 - z.mean(0).square().sum()).sqrt().item() for z in seen[1::2]]
    assert len(found) == 4 and found == pytest.approx(expected, abs=1e-4)
    assert all(0.05 < x <= 1 for x in found)


def test_the_log_has_measures_of_the_first_two_views_at_the_end_of_each_epoch(
    split, tmp_path, monkeypatch
):
    seen, loss = [], base.Method.loss

    def see_batch(self, batch):
        seen.append([z.detach().clone() for z in batch.z])
        return loss(self, batch)

    monkeypatch.setattr(base.Method, "loss", see_batch)
    anchors = split.images, split.labels, split.statistics
    measures = {"apart": lambda z1, z2: (z1 - z2).abs().mean().item()}
    method, how = "third view", {"measures": measures}
    pretrain(method, settings(method), *anchors, 0, tmp_path, "fp32", **how)
    found = [float(row["apart"]) for row in read(tmp_path / "log.csv")]
    expected = [measures["apart"](z1, z2) for z1, z2, _ in seen[1::2]]
    assert found == pytest.approx(expected, abs=1e-4) and len(set(found)) == 4


def test_the_log_has_what_a_method_says_of_its_last_step(train, tmp_path):
    train("CACR", tmp_path)
    found = [float(row["p_plus"]) for row in read(tmp_path / "log.csv")]
    assert len(found) == 4 and all(0 < p < 1 for p in found)


def test_a_classifier_has_no_spread(train, tmp_path):
    train("supervised", tmp_path)
    assert [row["spread"] for row in read(tmp_path / "log.csv")] == [""] * 4


@pytest.mark.parametrize("saved", [3, 4])
def test_a_resumed_run_has_the_log_of_an_uninterrupted_one(train, tmp_path, killed, saved):
    watched = {"watch": lambda backbone: backbone.conv1.weight.abs().mean().item()}
    watched |= {"watch_every": 2}
    train("CLSP-SimCLR", tmp_path / "unbroken", **watched)
    with killed(after=5, saved=saved):
        train("CLSP-SimCLR", tmp_path / "resumed", **watched)
    train("CLSP-SimCLR", tmp_path / "resumed", **watched)
    expected = (tmp_path / "unbroken" / "log.csv").read_text()
    assert (tmp_path / "resumed" / "log.csv").read_text() == expected


# A third view that counts so much draws all projections together at once.
COLLAPSING = {"third_view": ThirdView(weight=1e3, ramp=0.0)}


@pytest.mark.parametrize(
    ("method", "section"), [("CLSP-SimCLR", "simclr"), ("third view MoCoV2", "moco")]
)
def test_a_run_that_collapses_says_so_once_and_what_to_change(train, tmp_path, method, section):
    with pytest.warns(UserWarning, match="for two epochs") as caught:
        _, losses = train(method, tmp_path, **COLLAPSING)
    [message] = [str(one.message) for one in caught if one.category is UserWarning]
    flat = [float(row["spread"]) < loop.COLLAPSED for row in read(tmp_path / "log.csv")]
    second = flat.index(True) + 1
    assert flat[second] and message.startswith(f"{method}: for two epochs")
    assert f"the loss {losses[2 * second + 1]:.2f} " in message and "\n" not in message
    for name in (f"{section}.lr", f"{section}.third_view.weight", "ramp"):
        assert name in message


@pytest.mark.parametrize("method", ["SimCLR", "MoCoV2"])
def test_images_that_are_all_the_same_collapse_and_no_third_view_is_to_blame(
    split, tmp_path, method
):
    images = np.full_like(split.images, 77)
    cfg = settings(method, views=Views(p_jitter=0.0, p_grey=0.0))
    anchors = images, split.labels, split.statistics
    with pytest.warns(UserWarning, match=rf"^{method}: .*: lower \w+\.lr\.$") as caught:
        pretrain(method, cfg, *anchors, 0, tmp_path, "fp32")
    assert len([one for one in caught if one.category is UserWarning]) == 1
    assert all(float(row["spread"]) < 0.001 for row in read(tmp_path / "log.csv"))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_does_not_collapse_says_nothing(train, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(method)


def test_a_collapse_is_not_told_again_when_the_run_is_resumed(train, tmp_path, killed):
    with pytest.warns(UserWarning, match="for two epochs"), killed(after=6, saved=6):
        train("CLSP-SimCLR", tmp_path, **COLLAPSING)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train("CLSP-SimCLR", tmp_path, **COLLAPSING)


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        ([0.01, 0.01, 0.01, 0.01], [1]),
        ([0.5, 0.04, 0.3, 0.04], []),
        ([0.5, 0.3, 0.04, 0.04], [3]),
        ([0.04, 0.04, 0.3, 0.04, 0.04, 0.0], [1, 4]),  # it had recovered
        ([0.05, 0.05], []),
        ([0.01], []),
        ([float("nan")] * 3, []),
    ],
    ids=str,
)
def test_the_second_epoch_in_a_row_that_ends_collapsed_is_told(spreads, expected):
    told = []
    for epoch in range(len(spreads)):
        so_far = torch.tensor(spreads)
        so_far[epoch + 1 :] = torch.nan  # these are still to come
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.warn_of_collapse("SimCLR", epoch, so_far, 1.0)
        told += [epoch] * len(caught)
    assert told == expected
