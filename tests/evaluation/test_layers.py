"""What every layer knows: features of layers, and the background that is read from features."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clsp_utils.config import Backbone, Data, Probe
from clsp_utils.contrastive import Encoder
from clsp_utils.data import load
from clsp_utils.evaluation import background_r2, extract_features, layer_features, score_layers

BACKBONE = Backbone(layers=(1, 1), width=8, stem_stride=1, hidden=24, projection=12)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(BACKBONE).eval()


@pytest.fixture(scope="module")
def splits():
    train, test = load(Data(limit=200))
    return train, test[:80]


def test_every_layer_has_its_channels_and_no_hook_stays(encoder, splits):
    train, _ = splits
    found = layer_features(encoder, train.images, train.statistics, "fp32")
    widths = {"stem": 8, "level 1": 8, "level 2": 16, "hidden": 24, "projection": 12}
    assert {name: x.shape[1] for name, x in found.items()} == widths
    assert all(len(x) == len(train) for x in found.values())
    assert not any(module._forward_hooks for module in encoder.modules())


def test_the_last_level_is_the_features_and_the_last_layer_the_projections(encoder, splits):
    train, _ = splits
    how = train.images, train.statistics, "fp32"
    found = layer_features(encoder, *how)
    torch.testing.assert_close(found["level 2"], extract_features(encoder.backbone, *how))
    torch.testing.assert_close(
        F.normalize(found["projection"], dim=1), extract_features(encoder, *how)
    )
    assert (found["hidden"] >= 0).all()


# The background ---------------------------------------------------------------------------------


def draws(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 8, 8, 3))


def coarse(images):
    """The mean of each of 4 x 4 tiles of 2 x 2 pixels."""
    return images.reshape(len(images), 4, 2, 4, 2, 3).mean((2, 4)).reshape(len(images), -1)


def test_what_holds_the_background_reads_it_and_what_holds_nothing_does_not():
    train, test = draws(400, 0), draws(300, 1)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(48, 48))).Q
    x, x_test = (torch.tensor(coarse(y) @ turn).float() for y in (train, test))
    assert background_r2(x, train, x_test, test) > 0.99
    noise = (
        torch.tensor(draws(n, s).reshape(n, -1)[:, :48]).float() for n, s in ((400, 3), (300, 4))
    )
    x, x_test = noise
    assert -0.1 < background_r2(x, train, x_test, test) < 0.05


def test_half_of_the_background_is_half_of_its_variance():
    train, test = draws(2000, 0), draws(1000, 1)
    x, x_test = (torch.tensor(coarse(y)[:, ::2]).float() for y in (train, test))
    assert background_r2(x, train, x_test, test) == pytest.approx(0.5, abs=0.03)


def test_scale_and_shift_of_features_and_backgrounds_change_nothing():
    train, test = draws(200, 0), draws(100, 1)
    x, x_test = (torch.tensor(coarse(y)[:, :20]).float() for y in (train, test))
    expected = background_r2(x, train, x_test, test)
    found = background_r2(50 * x - 3, 7 * train + 9, 50 * x_test - 3, 7 * test + 9)
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_row_per_layer(encoder, splits):
    train, test = splits
    rows = score_layers(
        encoder, train, test, train.statistics, Probe(epochs=3), seed=0, precision="fp32"
    )
    assert [row["layer"] for row in rows] == ["stem", "level 1", "level 2", "hidden", "projection"]
    assert all(0 <= row["linear"] <= 1 and row["background"] <= 1 for row in rows)
    assert rows[0]["background"] > 0.1  # colours are averaged there, and not lost
