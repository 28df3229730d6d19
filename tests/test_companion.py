"""The companion: keys hold what shaped a result, and what is stored is not made again."""

import dataclasses
import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clsp_utils import companion, config, diffusion, training, workers
from clsp_utils.artifacts import Store
from clsp_utils.companion import Companion
from clsp_utils.folders import DataError
from clsp_utils.methods import METHODS

# The same precision on every machine; and the least work that has all steps.
FP32 = "precision=fp32"
QUICK = f"{FP32} diffusion.steps=2 candidates.steps=1 candidates.k=1 probe.epochs=1" + "".join(
    f" {name}.epochs=1" for name in ("simclr", "moco", "classifier")
)


def keys(profile="smoke", seed=0, overrides="", **changes):
    """The key of every kind of result, without making any."""
    c = Companion(profile, seed, f"{FP32} {overrides}")
    c.store.get = lambda stage, settings, make, inputs=(): SimpleNamespace(
        key=Store.key(stage, settings, inputs), manifest={}
    )
    encoders = {method: c.encoder(method, **changes).key for method in METHODS}
    return {"unet": c.diffusion().key, "bank": c.bank().key, "data": c._key_of_data()} | encoders


def changed(a, b):
    return {name for name in a if a[name] != b[name]}


CLSP = {"CLSP-SimCLR", "CLSP-MoCoV2"}
THIRD = {"third view", "CLSP-SimCLR", "class positives"}  # of those with SimCLR's settings


def test_same_settings_have_the_same_keys_and_all_kinds_differ(home):
    assert keys() == keys()
    assert len(set(keys().values())) == len(keys())


def test_profiles_share_no_key(home):
    assert not set(keys("smoke").values()) & set(keys("laptop").values())


# The default changed to something else, whatever it is: profiles may be tuned.
SMOKE = config.PROFILES["smoke"]
COMPARED = SMOKE.study.methods


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"simclr.clsp_weight={SMOKE.simclr.clsp_weight + 1}", THIRD),
        (f"moco.clsp_weight={SMOKE.moco.clsp_weight + 1}", {"CLSP-MoCoV2"}),
        (f"moco.queue={SMOKE.moco.queue + 1}", {"MoCoV2", "CLSP-MoCoV2"}),
        ("simclr.key_momentum=0.5", {"All4One"}),
        (f"simclr.queue={SMOKE.simclr.queue + 1}", {"NNCLR", "All4One"}),
        (f"simclr.lr={SMOKE.simclr.lr + 1}", {"SimCLR", "SupCon", "NNCLR", "All4One", *THIRD}),
        (f"classifier.lr={SMOKE.classifier.lr + 1}", {"supervised"}),
        (f"classifier.temperature={SMOKE.classifier.temperature + 1}", set()),
        (f"candidates.k={SMOKE.candidates.k + 1}", {"bank", "class positives", *CLSP}),
        (f"diffusion.steps={SMOKE.diffusion.steps + 1}", {"unet", "bank", "class positives", *CLSP}),
        (f"data.limit={SMOKE.data.limit + 1}", {"unet", "bank", "data", *METHODS}),
        (f"probe.epochs={SMOKE.probe.epochs + 1}", set()),
        (f"candidates.guidance={SMOKE.candidates.guidance + 1}", {"class positives"}),
        ("simclr.watch_every=1", set()),
        (f"study.samples={SMOKE.study.samples + 1}", set()),
    ],
)
def test_a_setting_changes_the_keys_of_what_it_shapes_and_no_other(home, override, expected):
    assert changed(keys(), keys(overrides=override)) == expected


def test_other_data_have_their_own_keys_by_content(home, tmp_path):
    def key(name, value):
        images = np.full((200, 16, 16, 3), value, np.uint8)
        labels = np.arange(200) % 10
        np.savez(tmp_path / name, train_x=images, train_y=labels, test_x=images, test_y=labels)
        return keys(overrides=f"data.name=cifar10 data.path={tmp_path / name}")

    first, moved, changed_file = key("a.npz", 1), key("b.npz", 1), key("a.npz", 2)
    assert first == moved and not set(first.values()) & set(changed_file.values()) | set(keys().values()) & set(first.values())


def test_the_seed_and_the_precision_change_all_but_the_data(home):
    everything = set(keys()) - {"data"}
    assert changed(keys(), keys(seed=1)) == everything
    assert changed(keys(), keys(overrides="precision=bf16")) == everything


def test_a_change_for_one_call_is_as_good_as_an_override(home):
    weight = SMOKE.simclr.clsp_weight + 1
    assert keys(clsp_weight=weight)["CLSP-SimCLR"] == keys(overrides=f"simclr.clsp_weight={weight}")["CLSP-SimCLR"]


def test_a_second_companion_finds_everything_in_the_store(home, monkeypatch):
    def ask():
        c = Companion("smoke", 0, QUICK)
        scores = {method: c.scores(method, seed) for method in ("SimCLR", "CLSP-SimCLR") for seed in (0, 1)}
        arrays = np.load(c.bank() / "bank.npy"), c.interpolated(0.5), c.classify(c.test.images)
        weights = {**c.unet.state_dict(), **c.load_encoder("SimCLR", c.encoder("SimCLR")).state_dict()}
        return scores, arrays, weights

    scores, arrays, weights = ask()
    c = Companion("smoke", 0, QUICK)
    assert arrays[0].shape == (len(c.train), 1, *c.train.images.shape[1:])
    assert arrays[1].shape == (len(c.study), 1, *c.test.images.shape[1:])
    assert arrays[2].shape == (len(c.test),)
    assert all(0 <= row[name] <= 1 for row in scores.values() for name in ("linear", "knn"))

    def refuse(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(diffusion, "train", refuse)
    for module, name in (
        (companion, "fill_bank"), (companion, "interpolate"), (companion, "pretrain"), (companion.evaluate, "score")
    ):
        monkeypatch.setattr(module, name, refuse)
    again, same_arrays, same_weights = ask()
    assert again == scores
    assert all(map(np.array_equal, same_arrays, arrays))
    assert weights.keys() == same_weights.keys()
    assert all(weights[name].equal(same_weights[name]) for name in weights)
    with pytest.raises(AssertionError, match="made again"):
        Companion("smoke", 1, QUICK).diffusion()


def test_encoders_start_as_untrained_and_are_trained(home):
    c = Companion("smoke", 0, QUICK)
    untrained, trained = c.untrained(), c.load_encoder("SimCLR", c.encoder("SimCLR"))
    assert not untrained.training and not trained.training
    assert untrained.state_dict().keys() == trained.state_dict().keys()
    assert not untrained.backbone.conv1.weight.equal(trained.backbone.conv1.weight)


@pytest.mark.slow
def test_comparison_and_sweep_have_a_row_a_run(home):
    c = Companion("smoke", 0, QUICK)
    table = c.comparison(COMPARED)
    assert sorted(zip(table["method"], table["seed"])) == sorted(
        (method, seed) for method in COMPARED for seed in range(c.cfg.study.seeds)
    )
    assert table[["linear", "knn"]].stack().between(0, 1).all() and (table["seconds"] > 0).all()
    sweep = c.sweep("mix_weight", (0.0, 1.0))
    assert sweep["mix_weight"].tolist() == [w for w in (0.0, 1.0) for _ in range(c.cfg.study.sweep_seeds)]
    assert sweep["agreement"].between(0, 1).all()


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.slow
def test_runs_side_by_side_are_the_runs_that_one_makes_alone(home, monkeypatch, threads):
    runs = [{"method": method, "seed": seed, "bank": None} for method in ("SimCLR", "MoCoV2") for seed in (0, 1)]

    def losses(c):
        return [np.load(c.encoder(**run) / "losses.npy") for run in runs]

    threads(2)
    alone = losses(Companion("smoke", 0, QUICK))
    monkeypatch.setenv("CLSP_HOME", str(home / "other"))
    c = Companion("smoke", 0, QUICK)
    c._side_by_side(runs)
    monkeypatch.setattr(companion, "pretrain", None)  # whatever is not there now cannot be made
    assert all(map(np.array_equal, alone, losses(c)))


@pytest.mark.slow
def test_a_bank_filled_side_by_side_is_the_bank_that_one_fills_alone(home, monkeypatch, threads):
    overrides = f"{QUICK} candidates.batch=100"
    threads(1)
    alone = np.load(Companion("smoke", 0, overrides).bank() / "bank.npy")
    monkeypatch.setenv("CLSP_HOME", str(home / "other"))
    c = Companion("smoke", 0, overrides)
    c.diffusion()
    threads(2)
    monkeypatch.setattr(companion, "fill_bank", None)  # this process makes nothing of it
    assert np.array_equal(alone, np.load(c.bank() / "bank.npy"))


@pytest.mark.slow
def test_an_error_of_a_run_side_by_side_arrives(home, threads):
    threads(2)
    c = Companion("smoke", 0, f"{QUICK} simclr.lr=1e30")
    assert workers.count(2) == 2
    with pytest.raises(training.Diverged, match="lower simclr.lr"):
        c._side_by_side([{"method": "SimCLR", "seed": seed, "bank": None} for seed in (0, 1)])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("profile", "seed", "overrides", "folder"),
    [
        ("laptop", 0, "", "figures"),
        ("laptop", 1, "", "build/laptop/figures"),
        ("laptop", 0, f"candidates.k={config.PROFILES['laptop'].candidates.k + 1}", "build/laptop/figures"),
        ("smoke", 0, "", "build/smoke/figures"),
        ("smoke", 1, "", "build/smoke/figures"),
    ],
)
def test_only_the_plain_laptop_profile_draws_into_figures(home, profile, seed, overrides, folder):
    assert Companion(profile, seed, overrides).figures == home / folder


def test_only_smoke_runs_print_a_note(home):
    assert Companion("smoke").note == "smoke" and Companion("laptop").note == ""


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "one", None])
def test_a_seed_that_cannot_be_used_is_named(home, seed):
    with pytest.raises(config.ConfigError, match="seed"):
        Companion("smoke", seed)


def test_study_is_the_same_part_of_the_test_split_each_time(home):
    a, b = Companion("smoke", 0, FP32), Companion("smoke", 1, FP32)
    assert len(a.study) == a.cfg.study.samples
    assert np.array_equal(a.study.images, b.study.images)
    rows = {image.tobytes() for image in a.test.images}
    assert all(image.tobytes() in rows for image in a.study.images)


def test_agreement_is_the_share_of_right_classes(home, monkeypatch):
    c = Companion("smoke", 0, FP32)
    monkeypatch.setattr(c, "classify", lambda images: np.array([1, 2, 3, 4]))
    assert c.agreement(c.test.images[:4], np.array([1, 2, 0, 0])) == 0.5


def test_unlabelled_images_train_but_are_not_judged(home, monkeypatch):
    c = Companion("smoke", 0, QUICK)
    some = dataclasses.replace(c.train, labels=np.where(np.arange(len(c.train)) % 2, -1, c.train.labels))
    c._splits = (some, c.test)
    seen = {}

    def pretrain(cfg, images, *rest):
        seen[cfg.method] = len(images)
        raise KeyboardInterrupt

    monkeypatch.setattr(companion, "pretrain", pretrain)
    for method in ("SimCLR", "supervised", "SupCon"):
        with pytest.raises(KeyboardInterrupt):
            c.encoder(method)
    assert seen == {"SimCLR": len(some), "supervised": len(some.labelled), "SupCon": len(some.labelled)}
    monkeypatch.setattr(c, "classify", lambda images: np.zeros(len(images), int))
    assert c.agreement(some.images[:4], np.array([0, -1, 1, -1])) == 0.5


def unlabelled(c):
    c._splits = tuple(dataclasses.replace(part, labels=np.full(len(part), -1)) for part in (c.train, c.test))
    return c


@pytest.mark.parametrize("ask", [
    lambda c: c.labelled, lambda c: c.study, lambda c: c.encoder("SupCon"), lambda c: c.diffusion(conditional=True),
    lambda c: c.bank(conditional=True),
])
def test_what_needs_labels_is_refused_before_anything_is_made(home, ask):
    with pytest.raises(DataError, match="None of these images has a label"):
        ask(unlabelled(Companion("smoke", 0, QUICK)))
    assert not list(home.rglob("manifest.json"))


def test_too_few_of_a_class_are_refused_before_anything_is_made(home):
    c = Companion("smoke", 0, QUICK)
    labels = c.train.labels.copy()
    labels[0] = 10  # a class of one image cannot be on both sides
    c._splits = (dataclasses.replace(c.train, labels=labels), c.test)
    with pytest.raises(DataError, match="too few to hold out"):
        c.labelled


def test_images_without_labels_train_and_are_not_watched(home):
    c = unlabelled(Companion("smoke", 0, f"{QUICK} simclr.watch_every=1"))
    [header, row] = (c.encoder("SimCLR") / "log.csv").read_text().split()
    assert header == "epoch,loss,lr,knn" and row.startswith("1,") and row.endswith(",")


@pytest.mark.parametrize("p_flip", [0.0, 0.5])
def test_linear_evaluation_mirrors_where_the_views_do(home, monkeypatch, p_flip):
    seen = []
    monkeypatch.setattr(companion.evaluate, "score", lambda *args: seen.append(args[-1]) or {})
    Companion("smoke", 0, f"{QUICK} simclr.views.p_flip={p_flip}").scores("SimCLR", 0)
    assert seen == [p_flip > 0]
