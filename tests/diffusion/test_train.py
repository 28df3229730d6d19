"""Training of the diffusion model: its loss weight, its pairs, its log, and that it resumes."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map_only

from clsp_utils import runtime
from clsp_utils.config import Diffusion, UNetShape
from clsp_utils.data import to_diffusion_range
from clsp_utils.diffusion import min_snr_weight, noise_schedule, train

TINY = UNetShape(channels=(8, 16), groups=4)
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weight_in_closed_form(gamma):
    t = torch.tensor([0, 50, 200, 500, 999])
    weight = min_snr_weight(noise_schedule(), t, gamma)
    snr = ALPHA_BAR[t] / (1 - ALPHA_BAR[t])
    torch.testing.assert_close(weight.double(), (gamma / snr).clamp(max=1), rtol=1e-3, atol=0)


def test_min_snr_weight_without_gamma_is_one():
    weight = min_snr_weight(noise_schedule(), torch.tensor([0, 999]), 0)
    assert torch.equal(weight, torch.ones(2))


# Dropout and flips draw random numbers too, so that a resumed run must find those again.
CFG = Diffusion(
    unet=dataclasses.replace(TINY, dropout=0.1),
    steps=12,
    batch=4,
    lr=2e-3,
    warmup=3,
    ema_decay=0.9,
    flip=True,
)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def test_training_lowers_the_loss(tmp_path):
    colours = np.repeat(np.repeat(IMAGES[:, :1, :1], 8, 1), 8, 2)  # plain images: quickly learnt
    cfg = dataclasses.replace(CFG, steps=30, batch=32, lr=5e-3)
    _, losses = train(cfg, colours, 0, tmp_path, "fp32")
    assert losses.shape == (30,)
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()


# The room hands on the function `train` under the name of its module.
loop = importlib.import_module("clsp_utils.diffusion.train")


def on_cpu(tree):
    """All tensors of tuples and lists on the CPU, where they are compared."""
    return tree_map_only(torch.Tensor, torch.Tensor.cpu, tree)


@pytest.fixture
def step(monkeypatch):
    """`step(changes, labels)`: arguments and result of what one step of training calls, by name."""
    seen = {}

    def spy(owner, name):
        function = getattr(owner, name)

        def call(*arguments):
            before = on_cpu([x.clone() if isinstance(x, torch.Tensor) else x for x in arguments])
            result = function(*arguments)
            seen[name] = before, on_cpu(result)
            return result

        monkeypatch.setattr(owner, name, call)

    for name in ("encode", "decode", "recolour"):
        spy(loop, name)
    spy(noise_schedule(), "add_noise")

    def run(work, labels=None, **changes):
        train(dataclasses.replace(CFG, steps=1, **changes), IMAGES, 0, work, "fp32", labels)
        return seen

    return run


def which(x):
    """The row of IMAGES that each `(B, 3, 8, 8)` shows, or its mirror image; and whether mirrored.

    Plain images only; a row that shows none fails.
    """
    rows = to_diffusion_range(torch.from_numpy(IMAGES))
    both = torch.stack([rows, rows.flip(3)])
    found = (both[:, :, None] == x).flatten(3).all(3)  # (mirrored, rows, B)
    assert (found.sum((0, 1)) == 1).all()
    return found.any(0).int().argmax(0), found[1].any(0)


@pytest.mark.parametrize(
    ("share", "batch", "n"), [(0.75, 32, 12), (1.0, 32, 16), (1.0, 9, 4), (0.2, 32, 3)]
)
def test_pairs_show_one_image_in_two_colourings_and_exchange_their_middles(
    step, tmp_path, share, batch, n
):
    seen = step(tmp_path, batch=batch, recoloured_pairs=share)
    _, (x, noise, t) = seen["encode"], seen["add_noise"][0]
    first, second, plain = slice(n), slice(n, 2 * n), slice(2 * n, batch)
    assert len(x) == batch and torch.equal(t[first], t[second])
    assert (noise[first] != noise[second]).flatten(1).any(1).all()

    (before, _), after = seen["recolour"]
    assert torch.equal(before[first], before[second]) and len(before) == len(after) == 2 * n
    assert (after[first] != after[second]).flatten(1).any(1).all()
    whole = to_diffusion_range(after)
    mirrored = (x[: 2 * n] != whole).flatten(1).any(1)
    assert torch.equal(x[: 2 * n], torch.where(mirrored.view(-1, 1, 1, 1), whole.flip(3), whole))
    assert torch.equal(mirrored[first], mirrored[second])
    which(to_diffusion_range(before))  # these are images of the data set,
    if len(x) > 2 * n:
        which(x[plain])  # and so are those that are no pairs, in their own colours

    (_, h, *rest), features = seen["decode"][0], seen["encode"][1]
    assert torch.equal(h, torch.cat([features.h[part] for part in (second, first, plain)]))
    assert (h[first] != features.h[first]).flatten(1).any(1).all()
    skips, temb = rest
    assert all(map(torch.equal, skips, features.skips)) and torch.equal(temb, features.temb)


def test_some_pairs_are_mirrored_where_images_may_be(step, tmp_path):
    for flip in (True, False):
        seen = step(tmp_path / str(flip), batch=32, recoloured_pairs=1.0, flip=flip)
        x, whole = seen["add_noise"][0][0], to_diffusion_range(seen["recolour"][1])
        mirrored = (x != whole).flatten(1).any(1)
        assert mirrored.any() == flip and not mirrored.all()


@pytest.mark.parametrize("share", [0.0, 0.05])  # of 32 images the second makes no pair
def test_without_pairs_nothing_is_recoloured_and_nothing_exchanged(step, tmp_path, share):
    seen = step(tmp_path, batch=32, recoloured_pairs=share)
    x, _, t = seen["add_noise"][0]
    which(x)
    assert "recolour" not in seen and len(t.unique()) > 16
    assert torch.equal(seen["decode"][0][1], seen["encode"][1].h)


def test_pairs_of_a_conditional_model_are_of_one_class(step, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LABEL_DROPOUT", 0.0)
    seen = step(tmp_path, np.arange(20), batch=16, recoloured_pairs=0.75)
    classes = seen["encode"][0][3]
    rows, _ = which(to_diffusion_range(seen["recolour"][0][0]))
    assert torch.equal(classes[:12], rows) and torch.equal(classes[:6], classes[6:12])
    assert torch.equal(classes[12:], which(seen["add_noise"][0][0][12:])[0])


def test_pairs_change_the_result(tmp_path):
    plain, pairs = (
        train(dataclasses.replace(CFG, recoloured_pairs=share), IMAGES, 0, tmp_path / name, "fp32")
        for name, share in (("plain", 0.0), ("pairs", 0.5))
    )
    assert not np.array_equal(plain[1], pairs[1]) and np.isfinite(pairs[1]).all()


def test_the_log_has_a_row_per_epoch_and_one_for_what_is_left(tmp_path):
    _, losses = train(CFG, IMAGES, 0, tmp_path, "fp32")  # 12 steps, 5 per epoch
    header, *rows = (line.split(",") for line in (tmp_path / "log.csv").read_text().split())
    assert header == ["epoch", "loss", "lr"] and [row[0] for row in rows] == ["1", "2", "3"]
    expected = [losses[:5].mean(), losses[5:10].mean(), losses[10:].mean()]
    np.testing.assert_allclose([float(row[1]) for row in rows], expected, atol=1e-5)
    expected = [CFG.lr * runtime.warmup_cosine(step, 12, CFG.warmup) for step in (4, 9, 11)]
    np.testing.assert_allclose([float(row[2]) for row in rows], expected, rtol=1e-5)


def test_a_constant_schedule_keeps_the_rate_after_the_warm_up(tmp_path):
    cosine = train(CFG, IMAGES, 0, tmp_path / "cosine", "fp32")[1]
    cfg = dataclasses.replace(CFG, schedule="constant")
    constant = train(cfg, IMAGES, 0, tmp_path / "constant", "fp32")[1]
    rows = (tmp_path / "constant" / "log.csv").read_text().split()[1:]
    assert [float(row.split(",")[2]) for row in rows] == [CFG.lr] * 3
    # Step 3 has the full rate in both; the loss of step 5 is the first that shows a lower one.
    assert np.array_equal(cosine[:5], constant[:5]) and not np.array_equal(cosine[5:], constant[5:])


def test_training_returns_the_average_and_depends_on_the_seed(tmp_path):
    runs = {
        name: train(dataclasses.replace(CFG, **change), IMAGES, seed, tmp_path / name, "fp32")
        for name, change, seed in [
            ("a", {}, 0),
            ("b", {}, 1),
            ("no average", {"ema_decay": 0.0}, 0),
        ]
    }
    weights = {
        name: torch.nn.utils.parameters_to_vector(unet.parameters())
        for name, (unet, _) in runs.items()
    }
    assert not runs["a"][0].training
    assert not np.array_equal(runs["a"][1], runs["b"][1])
    # The average is what is returned, not what is trained: the loss does not know of it.
    assert np.array_equal(runs["a"][1], runs["no average"][1])
    assert not torch.equal(weights["a"], weights["no average"])


@pytest.mark.parametrize(
    ("saved", "precision", "pairs"),
    [(0, "fp32", 0.0), (3, "fp32", 0.0), (3, "fp32", 0.5), (5, "bf16", 1.0)],
)
def test_resumed_training_equals_uninterrupted_bit_for_bit(
    tmp_path, monkeypatch, killed, saved, precision, pairs
):
    cfg = dataclasses.replace(CFG, recoloured_pairs=pairs)
    unbroken, losses = train(cfg, IMAGES, 0, tmp_path / "unbroken", precision)
    with killed(after=5, saved=saved):
        train(cfg, IMAGES, 0, tmp_path / "resumed", precision)

    steps = []
    original = runtime.Checkpoint.after_step
    monkeypatch.setattr(
        runtime.Checkpoint,
        "after_step",
        lambda self, step, *rest: (steps.append(step), original(self, step, *rest)),
    )
    torch.manual_seed(123)  # a new process has another global state
    resumed, resumed_losses = train(cfg, IMAGES, 0, tmp_path / "resumed", precision)

    assert steps == list(range(saved, 12))  # it did go on, rather than start anew
    assert np.array_equal(losses, resumed_losses)
    expected, found = unbroken.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_loss_that_is_not_finite_stops_training(tmp_path):
    cfg = dataclasses.replace(CFG, lr=1e30, clip=1e30)
    with pytest.raises(runtime.Diverged, match="lower diffusion.lr"):
        train(cfg, IMAGES, 0, tmp_path, "fp32")
    how = {"condition": np.arange(20) % 3, "section": "class_diffusion"}
    with pytest.raises(runtime.Diverged, match="lower class_diffusion.lr"):
        train(cfg, IMAGES, 0, tmp_path / "by class", "fp32", **how)
