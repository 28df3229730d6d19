"""All measures of one encoder: each is the one of its own function."""

import numpy as np
import pytest
import torch
from torch import nn

from clsp_utils.config import FewLabels, Probe, Views
from clsp_utils.data import ChannelStatistics, Images, normalise, to_float
from clsp_utils.evaluation import measure, rank_me, score, uniformity

STATISTICS = ChannelStatistics((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PROBE = Probe(epochs=5, batch=32, neighbours=(1, 5))
FEW = FewLabels(shares=(0.05, 0.5), draws=2)


def images(n, seed):
    labels = np.arange(n) % 7
    pixels = (
        np.random.default_rng(seed).integers(0, 100, (n, 8, 8, 3))
        + 20 * labels[:, None, None, None]
    )
    return Images(pixels.astype(np.uint8), labels, np.arange(n), tuple("abcdefg"))


TRAIN, TEST = images(140, 0), images(70, 1)


def backbone():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


def measured(views=None, train=TRAIN, test=TEST, seed=0):
    how = STATISTICS, views or Views(), PROBE, FEW, seed, "fp32"
    return measure(backbone(), train, test, *how)


def test_every_measure_is_there_and_in_its_range():
    found = measured()
    assert list(found) == [
        "linear", "top5", "linear_0.05", "linear_0.5", "rank_me", "alignment", "uniformity",
    ]  # fmt: skip
    assert all(0 <= found[name] <= 1 for name in list(found)[:4])
    assert found["linear"] <= found["top5"]
    assert 1 <= found["rank_me"] <= 16 and 0 < found["alignment"] < 4 and found["uniformity"] < 0


@pytest.mark.parametrize("p_flip", [0.0, 0.5])
def test_linear_is_that_of_the_score(p_flip):
    expected = score(backbone(), TRAIN, TEST, STATISTICS, PROBE, 0, "fp32", p_flip > 0)
    assert measured(Views(p_flip=p_flip))["linear"] == expected["linear"]


def test_measures_without_labels_are_those_of_the_test_features():
    with torch.inference_mode():
        x = backbone()(normalise(to_float(torch.from_numpy(TEST.images)), STATISTICS))
    found = measured()
    assert found["rank_me"] == pytest.approx(rank_me(x), rel=1e-5)
    assert found["uniformity"] == pytest.approx(uniformity(x), rel=1e-4)


def test_alignment_is_0_where_views_change_nothing_and_grows_with_what_they_change():
    same = Views(crop_area=(1.0, 1.0), p_jitter=0.0, p_grey=0.0)
    weak = Views(crop_area=(1.0, 1.0), p_jitter=1.0, p_grey=0.0)
    found = [measured(views)["alignment"] for views in (same, weak)]
    # A crop of all of the area may still have another shape, which no draw of these fits.
    assert found[0] < 1e-3 < found[1]


def test_measures_repeat_with_their_seed_and_leave_images_without_a_label_out():
    assert measured() == measured()
    assert measured(seed=1)["alignment"] != measured()["alignment"]
    more = Images(
        np.concatenate([TRAIN.images, 255 - TRAIN.images]),
        np.append(TRAIN.labels, np.full(140, -1)), np.arange(280), TRAIN.class_names,
    )  # fmt: skip
    assert measured(train=more) == measured()
