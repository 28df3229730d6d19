"""Profiles and overrides: what is refused, with which words, and what each setting reaches."""

import dataclasses
import json
import re

import pytest

from clsp_utils.config import (
    BY_DATA_SET,
    CONTRASTIVE,
    METHODS,
    PROFILES,
    ConfigError,
    merge,
)
from clsp_utils.pipeline import InterpolatedBank, Pretrained, Profile, Scores, Stage

# overrides -> what the message must show of them
REFUSED = [
    ({"nosuch": 1}, "nosuch=1"),
    ({"candidates.nosuch": 1}, "candidates.nosuch=1"),
    ({"nosuch.k": 1}, "nosuch.k=1"),
    ({"candidates.k.x": 1}, "candidates.k.x=1"),
    ({"candidates": 1}, "candidates=1"),
    ({"simclr.views": 1}, "simclr.views=1"),
    ({"": 3}, "=3"),
    ({"name": "smoke"}, "name=smoke"),
    ({"seed": 3}, "seed=3"),
    ("candidates.k", "candidates.k"),
    ("candidates.k=4", "candidates.k=4"),
    ("candidates.k:4", "candidates.k:4"),
    ("[4]", "[4]"),
    (5, "5"),
    ({"candidates.mix_weight": 1.5}, "mix_weight=1.5"),
    ({"candidates.mix_weight": -0.1}, "mix_weight=-0.1"),
    ({"candidates.mix_weight": float("nan")}, "nan"),
    ({"candidates.mix_weight": 1e999}, "inf"),
    ({"candidates.mix_below": 0}, "mix_below=0"),
    ({"candidates.mix_skips": -1}, "mix_skips=-1"),
    ({"candidates.mix_skips": 5}, "mix_skips=5: the UNet has 4 skip connections"),
    ({"candidates.mix_below": 1001}, "mix_below=1001"),
    ({"candidates.mix_below": 2.5}, "mix_below=2.5"),
    ({"simclr.lr": float("inf")}, "inf"),
    ({"simclr.lr": 0}, "lr=0"),
    ({"simclr.temperature": -0.2}, "temperature=-0.2"),
    ({"simclr.third_view.weight": -1}, "weight=-1"),
    ({"simclr.third_view.ramp": 1.5}, "ramp=1.5"),
    ({"simclr.third_view": 1}, "third_view=1"),
    ({"simclr.seed": -1}, "simclr.seed=-1"),
    ({"simclr.method": "BYOL"}, "BYOL"),
    ({"nnclr.batch": 256, "nnclr.queue": 255}, "queue=255"),
    ({"moco.batch": 4096}, "batch=4096"),
    ({"pretrain.batch": 4096}, "batch=4096"),
    ({"pretrain.nosuch": 1}, "pretrain.nosuch=1"),
    ({"simclr.queue": 512}, "simclr.queue=512"),
    ({"simclr.views.hue": 0.6}, "hue=0.6"),
    ({"simclr.views.crop_area": (0.9, 0.2)}, "(0.9, 0.2)"),
    ({"simclr.views.crop_area": (0.2,)}, "(0.2,)"),
    ({"simclr.backbone.layers": (1, 1, 1, 1, 1)}, "(1, 1, 1, 1, 1)"),
    ({"simclr.backbone.block": "wide"}, "wide"),
    ({"candidates.k": 0}, "k=0"),
    ({"candidates.k": 2.5}, "k=2.5"),
    ({"candidates.k": "two"}, "two"),
    ({"candidates.k": None}, "None"),
    ({"candidates.k": (4,)}, "(4,)"),
    ({"candidates.steps": 7}, "steps=7"),
    ({"study.steps": 300}, "steps=300"),
    ({"study.seeds": 1}, "seeds=1"),
    ({"study.models": 0}, "models=0"),
    ({"study.models": 4}, "models=4 must be at most seeds=3"),
    ({"study.models": 3, "study.seeds": 2}, "models=3 must be at most seeds=2"),
    ({"study.mix_weights": (0.1, 1.5)}, "1.5"),
    ({"study.mix_weights": ()}, "()"),
    ({"study.methods": ("MoCoV2", "CLSP-MoCoV2")}, "must hold 'SimCLR' and 'CLSP-SimCLR'"),
    ({"study.methods": ("SimCLR", "SimCLR", "CLSP-SimCLR")}, "each name once"),
    ({"study.methods": ("SimCLR", "CLSP-SimCLR", "BYOL")}, "BYOL"),
    ({"study.n_shown": 0}, "n_shown=0"),
    ({"study.k_shown": 0}, "k_shown=0"),
    ({"study.n_pairs": 0}, "n_pairs=0"),
    ({"study.n_neighbours": 0}, "n_neighbours=0"),
    ({"study.mask_steps": 7}, "mask_steps=7"),
    ({"study.t_shown": 1000}, "t_shown=1000"),
    ({"study.t_shown": -1}, "t_shown=-1"),
    ({"mix_weight": 0.5}, "mix_weight=0.5' sets no field (is it candidates.mix_weight?)"),
    ({"diffusion.unet.channels": (30, 96)}, "(30, 96)"),
    ({"diffusion.unet.channels": ()}, "()"),
    ({"diffusion.unet.channels": 32}, "32"),
    ({"diffusion.unet.groups": 0}, "groups=0"),
    ({"diffusion.flip": 2}, "flip=2"),
    ({"diffusion.recoloured_pairs": 1.5}, "recoloured_pairs=1.5"),
    ({"diffusion.recoloured_pairs": -0.1}, "recoloured_pairs=-0.1"),
    ({"diffusion.second_noise": 0.4}, "diffusion.second_noise=0.4"),  # a name of earlier versions
    ({"diffusion.warmup": 1e-3}, "0.001"),
    ({"data.size": 17}, "size=17"),
    ({"data.size": 4}, "size=4"),
    ({"data.limit": 10}, "limit=10"),
    (
        {"diffusion.unet.channels": (32, 32, 32, 32, 32)},
        "size=16",
    ),  # 16 pixels cannot be halved four times
    ({"data.limit": 200, "probe.neighbours": (5, 500)}, "500"),
    ({"data.name": "cifar"}, "cifar"),
    ({"data.path": "/x"}, "path='/x'"),  # the digits have none
    ({"data.name": "folder"}, "path=''"),
    ({"data.name": "imagenet100", "data.wnids": "/list"}, "path=''"),
    ({"data.name": "imagenet100", "data.path": "/x"}, "wnids=''"),
    ({"data.name": "folder", "data.path": "/x", "data.wnids": "/list"}, "wnids='/list'"),
    ({"data.name": "cifar10", "data.path": 3}, "path=3"),
    ({"data.evaluate_on": "train"}, "train"),
    ({"study.transfer": ("letters", "mnist")}, "mnist"),
    ({"study.transfer": ()}, "()"),
    ({"study.transfer": ("letters", "waves", "letters")}, "each name once"),
    ({"transfer.pictures": (99, 100, 100)}, "99"),
    ({"transfer.pictures": (100, 100)}, "pictures"),
    ({"logistic.c_range": (1.0, 0.1)}, "c_range=(1.0, 0.1)"),
    ({"logistic.c_range": (0, 0.1)}, "=0"),
    ({"logistic.n_c": 0}, "n_c=0"),
    ({"few_labels.shares": (0.1, 1.5)}, "1.5"),
    ({"few_labels.draws": 0}, "draws=0"),
    ({"data.normalisation": "published"}, "normalisation='published'"),  # none of the digits
    ({"diffusion.schedule": "linear"}, "schedule='linear'"),
    ({"precision": "fp16"}, "fp16"),
    ({"candidates.k": 4, "candidates.eta": 3}, "eta=3"),  # a good one before it does not hide it
]


@pytest.mark.parametrize("overrides, shown", REFUSED, ids=str)
def test_bad_override_is_refused_by_value(overrides, shown):
    with pytest.raises(ConfigError) as refusal:
        Profile("laptop", overrides)
    message = str(refusal.value)
    assert shown in message
    # one sentence that starts with the name of what is wrong
    assert re.fullmatch(r"[a-z][^\n]*\.", message)


def test_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'huge'.*gpu, laptop, paper, smoke"):
        Profile("huge")


@pytest.mark.parametrize(
    "seed", [-1, 2**31, 2**31 - 1, True, 0.5, "0"]
)  # the last encoder's is seed + study.seeds
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ConfigError, match="seed"):
        Profile("laptop", seed=seed)


@pytest.mark.parametrize("given, shown", [
    ({"method": "BYOL"}, r"method='BYOL': input should be one of SimCLR, .*supervised\."),
    ({"nosuch": 1}, "nosuch=1"),
    ({"seed": -1}, "seed=-1"),
])  # fmt: skip
def test_what_a_stage_is_given_is_checked_too(given, shown):
    with pytest.raises(ConfigError, match=shown):
        Profile("laptop").stage(Pretrained, **given)


@pytest.mark.parametrize("overrides, field, value", [
    ({"candidates.k": 4}, "candidates.k", 4),
    ({"candidates.mix_weight": 0}, "candidates.mix_weight", 0.0),
    ({"candidates.mix_weight": 1}, "candidates.mix_weight", 1.0),
    ({"candidates.mix_below": 1}, "candidates.mix_below", 1),
    ({"candidates.mix_below": 1000}, "candidates.mix_below", 1000),
    ({"diffusion.recoloured_pairs": 1}, "diffusion.recoloured_pairs", 1.0),
    ({"study.seeds": 4, "study.models": 4}, "study.models", 4),
    ({"diffusion.lr": 1e-3}, "diffusion.lr", 0.001),
    ("{'diffusion.lr': 1e-3}", "diffusion.lr", 0.001),
    ({"diffusion.flip": True}, "diffusion.flip", True),
    ({"simclr.backbone.layers": (2, 2)}, "simclr.backbone.layers", (2, 2)),
    ("{'simclr.backbone.layers': (2, 2)}", "simclr.backbone.layers", (2, 2)),
    ({"probe.neighbours": [5, 10]}, "probe.neighbours", (5, 10)),  # as JSON has it
    ({"data.evaluate_on": "validation"}, "data.evaluate_on", "validation"),
    ({"data.name": "cifar10", "data.size": 32}, "data.name", "cifar10"),
    ({"data.name": "folder", "data.path": "/my photos"}, "data.path", "/my photos"),
    ({"data.name": "imagenet100", "data.path": "/x", "data.wnids": "/list"}, "data.wnids", "/list"),
    ("{'candidates.k': 4, 'candidates.k': 5}", "candidates.k", 5),
    ({"nnclr.batch": 4096, "nnclr.queue": 4096}, "nnclr.queue", 4096),
    ({"diffusion.unet.channels": (30, 96), "diffusion.unet.groups": 6}, "diffusion.unet.groups", 6),
    ({"moco.third_view.weight": 0.3}, "moco.third_view.weight", 0.3),
    ({"class_candidates.guidance": 2}, "class_candidates.guidance", 2.0),
    ({"class-candidates.guidance": 2}, "class_candidates.guidance", 2.0),
    ({"precision": "fp32"}, "precision", "fp32"),
    ({"study.tsne": 50}, "study.tsne", 50),
    ({"study.transfer": ["pets"]}, "study.transfer", ("pets",)),
    ({"transfer.pictures": (100, 100, 500)}, "transfer.pictures", (100, 100, 500)),
    ({"logistic.c_range": (0.1, 0.1)}, "logistic.c_range", (0.1, 0.1)),
    ({"few_labels.shares": (0, 1)}, "few_labels.shares", (0.0, 1.0)),
])  # fmt: skip
def test_good_override_sets_its_field(overrides, field, value):
    found = Profile("laptop", overrides)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


def test_overrides_as_text_are_those_of_the_dictionary():
    overrides = {"candidates.k": 4, "precision": "fp32", "diffusion.unet.channels": (16, 32)}
    assert Profile("smoke", repr(overrides)).tree == Profile("smoke", overrides).tree
    assert Profile("smoke", "{}").tree == Profile("smoke", "").tree == Profile("smoke").tree


def test_override_changes_nothing_else():
    smoke, laptop = Profile("smoke"), Profile("laptop")
    changed = Profile("smoke", {"candidates.k": 7})
    assert changed.tree == merge(smoke.tree, {"candidates": {"k": 7}})
    bank = dataclasses.replace(smoke.candidates, k=7)
    encoder = dataclasses.replace(smoke.probe.encoder, bank=bank)
    of_encoder = {
        name: dataclasses.replace(smoke.sections[name], encoder=encoder)
        for name in ("probe", "logistic", "few_labels")
    }
    assert changed.sections == smoke.sections | {"candidates": bank} | of_encoder
    again = Profile("smoke")
    assert again.tree == smoke.tree and again.sections == smoke.sections
    assert smoke.tree != laptop.tree and smoke.sections != laptop.sections


def test_what_holds_for_pretrain_holds_for_all_contrastive_methods():
    plain = Profile("laptop")
    changed = Profile(
        "laptop", {"pretrain.epochs": 3, "pretrain.views.hue": 0.2, "pretrain.queue": 1024}
    )
    for section in CONTRASTIVE:
        own = getattr(changed, section)
        assert own.epochs == 3 and own.views.hue == 0.2
        assert getattr(own, "queue", 1024) == 1024
        assert own.views.brightness == getattr(plain, section).views.brightness
    assert changed.classifier == plain.classifier and not hasattr(changed.simclr, "queue")
    own = Profile("laptop", {"moco.epochs": 5, "pretrain.epochs": 3})
    assert (own.moco.epochs, own.simclr.epochs) == (5, 3), (
        "what a method says for itself counts more"
    )


def test_what_holds_for_diffusion_holds_for_the_class_conditional_model_unless_it_says_otherwise():
    both = Profile("laptop", {"diffusion.steps": 7, "diffusion.unet.dropout": 0.2})
    for section in (both.diffusion, both.class_diffusion):
        assert (section.steps, section.unet.dropout) == (7, 0.2)
    own = {"class_diffusion.steps": 9, "class_diffusion.unet.dropout": 0.1}
    changed = Profile("laptop", {"diffusion.steps": 7, **own})
    assert (changed.diffusion.steps, changed.class_diffusion.steps) == (7, 9)
    assert (changed.diffusion.unet.dropout, changed.class_diffusion.unet.dropout) == (0.0, 0.1)
    # Finished weights are of one network.
    assert not Profile("laptop", {"diffusion.source": "a.pt"}).class_diffusion.source


@pytest.mark.parametrize("profile", ["laptop", "smoke"])
@pytest.mark.parametrize("name", BY_DATA_SET)
def test_a_data_set_changes_nothing_of_the_small_profiles(profile, name):
    given = {"data.name": name, "data.path": "/x"}
    given |= {"data.wnids": "/list"} if name == "imagenet100" else {}
    assert Profile(profile, given).tree == merge(Profile(profile).tree, nested_by(given))


def nested_by(given):
    return {"data": {name.removeprefix("data."): value for name, value in given.items()}}


@pytest.mark.parametrize("profile", ["gpu", "paper"])
def test_overrides_count_more_than_what_a_data_set_changes(profile):
    own = {"data.name": "cifar100", "moco.third_view.weight": 0.7, "diffusion.batch": 64}
    found = Profile(profile, own)
    assert (found.moco.third_view.weight, found.diffusion.batch) == (0.7, 64)
    assert found.diffusion.steps == 312_000 and found.data.normalisation == "published"
    assert Profile(profile, {"data.name": "stl10", "data.size": 32}).data.size == 32
    assert Profile(profile, {"pretrain.third_view.weight": 0.7}).moco.third_view.weight == 0.7


def test_the_path_of_the_data_is_its_override():
    by_name = Profile("paper", {"data.path": "/x"})
    assert Profile("paper", data="/x").sections == by_name.sections and by_name.data.path == "/x"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_builds_with_every_stage(name):
    profile = Profile(name, {"candidates.k": 3}, seed=5)
    assert profile.name == name and profile.candidates.k == 3
    for kind in Stage.kinds.values():
        if kind.defaults():
            stage = profile.stage(kind)
            assert type(stage) is kind and getattr(stage, "seed", 5) == 5
    for method, recipe in METHODS.items():
        stage = profile.stage(Scores, method=method)
        assert stage.encoder.method == method and type(stage.encoder.settings) is recipe.settings
        assert profile.settings(recipe.section) == getattr(profile, recipe.section)


def test_sections_are_what_stages_and_methods_declare():
    profile = Profile("laptop")
    of_stages = {
        "data", "diffusion", "class_diffusion", "candidates", "class_candidates", "probe",
        "samples",
        "transfer", "logistic", "few_labels",
        "clusters", "representation_diffusion", "rcg_candidates", "cluster_diffusion",
        "cluster_candidates",
    }  # fmt: skip
    of_methods = {
        "simclr", "nnclr", "all4one", "moco", "multi_view", "cacr", "swav", "mcl", "classifier",
    }  # fmt: skip
    assert (
        profile.sections.keys()
        == profile.tree.keys()
        == of_stages | of_methods | {"study", "precision"}
    )
    assert of_stages == {kind.section for kind in Stage.kinds.values() if kind.defaults()}
    assert of_methods == {recipe.section for recipe in METHODS.values()}
    for section in of_stages:
        first = next(kind for kind in Stage.kinds.values() if kind.section == section)
        assert (
            type(profile.sections[section]) is first
            and profile.tree[section].keys() == first.defaults().keys()
        )
    with pytest.raises(AttributeError, match="nosuch"):
        profile.nosuch  # noqa: B018


def test_profiles_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Profile("laptop").candidates.k = 3
    before = json.dumps([PROFILES, BY_DATA_SET])
    Profile("smoke", {"pretrain.views.hue": 0.3}, seed=1).tree["candidates"]["k"] = 9
    Profile("paper", data="/x")
    Profile("paper", {"data.name": "stl10", "pretrain.backbone.width": 32})
    assert (
        json.dumps([PROFILES, BY_DATA_SET]) == before
        and Profile("smoke").tree["candidates"]["k"] == 2
    )


def test_a_stage_takes_what_it_is_given_in_the_place_of_its_own():
    profile = Profile("laptop")
    assert profile.stage(InterpolatedBank, mix_weight=0.1, seed=3) == dataclasses.replace(
        profile.candidates, mix_weight=0.1, seed=3
    )


def test_the_same_profile_of_another_seed():
    given = {"candidates.k": 3, "pretrain.epochs": 4}
    one, other = Profile("smoke", given, seed=2), Profile("smoke", given, seed=5)
    found = one.of_seed(5)
    assert (found.name, found.seed) == ("smoke", 5) and found.tree == other.tree == one.tree
    assert found.sections == other.sections != one.sections
    assert one.seed == 2 and one.of_seed(2).sections == one.sections
    at = Profile("paper", repr(given), "/x").of_seed(1)
    assert at.data.path == "/x" and at.candidates.k == 3 and at.candidates.seed == 1


def test_large_profiles_have_the_reported_settings():
    paper = Profile("paper")
    assert paper.diffusion.unet.channels == (
        128,
        256,
        256,
        256,
    ) and paper.diffusion.unet.attention == (16,)
    assert (
        paper.candidates.mix_weight,
        paper.candidates.k,
        paper.candidates.steps,
        paper.candidates.eta,
    ) == (0.1, 8, 100, 0.1)
    assert (
        paper.simclr.batch,
        paper.simclr.lr,
        paper.simclr.epochs,
        paper.simclr.third_view.weight,
    ) == (1024, 0.5, 1000, 1.0)
    assert (paper.moco.batch, paper.moco.lr, paper.moco.queue, paper.moco.third_view.weight) == (
        512,
        0.3,
        32768,
        0.5,
    )
    assert (
        paper.simclr.backbone.hidden,
        paper.simclr.backbone.projection,
        paper.simclr.temperature,
    ) == (4096, 256, 0.2)
    # What the laptop needs and the paper does not have.
    assert paper.diffusion.recoloured_pairs == paper.diffusion.snr_gamma == 0
    assert paper.candidates.mix_below == 1000
    assert paper.simclr.third_view.ramp == paper.moco.third_view.ramp == 0
    assert Profile("gpu").diffusion.source == "google/ddpm-cifar10-32"
