"""Encoders on other data, with few labels or none: what is made of which, what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from least_work import QUICK, put_images
from PIL import Image

from clsp_utils.data import DataError, load_transfer
from clsp_utils.evaluation import accuracy, measure, transfer_score
from clsp_utils.pipeline import Companion, Measures, Pretrained, TransferScores, TransferSet


@pytest.fixture
def c(home):
    return Companion("smoke", 0, QUICK)


def write_dtd(root, value=0):
    """DTD with two classes of eight images, split in 4, 2 and 2, where torchvision expects it."""
    base = root / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for split, numbers in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 8))):
        names = [f"{kind}/{i}.jpg" for kind in ("dotted", "woven") for i in numbers]
        for i, name in enumerate(names):
            (base / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (value, 9 * i, 7 * len(name))).save(base / "images" / name)
        (base / f"labels/{split}1.txt").write_text("\n".join(names))


def of_dtd(folder):
    given = QUICK | {"study.transfer": ("dtd",), "transfer.path": str(folder)}
    return Companion("smoke", 0, given)


# Sets ---------------------------------------------------------------------------------------------


def test_a_set_counts_by_its_content_wherever_it_lies(home, tmp_path):
    for place, value in (("one", 0), ("moved", 0), ("other", 100)):
        write_dtd(tmp_path / place, value)
    one, moved, other = (
        of_dtd(tmp_path / place).stage(TransferSet).request for place in ("one", "moved", "other")
    )
    assert one.key == moved.key != other.key
    assert str(tmp_path) not in json.dumps(one.config)


def test_a_set_is_read_at_the_size_of_the_data(c):
    stage = c.stage(TransferSet, name="textures")
    assert stage.size == c.cfg.data.size
    expected = load_transfer("textures", c.cfg.transfer, c.cfg.data.size)
    assert np.array_equal(stage.splits.test.images, expected.test.images)
    assert c.stage(TransferSet).name == c.cfg.study.transfer[0]


def test_a_set_is_read_once_for_all_encoders(c, monkeypatch):
    from clsp_utils import data

    read = []
    monkeypatch.setattr(data, "load_transfer", lambda *a: read.append(a) or load_transfer(*a))
    for method in ("SimCLR", "MoCoV2"):
        encoder = c.stage(Pretrained, method=method)
        c.stage(TransferScores, encoder=encoder, images=c.stage(TransferSet)).request  # noqa: B018
    assert len(read) == 1


def test_what_is_not_there_is_refused_before_anything_is_made(home, tmp_path):
    with pytest.raises(DataError, match="torchvision's DTD does not find"):
        of_dtd(tmp_path).artifact(TransferScores)
    assert not list(home.rglob("manifest.json"))


# Scores -------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_encoder_or_of_what_its_training_starts_from(c):
    encoder, images = c.stage(Pretrained, method="SimCLR"), c.stage(TransferSet, name="printed")
    how = images.splits, c.data.statistics, c.cfg.logistic, accuracy, "fp32"
    trained, untrained = (
        c.get(TransferScores, encoder=encoder, images=images, trained=x) for x in (True, False)
    )
    assert trained == transfer_score(c.get(Pretrained, method="SimCLR").backbone, *how)
    assert untrained == transfer_score(encoder.untrained().backbone, *how)
    assert trained.keys() == {"score", "c"} and trained != untrained


def test_an_encoder_of_images_without_labels_is_scored_on_other_data(c, monkeypatch):
    parts = (c.data.train, c.data.test)
    bare = [dataclasses.replace(part, labels=np.full(len(part), -1)) for part in parts]
    put_images(monkeypatch, *bare)
    assert 0 <= c.get(TransferScores, method="SimCLR")["score"] <= 1
    with pytest.raises(DataError, match="None of these images has a label"):
        c.get(Measures, method="SimCLR")


def test_measures_are_those_of_the_encoder(c):
    found = c.get(Measures, method="SimCLR", seed=1)
    encoder = c.stage(Pretrained, method="SimCLR", seed=1)
    backbone, views = c.pipeline.get(encoder).backbone, c.cfg.simclr.views
    parts, probe = (c.data.train, c.data.test), c.cfg.probe
    how = c.data.statistics, views, probe, c.cfg.few_labels, 1, "fp32"
    assert found == measure(backbone, *parts, *how)
    assert Measures.plan(c.cfg, {})["probe"].epochs == probe.epochs


def test_measures_follow_the_probe_and_transfer_does_not(home):
    one, other = (Companion("smoke", 0, QUICK | {"probe.epochs": epochs}) for epochs in (1, 2))
    assert one.stage(Measures).request.key != other.stage(Measures).request.key
    assert one.stage(TransferScores).request.key == other.stage(TransferScores).request.key
