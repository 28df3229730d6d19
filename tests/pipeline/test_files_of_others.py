"""Candidates and conditional weights of others take the place of what would be made here."""

import shutil

import numpy as np
import pytest
import torch
from least_work import QUICK, equal
from networks_of_others import authors, authors_conditional

from clsp_utils.config import ConfigError, change
from clsp_utils.diffusion import load_conditional, noise_schedule
from clsp_utils.pipeline import (
    AnchorSamples,
    ClassBank,
    ClassDiffusion,
    Companion,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Profile,
    Samples,
)
from clsp_utils.positives import conditional_samples
from clsp_utils.runtime import seed_for

N = 256  # anchors of the profile `smoke`
K = {"candidates.k": 2, "class_candidates.k": 2}
OF_A_CLASS = {"CLSP-SimCLR": "candidates", "class positives": "class_candidates"}


def candidates(seed=0, k=2):
    return np.random.default_rng(seed).integers(0, 256, (N, k, 16, 16, 3), dtype=np.uint8)


def companion(size=16, **sources):
    settings = {f"{section}.source": str(path) for section, path in sources.items()}
    return Companion("smoke", 0, QUICK | K | {"data.size": size} | settings)


def made(home):
    return {path.parent.parent.name for path in home.rglob("manifest.json")}


# Candidates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OF_A_CLASS)
def test_an_encoder_learns_from_a_file_as_from_a_bank_and_no_model_is_trained(
    home, tmp_path, monkeypatch, method
):
    section = OF_A_CLASS[method]
    np.save(tmp_path / "a.npy", candidates())
    c = companion(**{section: tmp_path / "a.npy"})
    found = c.get(Pretrained, method=method)
    bank = c.stage(Pretrained, method=method).bank
    assert made(home) == {section.replace("_", "-"), "pretrain"}
    assert isinstance(c.pipeline.get(bank), np.memmap)
    assert np.array_equal(c.pipeline.get(bank), candidates())
    # As if the same had been sampled.
    sampled = Companion("smoke", 0, QUICK | K)
    kind = type(bank)
    monkeypatch.setattr(kind, "inputs", ())
    monkeypatch.setattr(kind, "sampler", lambda self, job: lambda rows, seed: candidates()[rows])
    assert equal(sampled.get(Pretrained, method=method), found)
    if method == "CLSP-SimCLR":
        agreement = c.judge.agreement(c.pipeline.get(bank)[:, 0], c.data.train.labels)
        assert agreement == sampled.judge.agreement(candidates()[:, 0], c.data.train.labels)


def test_a_file_counts_by_its_content_and_its_first_candidates(home, tmp_path):
    for name, seed in (("a", 0), ("moved", 0), ("other", 1)):
        np.save(tmp_path / f"{name}.npy", candidates(seed, k=3))
    keys = {
        name: companion(candidates=tmp_path / f"{name}.npy").stage(InterpolatedBank).request.key
        for name in ("a", "moved", "other")
    }
    assert keys["a"] == keys["moved"] != keys["other"]
    c = companion(candidates=tmp_path / "a.npy")
    assert np.array_equal(c.get(InterpolatedBank), candidates(k=3)[:, :2])
    assert c.stage(InterpolatedBank, k=3).request.key != keys["a"]
    steps = change(c.cfg.diffusion, steps=7)  # of a model that is not needed
    assert change(c.stage(InterpolatedBank), unet=steps).request.key == keys["a"]


def test_other_mix_weights_and_models_are_sampled(tmp_path):
    profile = Profile("smoke", {"candidates.source": "a.npy"})
    assert profile.stage(InterpolatedBank, k=1, steps=2).source == "a.npy"
    other = change(profile.diffusion, steps=7)
    for given in ({"mix_weight": 0.5}, {"unet": other}, {"mix_below": 5}):
        bank = profile.stage(InterpolatedBank, **given)
        assert not bank.source and bank.inputs == (bank.unet,)


def test_samples_of_single_anchors_are_those_of_the_file(home, tmp_path):
    np.save(tmp_path / "a.npy", candidates())
    c = companion(candidates=tmp_path / "a.npy")
    found = c.get(AnchorSamples, bank=c.stage(InterpolatedBank), n=5, k=1)
    labels = c.data.train.labels
    rows = [np.flatnonzero(labels == i)[0] for i in np.unique(labels)[:5]]
    assert np.array_equal(found, candidates()[rows, :1])


@pytest.mark.parametrize("ask", [InterpolatedBank, Pretrained])
@pytest.mark.parametrize("wrong", [candidates(k=1), candidates()[:5], candidates()[:, :, :8, :8]])
def test_what_does_not_fit_is_refused_before_anything_is_made(home, tmp_path, ask, wrong):
    np.save(tmp_path / "a.npy", wrong)
    with pytest.raises(ConfigError, match=r"a.npy: it holds uint8 .*\(256, 2 or more, 16, 16, 3\)"):
        companion(candidates=tmp_path / "a.npy").artifact(ask)
    assert not made(home)


# Weights ------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """The authors' conditional UNet of ten classes in a file, and in memory."""
    net = authors_conditional((32, 32), groups=32, n_classes=10, blocks=1)
    torch.save(net.state_dict(), tmp_path / "theirs.pt")
    return tmp_path / "theirs.pt", net


def test_the_authors_conditional_weights_make_candidates_by_class(home, weights):
    path, net = weights
    c = companion(size=8, class_diffusion=path)
    unet, bank = c.get(ClassDiffusion), c.get(ClassBank)
    assert made(home) == {"class-diffusion", "class-candidates"}  # nothing is trained
    assert equal(unet, load_conditional(net.state_dict())) and not unet.training
    assert noise_schedule(unet).betas[-1].item() == pytest.approx(0.028)
    how = c.cfg.class_candidates
    expected = conditional_samples(
        unet, c.data.train.labels, 2, how.steps, how.eta, how.guidance,
        seed_for(0, "bank", 0), "fp32",
    )  # fmt: skip
    assert np.array_equal(bank, expected)


def test_conditional_models_do_not_follow_the_source_of_the_unconditional_one():
    profile = Profile("gpu", {"class_diffusion.source": "theirs.pt"})
    assert profile.diffusion.source == "google/ddpm-cifar10-32"
    assert profile.class_diffusion.source == "theirs.pt"
    assert not Profile("gpu").class_diffusion.source


def test_conditional_weights_count_by_their_content(weights, tmp_path):
    def key(path):
        return companion(class_diffusion=path).stage(ClassBank).request.key

    path, net = weights
    first = key(path)
    shutil.copyfile(path, tmp_path / "moved.pt")
    assert key(tmp_path / "moved.pt") == first
    net.head.bias.data.add_(1)
    torch.save(net.state_dict(), tmp_path / "moved.pt")
    assert key(tmp_path / "moved.pt") != first


def test_conditional_weights_that_do_not_fit_are_refused(home, tmp_path):
    few = authors_conditional((32,), groups=32, n_classes=3, blocks=1)
    torch.save(few.state_dict(), tmp_path / "few.pt")
    torch.save(authors().state_dict(), tmp_path / "none.pt")
    others = {"few": "knows 3 classes, and the images are of 10", "none": "no classes"}
    for name, seen in others.items():
        with pytest.raises(ConfigError, match=seen):
            companion(class_diffusion=tmp_path / f"{name}.pt").artifact(ClassBank)
    assert not made(home)


def test_the_authors_unconditional_weights_are_sampled_at_the_size_of_the_data(home, tmp_path):
    torch.save(authors((32, 32), groups=32).state_dict(), tmp_path / "theirs.pt")
    c = companion(diffusion=tmp_path / "theirs.pt")
    assert c.get(DiffusionModel).config.sample_size == 16
    assert c.get(Samples).shape == (32, 1, 16, 16, 3)
