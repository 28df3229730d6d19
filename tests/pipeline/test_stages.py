"""The stages of the paper: which setting shapes which, and what cannot be made is refused first."""

import dataclasses
import json
import typing

import numpy as np
import pytest
import torch
from least_work import FP32, QUICK, equal, put_images
from PIL import Image

from clsp_utils import contrastive, diffusion, evaluation
from clsp_utils.config import METHODS, ConfigError, Data, UNetShape, change
from clsp_utils.data import NORMALISATION, DataError, Images
from clsp_utils.diffusion import build_unet
from clsp_utils.pipeline import (
    ClassBank,
    ClassDiffusion,
    ClusterBank,
    ClusterDiffusion,
    Clusters,
    Companion,
    Dataset,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Profile,
    RcgBank,
    Representation,
    RepresentationDiffusion,
    Scores,
)
from clsp_utils.positives import conditional_samples, interpolate
from clsp_utils.runtime import resolve_precision, seed_for


def keys(profile="smoke", seed=0, overrides=None, data=""):
    """The key of every kind of result, without making any."""
    c = Companion(profile, seed, FP32 | (overrides or {}), data)
    encoders = {m: c.stage(Pretrained, method=m).request.key for m in METHODS}
    kinds = {
        "unet": DiffusionModel, "bank": InterpolatedBank, "data": Dataset,
        "class unet": ClassDiffusion, "class bank": ClassBank, "r": Representation,
        "r unet": RepresentationDiffusion, "r bank": RcgBank, "clusters": Clusters,
        "cluster unet": ClusterDiffusion, "cluster bank": ClusterBank,
    }  # fmt: skip
    return {name: c.stage(kind).request.key for name, kind in kinds.items()} | encoders


def changed(a, b):
    return {name for name in a if a[name] != b[name]}


FULL = {"pairwise NT-Xent", "MV-InfoNCE", "MV-DHEL", "CACR"}  # to which all views are full ones
SWAV = {"SwAV", "CLSP-SwAV"}
CLSP = {  # see interpolations
    "CLSP-SimCLR", "CLSP-SimCLR in turn", "CLSP-MoCoV2", "CLSP-SwAV", "inflation", *FULL,
}  # fmt: skip
# Of those with SimCLR's settings.
THIRD = {
    "third view", "recoloured third view", "CLSP-SimCLR", "CLSP-SimCLR in turn", "RCG",
    "RCG-cluster", "class positives",
}  # fmt: skip
THIRD_MOCO = {"third view MoCoV2", "CLSP-MoCoV2", "class positives MoCoV2"}
BY_CLASS = {"class bank", "class positives", "class positives MoCoV2"}
BY_R = {"r unet", "r bank", "RCG"}
BY_CLUSTER = {"cluster unet", "cluster bank", "RCG-cluster"}
OF_SIMCLR = {"r", "clusters", *BY_R, *BY_CLUSTER}
TRAINED = {"unet", "class unet", "bank", *CLSP, *BY_CLASS, *BY_R, *BY_CLUSTER}  # diffusion models


def test_same_settings_have_the_same_keys_and_all_kinds_differ(home):
    assert keys() == keys()
    assert len(set(keys().values())) == len(keys())


def test_profiles_share_no_key(home):
    assert not set(keys("smoke").values()) & set(keys("laptop").values())


# The default changed to something else, whatever it is: profiles may be tuned.
SMOKE = Profile("smoke")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"simclr.third_view.weight": SMOKE.simclr.third_view.weight + 1}, THIRD),
        ({"simclr.third_view.ramp": SMOKE.simclr.third_view.ramp / 2}, THIRD),
        ({"moco.third_view.weight": SMOKE.moco.third_view.weight + 1}, THIRD_MOCO),
        ({"moco.queue": SMOKE.moco.queue + 1}, {"MoCoV2", *THIRD_MOCO}),
        ({"all4one.key_momentum": 0.5}, {"All4One"}),
        ({"all4one.queue": SMOKE.all4one.queue + 1}, {"All4One"}),
        ({"nnclr.queue": SMOKE.nnclr.queue + 1}, {"NNCLR"}),
        (
            {"simclr.lr": SMOKE.simclr.lr + 1},
            {"SimCLR", "SupCon", "MCL", "inflation", *THIRD, *OF_SIMCLR},
        ),
        ({"pretrain.lr": SMOKE.simclr.lr + 1}, {*METHODS, *OF_SIMCLR} - {"supervised"}),
        ({"pretrain.queue": 130}, {"NNCLR", "All4One", "MoCoV2", *THIRD_MOCO, *SWAV}),
        ({"multi_view.temperature": 0.7}, FULL - {"CACR"}),
        ({"cacr.t_plus": 3.0}, {"CACR"}),
        ({"swav.prototypes": 20}, SWAV),
        ({"mcl.clusters": 7}, {"MCL"}),
        ({"classifier.lr": SMOKE.classifier.lr + 1}, {"supervised"}),
        ({"candidates.k": SMOKE.candidates.k + 1}, {"bank", *CLSP}),
        ({"candidates.mix_below": SMOKE.candidates.mix_below - 1}, {"bank", *CLSP}),
        ({"candidates.mix_skips": 4}, {"bank", *CLSP}),
        ({"class_candidates.k": SMOKE.class_candidates.k + 1}, BY_CLASS),
        ({"class_candidates.guidance": SMOKE.class_candidates.guidance + 1}, BY_CLASS),
        ({"rcg_candidates.k": SMOKE.rcg_candidates.k + 1}, {"r bank", "RCG"}),
        ({"rcg_candidates.guidance": 0.5}, {"r bank", "RCG"}),
        ({"cluster_candidates.k": 3}, {"cluster bank", "RCG-cluster"}),
        ({"clusters.n_clusters": 7}, {"clusters", *BY_CLUSTER}),
        ({"diffusion.steps": SMOKE.diffusion.steps + 1}, TRAINED),
        ({"diffusion.recoloured_pairs": 1 - SMOKE.diffusion.recoloured_pairs}, TRAINED),
        ({"representation_diffusion.steps": 7}, BY_R),
        ({"representation_diffusion.from_unconditional": False}, BY_R),
        ({"representation_diffusion.condition_lr": 3.0}, BY_R),
        ({"class_diffusion.from_unconditional": True}, {"class unet", *BY_CLASS}),
        ({"cluster_diffusion.unet.dropout": 0.1}, BY_CLUSTER),
        ({"class_diffusion.steps": SMOKE.diffusion.steps + 1}, {"class unet", *BY_CLASS}),
        ({"class_diffusion.unet.dropout": 0.1}, {"class unet", *BY_CLASS}),
        (
            {"data.limit": SMOKE.data.limit + 1},
            {"data", *TRAINED, *OF_SIMCLR, "class bank", *METHODS},
        ),
        ({"probe.epochs": SMOKE.probe.epochs + 1}, set()),
        ({"pretrain.watch_every": 1}, set()),
        ({"simclr.watch_every": 1}, set()),
        ({"study.samples": SMOKE.study.samples + 1}, set()),
        ({"study.models": SMOKE.study.models + 1}, set()),
    ],
    ids=lambda value: " ".join(sorted(value)),  # a set has no order of its own
)
def test_a_setting_changes_the_keys_of_what_it_shapes_and_no_other(home, override, expected):
    assert changed(keys(), keys(overrides=override)) == expected


def test_what_a_classifier_does_not_read_is_no_setting_of_it():
    with pytest.raises(ConfigError, match="classifier.temperature"):
        Profile("smoke", {"classifier.temperature": 0.5})


@pytest.mark.parametrize("method", METHODS)
def test_only_methods_with_a_third_view_have_settings_of_it(method):
    settings = SMOKE.stage(Pretrained, method=method).settings
    has_three = len(METHODS[method].views) > 2 and hasattr(settings, "third_view")
    assert (getattr(settings, "third_view", None) is not None) == has_three
    assert type(settings) is METHODS[method].settings


def test_the_seed_and_the_precision_change_all_but_the_data(home):
    everything = set(keys()) - {"data"}
    assert changed(keys(), keys(seed=1)) == everything
    assert changed(keys(), keys(overrides={"precision": "bf16"})) == everything


def test_a_change_for_one_call_is_as_good_as_an_override(home):
    weight = SMOKE.simclr.third_view.weight + 1
    c = Companion("smoke", 0, FP32)
    settings = change(c.cfg.simclr, third_view=change(c.cfg.simclr.third_view, weight=weight))
    found = c.stage(Pretrained, method="CLSP-SimCLR", settings=settings).request.key
    assert found == keys(overrides={"simclr.third_view.weight": weight})["CLSP-SimCLR"]
    k = SMOKE.candidates.k + 1
    bank = c.stage(InterpolatedBank, k=k)
    found = c.stage(Pretrained, method="CLSP-MoCoV2", bank=bank).request.key
    assert found == keys(overrides={"candidates.k": k})["CLSP-MoCoV2"]


@pytest.mark.parametrize("method", METHODS)
def test_a_bank_is_an_input_of_the_methods_that_show_its_candidates(method):
    bank = SMOKE.stage(Pretrained, method=method).bank
    kinds = {
        "synthetic": InterpolatedBank, "class": ClassBank, "representation": RcgBank,
        "cluster": ClusterBank,
    }  # fmt: skip
    shown = (*METHODS[method].views, METHODS[method].more_anchors)
    expected = [kinds[view] for view in shown if view in kinds]
    assert [type(bank)] == expected if expected else bank is None


# Content ------------------------------------------------------------------------------------------


def test_other_data_have_their_own_keys_by_content(home, tmp_path):
    def key(name, value):
        images = np.full((200, 16, 16, 3), value, np.uint8)
        labels = np.arange(200) % 10
        np.savez(tmp_path / name, train_x=images, train_y=labels, test_x=images, test_y=labels)
        return keys(overrides={"data.name": "cifar10", "data.path": str(tmp_path / name)})

    first, moved, changed_file = key("a.npz", 1), key("b.npz", 1), key("a.npz", 2)
    assert first == moved
    assert not set(first.values()) & set(changed_file.values())
    assert not set(keys().values()) & set(first.values())


def test_the_names_of_classes_count_and_where_they_lie_does_not(home, tmp_path):
    def stage(folder, names):
        for i, name in enumerate(names):
            (tmp_path / folder / name).mkdir(parents=True)
            for j in range(6):
                image = Image.fromarray(np.full((8, 8, 3), 40 * i + j, np.uint8))
                image.save(tmp_path / folder / name / f"{j}.png")
        data = str(tmp_path / folder)
        overrides = FP32 | {"data.name": "folder", "data.size": 8, "data.limit": 0}
        return Companion("smoke", 0, overrides, data).stage(Dataset)

    one, moved = stage("one", ["cat", "dog"]), stage("elsewhere/two", ["cat", "dog"])
    assert one.request.key == moved.request.key
    assert stage("three", ["cat", "fox"]).request.key != one.request.key
    for found in (one, moved):
        text = json.dumps(found.request)
        assert '["cat", "dog"]' in text and tmp_path.name not in text and "/" not in text


def weights(folder, seed):
    torch.manual_seed(seed)
    unet = build_unet(UNetShape(channels=(8, 16), groups=4), 16)
    unet.save_pretrained(folder)
    return unet


def test_foreign_weights_count_by_their_content(home, tmp_path):
    def found(folder):
        source = {"diffusion.source": str(folder)}
        assert keys(overrides=source)["class unet"] == keys()["class unet"]
        return keys(overrides=source)

    weights(tmp_path / "one", 0), weights(tmp_path / "moved", 0)
    first = found(tmp_path / "one")
    assert first == found(tmp_path / "moved")
    # At smoke RCG's model goes on from the unconditional one.
    assert changed(first, keys()) == {"unet", "bank", *CLSP, *BY_R}
    weights(tmp_path / "one", 1)  # replaced under the same path
    assert changed(first, found(tmp_path / "one")) == {"unet", "bank", *CLSP, *BY_R}


def test_files_are_read_once_per_companion_and_anew_by_the_next(home, tmp_path, monkeypatch):
    read, digest = [], diffusion.weights_digest
    monkeypatch.setattr(
        diffusion, "weights_digest", lambda source: read.append(1) or digest(source)
    )

    def key():
        c = Companion("smoke", 0, FP32 | {"diffusion.source": str(tmp_path / "weights")})
        first = c.stage(DiffusionModel).request.key
        assert first == c.stage(DiffusionModel).request.key
        c.stage(InterpolatedBank).request.key  # noqa: B018
        return first

    weights(tmp_path / "weights", 0)
    first = key()
    assert len(read) == 1
    weights(tmp_path / "weights", 1)
    assert key() != first and len(read) == 2


def test_foreign_weights_become_the_diffusion_model_as_they_are(home, tmp_path):
    unet = weights(tmp_path / "weights", 0)
    c = Companion("smoke", 0, FP32 | {"diffusion.source": str(tmp_path / "weights")})
    assert equal(c.unet, unet) and not c.unet.training
    assert len(np.load(c.artifact(DiffusionModel) / "losses.npy")) == 0


def test_the_key_holds_the_precision_that_was_asked_for_and_the_manifest_what_it_came_to(home):
    c = Companion("smoke", 0, QUICK | {"precision": "auto"})
    stage = c.stage(DiffusionModel)
    manifest = c.artifact(DiffusionModel).manifest
    assert stage.request.config["precision"] == manifest["config"]["precision"] == "auto"
    assert manifest["precision"] == resolve_precision("auto") == c.precision
    assert manifest["device"] == "cpu" or manifest["device"].startswith(("cuda", "mps"))


# What is made -------------------------------------------------------------------------------------


def test_banks_hold_the_candidates_of_their_anchors_batch_by_batch(home):
    batch = {"candidates.batch": 100, "class_candidates.batch": 100}
    own = {"candidates.k": 2, "candidates.steps": 2, "candidates.mix_below": 500}
    own |= {"candidates.mix_skips": 1}
    c = Companion("smoke", 0, QUICK | batch | own)
    images, labels = c.data.train.images, c.data.train.labels
    of_anchors, of_classes = c.get(InterpolatedBank), c.get(ClassBank)
    how, by_class = c.cfg.candidates, c.cfg.class_candidates
    conditional = c.get(ClassDiffusion)
    assert isinstance(of_anchors, np.memmap) and of_anchors.shape == (256, 2, 16, 16, 3)
    assert isinstance(of_classes, np.memmap) and of_classes.shape == (256, 1, 16, 16, 3)
    for i in range(3):
        rows, seed = slice(100 * i, 100 * (i + 1)), seed_for(0, "bank", i)
        expected = interpolate(
            c.unet, images[rows], how.mix_weight, 500, 2, how.steps, how.eta, seed, "fp32", 1
        )
        assert np.array_equal(of_anchors[rows], expected)
        expected = conditional_samples(
            conditional, labels[rows], 1, by_class.steps, by_class.eta, by_class.guidance, seed,
            "fp32",
        )  # fmt: skip
        assert np.array_equal(of_classes[rows], expected)


def test_encoders_start_as_untrained_and_are_trained(home):
    c = Companion("smoke", 0, QUICK)
    untrained = c.stage(Pretrained, method="SimCLR").untrained()
    trained = c.get(Pretrained, method="SimCLR")
    assert not untrained.training and not trained.training
    assert untrained.state_dict().keys() == trained.state_dict().keys()
    assert not untrained.backbone.conv1.weight.equal(trained.backbone.conv1.weight)


@pytest.mark.parametrize("p_flip", [0.0, 0.5])
def test_linear_evaluation_mirrors_where_the_views_do(home, monkeypatch, p_flip):
    seen = []
    monkeypatch.setattr(evaluation, "score", lambda *args: seen.append(args[-1]) or {})
    c = Companion("smoke", 0, QUICK | {"simclr.views.p_flip": p_flip})
    c.get(Scores, method="SimCLR", seed=0)
    assert seen == [p_flip > 0]


@pytest.mark.parametrize("name", NORMALISATION)
def test_published_constants_normalise_where_the_profile_says_so(home, monkeypatch, name):
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), np.uint8)
    some = Images(images, np.arange(200) % 10, np.arange(200), ())
    put_images(monkeypatch, some, some)
    for profile, published in (("smoke", False), ("laptop", False), ("gpu", True), ("paper", True)):
        data = Profile(profile, {"data.name": name}).data
        assert data.statistics == (NORMALISATION[name] if published else some.statistics)
    computed = {"data.name": name, "data.normalisation": "computed"}
    assert Profile("paper", computed).data.statistics == some.statistics


def test_what_has_no_published_constants_is_refused_with_its_name():
    for name in typing.get_args(typing.get_type_hints(Data)["name"]):
        path = {} if name == "digits" else {"path": "/x"}
        wnids = {"wnids": "/list"} if name == "imagenet100" else {}
        if name in NORMALISATION:
            Data(name=name, normalisation="published", **path)
        else:
            with pytest.raises(ValueError, match=f"'computed' for name='{name}'"):
                Data(name=name, normalisation="published", **path, **wnids)


def test_encoders_see_the_larger_anchors_and_all_else_the_small_ones(home, monkeypatch):
    c = Companion("smoke", 0, QUICK | {"data.name": "cifar10", "data.size": 16})
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 256, (200, x, x, 3), np.uint8) for x in (16, 24))
    labels = np.arange(200) % 10
    some = Images(small, labels, np.arange(200), tuple("0123456789"), full=large)
    put_images(monkeypatch, some, dataclasses.replace(some, full=None))
    seen, original = {}, contrastive.pretrain

    def pretrain(method, cfg, images, *rest, **more):
        seen[method] = images.shape[1:], more["size"]
        return original(method, cfg, images, *rest, **more)

    monkeypatch.setattr(contrastive, "pretrain", pretrain)
    for method in ("SimCLR", "CLSP-SimCLR", "inflation"):
        c.get(Pretrained, method=method)
    assert seen == {
        "SimCLR": ((24, 24, 3), 16),
        "CLSP-SimCLR": ((24, 24, 3), 16),
        "inflation": ((16, 16, 3), 16),  # its further anchors are candidates
    }
    assert c.get(InterpolatedBank).shape == (200, 1, 16, 16, 3)
    assert 0 <= c.get(Scores, method="SimCLR", seed=0)["linear"] <= 1


# Labels -------------------------------------------------------------------------------------------


def test_unlabelled_images_train_but_are_not_judged(home, monkeypatch):
    c = Companion("smoke", 0, QUICK)
    train, test = c.data.train, c.data.test
    labels = np.where(np.arange(len(train)) % 2, -1, train.labels)
    some = dataclasses.replace(train, labels=labels)
    put_images(monkeypatch, some, test)
    seen = {}

    def pretrain(method, cfg, images, *rest, **more):
        seen[method] = len(images)
        raise KeyboardInterrupt

    monkeypatch.setattr(contrastive, "pretrain", pretrain)
    for method in ("SimCLR", "supervised", "SupCon"):
        with pytest.raises(KeyboardInterrupt):
            c.artifact(Pretrained, method=method)
    labelled = len(some.labelled)
    assert seen == {"SimCLR": len(some), "supervised": labelled, "SupCon": labelled}


def unlabelled(c, monkeypatch):
    parts = (c.data.train, c.data.test)
    put_images(
        monkeypatch,
        *(dataclasses.replace(part, labels=np.full(len(part), -1)) for part in parts),
    )
    return c


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.data.labelled,
        lambda c: c.study_images,
        lambda c: c.judge,
        lambda c: c.artifact(Pretrained, method="SupCon"),
        lambda c: c.artifact(Pretrained, method="class positives"),
        lambda c: c.artifact(ClassDiffusion),
        lambda c: c.artifact(ClassBank),
        lambda c: c.artifact(Scores, method="SimCLR"),
    ],
)
def test_what_needs_labels_is_refused_before_anything_is_made(home, monkeypatch, ask):
    c = unlabelled(Companion("smoke", 0, QUICK), monkeypatch)
    with pytest.raises(DataError, match="None of these images has a label"):
        ask(c)
    assert not list(home.rglob("manifest.json"))


def test_too_few_of_a_class_are_refused_before_anything_is_made(home, monkeypatch):
    c = Companion("smoke", 0, QUICK)
    train, test = c.data.train, c.data.test
    labels = train.labels.copy()
    labels[0] = 10  # a class of one image cannot be on both sides
    put_images(monkeypatch, dataclasses.replace(train, labels=labels), test)
    with pytest.raises(DataError, match="too few to hold out"):
        print(c.data.labelled)
    with pytest.raises(DataError, match="too few to hold out"):
        c.get(Scores, method="SimCLR")
    assert not list(home.rglob("manifest.json"))


def test_images_without_labels_train_and_are_not_watched(home, monkeypatch):
    c = unlabelled(Companion("smoke", 0, QUICK | {"simclr.watch_every": 1}), monkeypatch)
    log = c.artifact(Pretrained, method="SimCLR") / "log.csv"
    [header, row] = log.read_text().split()
    assert header == "epoch,loss,lr,spread,knn,rank_me,alignment,uniformity"
    one = dict(zip(header.split(","), row.split(",")))
    assert one["epoch"] == "1" and one["knn"] == "" and float(one["rank_me"]) > 1


def test_labels_are_watched_in_the_log(home):
    c = Companion("smoke", 0, QUICK | {"simclr.watch_every": 1})
    log = c.artifact(Pretrained, method="SimCLR") / "log.csv"
    header, row = (line.split(",") for line in log.read_text().split())
    assert 0 <= float(dict(zip(header, row))["knn"]) <= 1


def test_more_neighbours_than_anchors_are_refused():
    with pytest.raises(ConfigError, match=r"neighbours=\(5, 300\) must be at most data.limit=256"):
        Profile("smoke", {"probe.neighbours": (5, 300)})
