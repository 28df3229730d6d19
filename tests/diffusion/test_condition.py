"""What a model is conditioned on: W starts at zero, what is hidden, what training sees of it."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from clsp_utils.config import Diffusion, UNetShape
from clsp_utils.data import to_diffusion_range
from clsp_utils.diffusion import build_unet, decode, encode, hide, noise_schedule, train

SHAPE = UNetShape(channels=(8, 16), groups=4)
CFG = Diffusion(unet=SHAPE, steps=8, batch=16, lr=2e-3, warmup=2, ema_decay=0.9)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
R = np.random.default_rng(1).standard_normal((40, 5), np.float32)
# The room hands on the function `train` under the name of its module.
loop = importlib.import_module("clsp_utils.diffusion.train")


def built(**kind):
    torch.manual_seed(0)
    return build_unet(SHAPE, 8, **kind).eval()


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_w_starts_at_zero_where_the_model_is_an_unconditional_one_bit_for_bit(precision):
    conditional, plain = built(n_features=5), built()
    assert not conditional.class_embedding.weight.any()
    own = {n: x for n, x in conditional.state_dict().items() if n != "class_embedding.weight"}
    assert own.keys() == plain.state_dict().keys()
    assert all(torch.equal(own[n], x) for n, x in plain.state_dict().items())
    x, r = torch.randn(4, 3, 8, 8), 100 * torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found, expected = encode(conditional, x, 300, r), encode(plain, x, 300)
        assert torch.equal(found.h, expected.h) and torch.equal(found.temb, expected.temb)
        assert all(map(torch.equal, found.skips, expected.skips))
        assert torch.equal(decode(conditional, *found), decode(plain, *expected))


@torch.no_grad()
def test_the_halves_of_a_model_of_vectors_are_diffusers_unet_given_w_r():
    unet = built(n_features=5)
    torch.nn.init.normal_(unet.class_embedding.weight)
    x, r = torch.randn(4, 3, 8, 8), torch.randn(4, 5)
    whole = unet(x, 300, class_labels=r).sample
    assert torch.equal(decode(unet, *encode(unet, x, 300, r)), whole)
    temb = unet.time_embedding(unet.time_proj(torch.full((4,), 300)))
    expected = temb + r @ unet.class_embedding.weight.T
    torch.testing.assert_close(encode(unet, x, 300, r).temb, expected)
    w, unet.class_embedding = unet.class_embedding, torch.nn.Identity()  # as diffusers made it
    assert torch.equal(unet(x, 300, class_labels=w(r)).sample, whole)


def test_what_is_hidden_is_said_to_be_none():
    hidden = torch.tensor([False, True, False, False])
    classes = hide(built(n_classes=3), torch.tensor([0, 1, -1, 2]), hidden)
    assert classes.tolist() == [0, 3, 3, 2]
    r = torch.randn(4, 5)
    found = hide(built(n_features=5), r, hidden)
    assert torch.equal(found[[0, 2, 3]], r[[0, 2, 3]]) and not found[1].any()


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_training_sees_each_images_own_vector_and_hides_a_share_of_them(
    tmp_path, monkeypatch, share
):
    given, shown = [], []
    add_noise = noise_schedule().add_noise

    def encode_spied(unet, x, t, condition, original=loop.encode):
        given.append(condition.cpu())
        return original(unet, x, t, condition)

    monkeypatch.setattr(loop, "encode", encode_spied)
    monkeypatch.setattr(
        noise_schedule(), "add_noise", lambda x, *rest: shown.append(x.cpu()) or add_noise(x, *rest)
    )
    monkeypatch.setattr(loop, "LABEL_DROPOUT", share)
    unet, _ = train(dataclasses.replace(CFG, steps=40), IMAGES, 0, tmp_path, "fp32", R)
    rows = torch.cat(given)
    hidden = ~rows.any(1)
    assert hidden.float().mean() == pytest.approx(share, abs=0.04)  # of 640 rows
    images = to_diffusion_range(torch.from_numpy(IMAGES))
    which = (torch.cat(shown)[:, None] == images).flatten(2).all(2).int().argmax(1)
    assert torch.equal(rows[~hidden], torch.from_numpy(R)[which[~hidden]])
    assert unet.class_embedding.weight.any() == (share < 1)  # W is trained


@pytest.mark.parametrize("condition", [R, np.arange(40) % 3 - 1], ids=["vectors", "classes"])
def test_a_model_that_goes_on_from_an_unconditional_one_begins_as_it(
    tmp_path, monkeypatch, condition
):
    plain, _ = train(CFG, IMAGES, 0, tmp_path / "plain", "fp32")
    seen = []

    def spy(unet, x, t, given, original=loop.encode):
        seen.append((x, t, original(unet, x, t, given)))
        return seen[-1][2]

    monkeypatch.setattr(loop, "encode", spy)
    for name, cfg in (("one", dataclasses.replace(CFG, steps=1)), ("all", CFG)):
        work = tmp_path / name
        unet, _ = train(cfg, IMAGES, 1, work, "fp32", condition, unconditional=plain)
    x, t, found = seen[0]
    expected = encode(plain.to(x.device), x, t)
    plain.cpu()
    for one, other in zip(
        (found.h, found.temb, *found.skips), (expected.h, expected.temb, *expected.skips)
    ):
        torch.testing.assert_close(one, other)
    assert unet.class_embedding.weight.any()
    untouched, _ = train(CFG, IMAGES, 0, tmp_path / "again", "fp32")
    assert all(map(torch.equal, plain.state_dict().values(), untouched.state_dict().values()))


@pytest.mark.parametrize("condition", [R, np.arange(40) % 3], ids=["vectors", "classes"])
def test_a_learning_rate_of_its_own_is_that_of_the_conditions_weights_alone(tmp_path, condition):
    plain, _ = train(CFG, IMAGES, 0, tmp_path / "plain", "fp32")
    cfg = dataclasses.replace(CFG, steps=1, ema_decay=0.0)

    def weights(condition_lr):
        how = (IMAGES, 1, tmp_path / str(condition_lr), "fp32", condition, plain)
        return train(cfg, *how, condition_lr=condition_lr)[0].state_dict()

    one, ten, w = weights(1.0), weights(10.0), "class_embedding.weight"
    torch.testing.assert_close(ten.pop(w), 10 * one.pop(w))
    assert all(torch.equal(ten[name], x) for name, x in one.items())


@pytest.mark.parametrize("kind", ["vectors", "classes"])
def test_with_a_larger_learning_rate_of_its_own_a_condition_is_followed_sooner(tmp_path, kind):
    bright = np.arange(40) % 2
    images = (180 * bright[:, None, None, None] + IMAGES // 4).astype(np.uint8)
    conditions = {"own": bright, "other": 1 - bright}
    if kind == "vectors":
        conditions = {name: np.float32(2 * x - 1)[:, None] for name, x in conditions.items()}
    x, t = to_diffusion_range(torch.from_numpy(images)), torch.full((40,), 700)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    noised, cfg = noise_schedule().add_noise(x, noise, t), dataclasses.replace(CFG, steps=40)
    plain, _ = train(cfg, images, 0, tmp_path / "plain", "fp32")

    def gain(condition_lr):
        """How much less the error is with an image's own condition than with the other one."""
        how = (images, 1, tmp_path / str(condition_lr), "fp32", conditions["own"], plain)
        unet, _ = train(cfg, *how, condition_lr=condition_lr)
        error = {}
        for name, given in conditions.items():
            with torch.no_grad():
                eps = unet(noised, t, class_labels=torch.from_numpy(given)).sample
            error[name] = (eps - noise).square().mean().item()
        return error["other"] - error["own"]

    assert gain(20.0) > 5 * gain(1.0) > 0


def test_resumed_training_on_vectors_equals_uninterrupted_bit_for_bit(tmp_path, killed):
    unbroken, losses = train(CFG, IMAGES, 0, tmp_path / "unbroken", "fp32", R)
    with killed(after=5, saved=3):
        train(CFG, IMAGES, 0, tmp_path / "resumed", "fp32", R)
    resumed, resumed_losses = train(CFG, IMAGES, 0, tmp_path / "resumed", "fp32", R)
    assert np.array_equal(losses, resumed_losses)
    found = resumed.state_dict()
    assert all(torch.equal(found[name], x) for name, x in unbroken.state_dict().items())
