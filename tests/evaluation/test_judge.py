"""The judge: which class it sees, and who counts."""

import numpy as np
import pytest
import torch
from torch import nn

from clsp_utils.data import ChannelStatistics
from clsp_utils.evaluation import Judge, extract_features

STATISTICS = ChannelStatistics((0.5,) * 3, (0.25,) * 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


class Network(nn.Module):
    """Sees which channel is brightest."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x):
        return self.head(self.backbone(x))


@pytest.fixture
def judge():
    return Judge(Network().eval(), STATISTICS, "fp32")


def test_classify_gives_the_class_of_the_largest_logit(judge):
    found = judge.classify(IMAGES)
    assert isinstance(found, np.ndarray) and found.shape == (12,)
    assert found.tolist() == IMAGES.mean((1, 2)).argmax(1).tolist() and len(set(found)) == 3


def test_agreement_is_the_share_of_right_classes(judge, monkeypatch):
    monkeypatch.setattr(Judge, "classify", lambda self, images: np.array([1, 2, 3, 4]))
    assert judge.agreement(IMAGES[:4], np.array([1, 2, 0, 0])) == 0.5


def test_images_without_a_label_are_not_judged(judge, monkeypatch):
    monkeypatch.setattr(Judge, "classify", lambda self, images: np.zeros(len(images), int))
    assert judge.agreement(IMAGES[:4], np.array([0, -1, 1, -1])) == 0.5


def test_agreement_with_its_own_classes_and_with_others(judge):
    classes = judge.classify(IMAGES)
    assert judge.agreement(IMAGES, classes) == 1
    assert judge.agreement(IMAGES, (classes + 1) % 3) == 0


def test_features_are_those_of_the_backbone(judge):
    found = judge.features(IMAGES)
    assert found.shape == (12, 3) and found.dtype == np.float64
    expected = extract_features(judge.network.backbone, IMAGES, STATISTICS, "fp32")
    assert np.array_equal(found, expected.double().numpy())
    means = IMAGES.mean((1, 2)) / 255
    np.testing.assert_allclose(found, (means - 0.5) / 0.25, rtol=1e-4, atol=1e-5)


def test_judge_asks_in_its_precision():
    torch.manual_seed(0)
    network = nn.Module()
    network.backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    full, half = (Judge(network, STATISTICS, p).features(IMAGES) for p in ("fp32", "bf16"))
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(full, half, rtol=0.05, atol=0.05)
