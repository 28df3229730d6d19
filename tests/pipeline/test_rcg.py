"""RCG's stages: fitted on anchors alone, by a frozen encoder; each anchor has its own condition."""

import dataclasses

import numpy as np
import pytest
import torch
from least_work import FP32, QUICK, equal, put_images

from clsp_utils.config import ConfigError, UNetShape, change
from clsp_utils.data import by_class
from clsp_utils.diffusion import train
from clsp_utils.evaluation import extract_features
from clsp_utils.pipeline import (
    AnchorSamples,
    ClassBank,
    ClassDiffusion,
    ClusterBank,
    ClusterDiffusion,
    Clusters,
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Profile,
    RcgBank,
    Representation,
    RepresentationDiffusion,
    comparison,
)
from clsp_utils.positives import cluster, conditional_samples, interpolate, standardise
from clsp_utils.runtime import seed_for


def test_the_representation_is_that_of_the_frozen_simclr_encoder_on_plain_anchors(home):
    c = Companion("smoke", 0, QUICK)
    encoder = c.get(Pretrained, method="SimCLR")
    assert c.stage(Representation).encoder == c.stage(Pretrained, method="SimCLR")
    train = c.data.train
    f = extract_features(encoder.backbone, train.images, c.data.statistics, "fp32").numpy()
    r = c.get(Representation)
    assert np.array_equal(r, standardise(f)) and r.shape == (256, encoder.backbone.n_features)
    assert equal(encoder, c.get(Pretrained, method="SimCLR"))  # it was not trained on
    clusters = c.get(Clusters)
    assert np.array_equal(clusters, cluster(r, c.cfg.clusters.n_clusters, 0))


def test_neither_labels_nor_test_images_have_a_say(home, monkeypatch):
    c = Companion("smoke", 0, QUICK)
    train, test = c.data.train, c.data.test
    r, clusters = c.get(Representation), c.get(Clusters)
    monkeypatch.setenv("CLSP_HOME", str(home / "other"))
    others = dataclasses.replace(train, labels=np.roll(train.labels, 1))
    put_images(monkeypatch, others, test[: len(test) // 2])
    again = Companion("smoke", 0, QUICK)
    assert len(again.data.test) < len(test) and not list((home / "other").rglob("manifest.json"))
    assert np.array_equal(again.get(Representation), r)
    assert np.array_equal(again.get(Clusters), clusters)


def test_more_clusters_than_anchors_are_refused_before_anything_is_made(home):
    c = Companion("smoke", 0, QUICK)
    with pytest.raises(ConfigError, match="n_clusters=257 must be at most 256 anchors"):
        c.artifact(Clusters, n_clusters=257)
    assert not list(home.rglob("manifest.json"))


def test_banks_hold_samples_of_each_anchors_own_condition(home):
    c = Companion(
        "smoke", 0, QUICK | {"rcg_candidates.batch": 100, "cluster_candidates.batch": 100}
    )
    for bank, unet, of in (
        (RcgBank, RepresentationDiffusion, Representation),
        (ClusterBank, ClusterDiffusion, Clusters),
    ):
        found, condition, model, how = c.get(bank), c.get(of), c.get(unet), c.stage(bank)
        assert found.shape == (256, 1, 16, 16, 3) and isinstance(found, np.memmap)
        for i in range(3):
            rows = slice(100 * i, 100 * (i + 1))
            settings = (1, 1, how.eta, how.guidance, seed_for(0, "bank", i), "fp32")
            expected = conditional_samples(model, condition[rows], *settings)
            assert np.array_equal(found[rows], expected)
        # What stands in for them in trials has their shapes.
        in_its_place = c.stage(of).stand_in()
        assert in_its_place.shape == condition.shape
        assert in_its_place.dtype.kind == condition.dtype.kind
        assert shapes_of(c.stage(unet).stand_in()) == shapes_of(model)
    assert shapes_of(c.stage(ClassDiffusion).stand_in()) == shapes_of(c.get(ClassDiffusion))


def shapes_of(unet):
    return {name: value.shape for name, value in unet.state_dict().items()}


def test_the_model_of_vectors_is_read_as_it_was_trained(home, monkeypatch):
    c = Companion("smoke", 0, QUICK | {"diffusion.steps": 3})
    saved = []
    save = RepresentationDiffusion.save
    monkeypatch.setattr(
        RepresentationDiffusion,
        "save",
        lambda self, job, unet, losses: saved.append(unet) or save(self, job, unet, losses),
    )
    unet = c.get(RepresentationDiffusion)
    assert equal(unet, saved[0]) and not unet.training
    assert unet.class_embedding.weight.any()
    x = torch.randn(2, 3, 16, 16, device=unet.device)
    r = torch.from_numpy(c.get(Representation)[:2]).to(unet.device)
    with torch.no_grad():
        one = unet(x, 5, class_labels=r).sample
        assert not torch.equal(one, unet(x, 5, class_labels=-r).sample)


def test_sections_of_conditional_models_follow_the_unconditional_one():
    own = {"cluster_diffusion.steps": 9, "representation_diffusion.unet.dropout": 0.1}
    found = Profile("laptop", {"diffusion.steps": 7, **own})
    assert (found.cluster_diffusion.steps, found.representation_diffusion.steps) == (9, 7)
    assert found.representation_diffusion.unet.dropout == 0.1
    assert found.cluster_diffusion.unet == found.diffusion.unet


def test_a_conditional_model_can_begin_with_the_unconditional_one(home):
    plain, going_on = Companion("smoke", 0, QUICK), {"class_diffusion.from_unconditional": True}
    c = Companion("smoke", 0, QUICK | going_on)
    assert plain.stage(ClassDiffusion).start is None
    stage = c.stage(ClassDiffusion)
    assert stage.start == c.stage(DiffusionModel) and stage.start in stage.inputs
    expected, _ = train(
        stage, c.data.train.images, 0, home, "fp32", c.data.train.labels, c.unet,
    )  # fmt: skip
    assert equal(c.get(ClassDiffusion), expected)


def test_a_model_that_cannot_go_on_is_refused(home):
    c = Companion("smoke", 0, QUICK | {"class_diffusion.from_unconditional": True})
    given, stage = c.stage(DiffusionModel), c.stage(ClassDiffusion)
    misfits = {"start": change(given, source="somewhere")}, {"unet": UNetShape(channels=(8, 16))}
    for misfit in misfits:
        with pytest.raises(ConfigError, match=r"class_diffusion\.from_unconditional=True needs"):
            change(stage, **misfit).check()
    change(stage, unet=change(stage.unet, dropout=0.3)).check()  # which has no weights


def test_a_model_that_diverges_names_its_own_section(home):
    from clsp_utils.runtime import Diverged

    broken = {"cluster_diffusion.lr": 1e30, "cluster_diffusion.clip": 1e30}
    c = Companion("smoke", 0, QUICK | broken | {"cluster_diffusion.steps": 12})
    with pytest.raises(Diverged, match=r"lower cluster_diffusion\.lr"):
        c.artifact(ClusterDiffusion)


@pytest.mark.parametrize("kind", [InterpolatedBank, RcgBank, ClusterBank, ClassBank])
def test_several_candidates_of_some_anchors_are_made_as_the_banks(home, kind):
    c = Companion("smoke", 0, QUICK)
    bank = c.stage(kind)
    found = c.get(AnchorSamples, bank=bank, n=12, k=3)
    assert found.shape == (12, 3, 16, 16, 3)
    rows, seed = by_class(c.data.train.labels)[:12], seed_for(0, "anchor samples")
    unet = c.pipeline.get(bank.unet)
    if kind is InterpolatedBank:
        images = c.data.train.images[rows]
        how = (bank.mix_weight, bank.mix_below, 3, bank.steps, bank.eta, seed, "fp32")
        expected = interpolate(unet, images, *how)
    else:
        conditions = {
            RcgBank: lambda: c.get(Representation), ClusterBank: lambda: c.get(Clusters),
            ClassBank: lambda: c.data.train.labels,
        }  # fmt: skip
        how = (3, bank.steps, bank.eta, bank.guidance, seed, "fp32")
        expected = conditional_samples(unet, conditions[kind]()[rows], *how)
    assert np.array_equal(found, expected)


def test_methods_compare_the_banks_that_they_are_given(home):
    c = Companion("smoke", 0, QUICK | {"study.models": 2})
    asked = []

    def bank(profile):
        asked.append(profile.seed)
        clusters = profile.stage(Clusters, n_clusters=4)
        return profile.stage(ClusterBank, unet=profile.stage(ClusterDiffusion, clusters=clusters))

    stage = bank(c.cfg)
    table = comparison(c, {"four": ("RCG-cluster", bank), "plain": ("SimCLR", None)})
    assert table.method.tolist() == 2 * ["four", "plain"]
    table = table[table.method == "four"]
    assert asked == [0, 0, 1] and table.seed.tolist() == table.model.tolist() == [0, 1]
    found = {path.name for path in (home / "artifacts" / "pretrain").glob("[0-9a-f]*")}
    own = c.stage(Pretrained, method="RCG-cluster", bank=stage, seed=0).request.key
    default = c.stage(Pretrained, method="RCG-cluster", seed=0).request.key
    assert own in found and default not in found


def test_inflation_takes_as_many_steps_as_simclr(home):
    c = Companion("smoke", 0, QUICK | {"candidates.k": 2})
    simclr, more = (c.artifact(Pretrained, method=m) for m in ("SimCLR", "inflation"))
    assert len(np.load(simclr / "losses.npy")) == len(np.load(more / "losses.npy")) == 4
    assert c.stage(Pretrained, method="inflation").bank == c.stage(InterpolatedBank)
    assert c.stage(Pretrained, method="inflation").settings.third_view is None


def test_keys_of_these_stages_hold_what_shapes_them(home):
    c = Companion("smoke", 0, FP32)
    stage = c.stage(ClusterBank)
    assert stage.request.inputs == (c.stage(ClusterDiffusion).request.key,)
    assert set(c.stage(ClusterDiffusion).request.inputs) == {
        c.data.request.key, c.stage(Clusters).request.key,
    }  # fmt: skip
    assert c.stage(Clusters, seed=1).request.key != c.stage(Clusters).request.key
