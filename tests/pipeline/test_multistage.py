"""Encoders that are trained one after another: what each follows, and what is loaded."""

import numpy as np
import pytest
import torch
from least_work import QUICK

from clsp_utils import contrastive
from clsp_utils.config import ConfigError
from clsp_utils.contrastive import backbones
from clsp_utils.evaluation import extract_features
from clsp_utils.pipeline import Companion, LayerScores, Pretrained, Profile, Scores
from clsp_utils.positives import cluster, standardise
from clsp_utils.runtime import seed_for


def test_a_stage_follows_one_with_a_stage_less_and_the_first_is_simclr():
    profile = Profile("smoke", {"mcl.stages": 3})
    last = profile.stage(Pretrained, method="MCL", seed=4)
    assert (last.earlier.method, last.earlier.settings.stages) == ("MCL", 2)
    first = profile.stage(Pretrained, method="SimCLR", seed=4)
    assert last.earlier.earlier == first and first.earlier is None
    two = Profile("smoke").stage(Pretrained, method="MCL", seed=4)
    assert two.request.key == last.earlier.request.key != last.request.key


def test_more_clusters_than_anchors_are_refused_before_anything_is_made(home):
    c = Companion("smoke", 0, QUICK | {"mcl.clusters": 257})
    with pytest.raises(ConfigError, match=r"mcl\.clusters=257 must be at most 256 anchors"):
        c.artifact(Pretrained, method="MCL")
    assert not list((home / "artifacts").glob("pretrain/*"))


def test_negatives_come_from_the_clusters_of_all_encoders_before(home, monkeypatch):
    c = Companion("smoke", 0, QUICK | {"mcl.stages": 3, "mcl.clusters": 4})
    seen, pretrain = [], contrastive.pretrain

    def spy(method, cfg, images, labels, statistics, seed, *rest, **more):
        seen.append((method, labels, seed))
        return pretrain(method, cfg, images, labels, statistics, seed, *rest, **more)

    monkeypatch.setattr(contrastive, "pretrain", spy)
    encoder = c.get(Pretrained, method="MCL")
    assert [method for method, *_ in seen] == ["SimCLR", "MCL", "MCL"]
    seeds = [0, seed_for(0, "stage", 2), seed_for(0, "stage", 3)]
    assert [seed for *_, seed in seen] == seeds
    first, second, _ = backbones(encoder)
    own = []
    for backbone in (first, second):
        f = extract_features(backbone, c.data.train.images, c.data.statistics, "fp32")
        own.append(cluster(standardise(f.numpy()), 4, 0))
    assert np.array_equal(seen[1][1], own[0])
    together = {pair: i for i, pair in enumerate(sorted(set(zip(*own))))}
    expected = [together[pair] for pair in zip(*own)]
    assert np.array_equal(np.unique(seen[2][1], return_inverse=True)[1], expected)


def test_what_is_loaded_gives_the_features_of_all_stages(home):
    c = Companion("smoke", 0, QUICK)
    first, both = (c.get(Pretrained, method=name) for name in ("SimCLR", "MCL"))
    x = torch.randn(4, 3, 16, 16)
    n = first.backbone.n_features
    found = both.backbone(x)
    assert found.shape == (4, 2 * n) and torch.equal(found[:, :n], first.backbone(x))
    assert not torch.allclose(found[:, n:], found[:, :n])
    assert 0 <= c.get(Scores, method="MCL")["linear"] <= 1


def test_one_cluster_is_another_encoder_of_the_same_kind(home):
    c = Companion("smoke", 0, QUICK | {"mcl.clusters": 1})
    stage = c.stage(Pretrained, method="MCL")
    log, simclr = (c.artifact(Pretrained, method=name) / "losses.npy" for name in ("MCL", "SimCLR"))
    assert not np.array_equal(np.load(log), np.load(simclr)) and stage.own_seed != stage.seed


def test_every_layer_of_an_encoder_is_scored(home):
    c = Companion("smoke", 0, QUICK)
    rows = c.get(LayerScores, method="SimCLR")
    levels = [f"level {i + 1}" for i in range(len(c.cfg.simclr.backbone.layers))]
    assert [row["layer"] for row in rows] == ["stem", *levels, "hidden", "projection"]
    assert rows[-1]["width"] == c.cfg.simclr.backbone.projection
