"""Imported encoders compute what they computed where they come from; all else is refused."""

import re

import pytest
import torch
from networks_of_others import WRAPPED, authors, one_sentence, plus, randomised, seeded, without
from torch import nn
from torchvision.models import resnet18, resnet50

from clsp_utils.contrastive.pretrained import load_encoder
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
