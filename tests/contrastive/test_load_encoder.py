"""Imported encoders compute what they computed where they come from; all else is refused."""

import re

import numpy as np
import pytest
import torch
from networks_of_others import WRAPPED, authors, one_sentence, plus, randomised, seeded, without
from torch import nn
from torchvision.models import resnet18, resnet50

from clsp_utils.contrastive.pretrained import load_encoder
from clsp_utils.data import NORMALISATION, ChannelStatistics
from clsp_utils.evaluation import extract_features
from clsp_utils.runtime import WeightsError


def authors_encoder(build, max_pool=False):
    net = build()
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if not max_pool:
        net.maxpool = nn.Identity()
    net.fc = nn.Sequential(nn.Linear(net.fc.in_features, 16), nn.ReLU(), nn.Linear(16, 8))
    return randomised(net)


def images():
    return torch.randn(2, 3, 8, 8, generator=seeded())


@pytest.fixture(scope="module")
def resnet18_tensors():
    return authors_encoder(resnet18).state_dict()


@pytest.mark.parametrize(
    ("build", "n_features", "max_pool"),
    [(resnet18, 512, False), (resnet18, 512, True), (resnet50, 2048, False)],
)
@torch.no_grad()
def test_the_authors_encoder(build, n_features, max_pool):
    theirs = authors_encoder(build, max_pool)
    ours = load_encoder(theirs.state_dict(), "cifar10", max_pool)
    theirs.fc = nn.Identity()
    features = ours(images())
    assert not ours.training and features.shape == (2, n_features) and ours.n_features == n_features
    assert torch.equal(features, theirs(images()))


@pytest.mark.parametrize("projector", [True, False])
@torch.no_grad()
def test_an_encoder_file_with_and_without_projector(tmp_path, resnet18_tensors, projector):
    tensors = {
        key: value
        for key, value in resnet18_tensors.items()
        if projector or not key.startswith("fc.")
    }
    assert len(tensors) == 120 + 4 * projector
    torch.save(WRAPPED["DataParallel"](tensors), tmp_path / "a.pt")
    assert torch.equal(
        load_encoder(tmp_path / "a.pt", "cifar10")(images()),
        load_encoder(resnet18_tensors, "cifar10")(images()),
    )


@torch.no_grad()
def test_max_pooling_is_not_in_the_weights_but_changes_the_features(resnet18_tensors):
    plain, pooled = (
        load_encoder(resnet18_tensors, "cifar10", max_pool)(images()) for max_pool in (False, True)
    )
    assert (plain - pooled).abs().max() > 1e-2


DAMAGED_ENCODERS = {
    "missing": (without("layer3.1.bn2.running_var"), "1 missing (layer3.1.bn2.running_var)"),
    "unknown": (plus("layer5.0.conv1.weight", 1), "1 unknown (layer5.0.conv1.weight)"),
    "the large stem": (
        plus("conv1.weight", 64, 3, 7, 7),
        "conv1.weight: (64, 3, 7, 7) instead of (64, 3, 3, 3)",
    ),
    "another width": (
        plus("layer4.1.conv2.weight", 256, 512, 3, 3),
        "layer4.1.conv2.weight: (256, 512, 3, 3)",
    ),
    "nothing": (lambda tensors: {}, "missing (conv1.weight"),
    "a diffusion model": (lambda tensors: authors((8,)).state_dict(), "unknown (time_embedding"),
}


@pytest.mark.parametrize(("damage", "seen"), DAMAGED_ENCODERS.values(), ids=DAMAGED_ENCODERS)
def test_encoders_that_do_not_fit_are_named(resnet18_tensors, damage, seen):
    with pytest.raises(WeightsError, match=re.escape(seen)) as error:
        load_encoder(damage(resnet18_tensors), "cifar10")
    one_sentence(error)


@pytest.mark.parametrize("source", ["nowhere.pt", "."])
def test_an_encoder_comes_from_a_file(source):
    with pytest.raises(WeightsError, match="is not a file"):
        load_encoder(source, "cifar10")


# Normalisation ------------------------------------------------------------------------------------

STATISTICS = ChannelStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("name", NORMALISATION)
def test_an_encoder_tells_what_its_images_are_normalised_by(resnet18_tensors, name):
    assert load_encoder(resnet18_tensors, name).statistics == NORMALISATION[name]
    assert load_encoder(resnet18_tensors, STATISTICS).statistics == STATISTICS


def test_nobody_may_forget_what_images_are_normalised_by(resnet18_tensors):
    with pytest.raises(TypeError, match="normalised_by"):
        load_encoder(resnet18_tensors)


@pytest.mark.parametrize("name", ["", "CIFAR-10", "imagenet", "digits", "cifar"])
def test_unknown_constants_are_refused(resnet18_tensors, name):
    with pytest.raises(WeightsError, match="must be one of cifar10, cifar100, stl10") as error:
        load_encoder(resnet18_tensors, name)
    assert f"normalised_by={name!r}" in str(error.value)
    one_sentence(error)


@torch.no_grad()
def test_features_are_those_of_images_normalised_as_in_its_training(resnet18_tensors):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    net = load_encoder(resnet18_tensors, "cifar10")
    found = extract_features(net, pixels, net.statistics, "fp32")
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)
    by_hand = net.cpu()((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-4)
    true_statistics = ChannelStatistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    other = extract_features(net, pixels, true_statistics, "fp32")
    assert (other - found).abs().mean() > 0.05 * found.abs().mean()
