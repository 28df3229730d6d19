"""The authors' conditional UNet computes and samples here what it does where it comes from."""

import re

import numpy as np
import pytest
import safetensors.torch
import torch
from networks_of_others import (
    WRAPPED,
    authors,
    authors_conditional,
    batch,
    one_sentence,
    plus,
    sample_as_the_authors,
    seeded,
    tiny_unet,
    without,
)

from clsp_utils.config import UNetShape
from clsp_utils.data import to_uint8
from clsp_utils.diffusion import (
    build_unet,
    decode,
    encode,
    hide,
    load_conditional,
    noise_schedule,
    sample,
)
from clsp_utils.diffusion.pretrained import conditional_misfit, weights_digest
from clsp_utils.positives import conditional_samples
from clsp_utils.runtime import WeightsError, generator

SHAPES = {
    "one level": dict(channels=(16,)),
    "two levels": dict(channels=(8, 16)),
    "four levels as published, thinner": dict(channels=(32, 64, 64, 64), groups=32, n_classes=10),
    "one block a level": dict(channels=(8, 16, 16), blocks=1),
}
CLASSES = torch.tensor([2, 0])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_each_class_and_none_at_every_time(shape):
    theirs = authors_conditional(**shape)
    n = shape.get("n_classes", 3)
    ours = load_conditional(theirs.state_dict(), groups=shape.get("groups", 8))
    assert not ours.training and ours.dtype == torch.float32
    seen = []
    others = torch.tensor([-1, n - 1])
    for t, classes in ((0, CLASSES), (50, CLASSES), (999, CLASSES), (50, others)):
        x, ts = batch(t)
        expected = theirs(x, ts, classes + 1)
        assert expected.std() > 0.1  # or the tolerance says nothing
        given = hide(ours, classes, torch.zeros(2, dtype=torch.bool))
        found = ours(x, ts, class_labels=given).sample
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
        assert torch.equal(decode(ours, *encode(ours, x, t, given)), found)
        seen.append(expected[0])
    assert (seen[1] - seen[3]).abs().max() > 1e-2  # the class is seen


def calm():
    """One that predicts little noise, so that rounding does not grow from step to step."""
    net = authors_conditional()
    net.tail[2].weight.data.mul_(0.2)
    return net


PARTS = {
    "time": "time_embedding.timembedding.0.weight",
    "classes": "cond_embedding.condEmbedding.0.weight",
    "their projection": "downblocks.3.cond_proj.1.weight",
    "3 x 3": "downblocks.2.c1.weight",
    "5 x 5": "downblocks.2.c2.bias",
    "transposed": "upblocks.3.t.weight",
    "after it": "upblocks.3.c.bias",
    "attention": "downblocks.0.attn.proj.weight",
}


@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_the_comparison_sees_each_part(part):
    theirs = authors_conditional()
    tensors = dict(theirs.state_dict())
    tensors[PARTS[part]] = -tensors[PARTS[part]]
    x, t = batch(500)
    found = load_conditional(tensors, groups=8)(x, t, class_labels=CLASSES).sample
    assert (found - theirs(x, t, CLASSES + 1)).abs().max() > 5e-3


@pytest.mark.parametrize(("eta", "guidance"), [(0.0, 1.8), (1.0, 1.8), (1.0, 0.0)])
def test_samples_are_theirs(eta, guidance):
    theirs = calm()
    ours = load_conditional(theirs.state_dict(), groups=8)
    noise = torch.randn(2, 3, 16, 16, generator=seeded(1))
    expected = sample_as_the_authors(theirs, noise, CLASSES, 10, eta, guidance, seeded(2))

    def apart():
        how = dict(condition=CLASSES, guidance=guidance)
        found = sample(ours, noise, 10, eta, seeded(2), "fp32", **how)
        return (found.int() - to_uint8(expected).int()).abs().max()

    assert apart() <= 1
    ours.register_to_config(_beta_end=0.02)
    assert apart() > 10


def test_the_schedule_is_theirs_and_that_of_all_others_is_not():
    ours = load_conditional(authors_conditional().state_dict(), groups=8)
    assert noise_schedule(ours).betas[-1].item() == pytest.approx(0.028)
    assert noise_schedule().betas[-1].item() == pytest.approx(0.02)
    assert noise_schedule(tiny_unet()) is noise_schedule()


def test_our_own_model_keeps_its_schedule_in_its_folder(tmp_path):
    unet = build_unet(UNetShape(channels=(8,), groups=4), 8, n_classes=2, beta_end=0.028)
    unet.save_pretrained(tmp_path)
    assert noise_schedule(type(unet).from_pretrained(tmp_path)) is noise_schedule(unet)
    assert noise_schedule(unet).betas[-1].item() == pytest.approx(0.028)


def test_candidates_are_of_the_anchors_classes_in_their_order():
    theirs = calm()
    ours = load_conditional(theirs.state_dict(), groups=8)
    ours.register_to_config(sample_size=16)
    found = conditional_samples(ours, np.array([2, 0]), 2, 10, 0.0, 1.8, 5, "fp32")
    noise = torch.randn(4, 3, 16, 16, generator=generator(5, "class samples"))
    classes = torch.tensor([2, 2, 0, 0])
    expected = to_uint8(sample_as_the_authors(theirs, noise, classes, 10, 0.0, 1.8, None))
    assert found.shape == (2, 2, 16, 16, 3)
    assert np.abs(found.reshape(4, 16, 16, 3).astype(int) - expected.numpy()).max() <= 1


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_state_dicts(wrap):
    tensors = authors_conditional((8,)).state_dict()
    expected, found = (load_conditional(x, groups=8) for x in (tensors, wrap(tensors)))
    assert all(map(torch.equal, expected.state_dict().values(), found.state_dict().values()))


@pytest.mark.parametrize("name", ["a.pt", "half.pt", "a.safetensors"])
@torch.no_grad()
def test_files(tmp_path, name):
    theirs = authors_conditional((8,))
    tensors = theirs.state_dict()
    path = tmp_path / name
    if name == "half.pt":
        tensors = {key: tensor.half() for key, tensor in tensors.items()}
    save = safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save
    save(tensors, path)
    x, t = batch(50, size=8)
    found = load_conditional(str(path), groups=8)(x, t, class_labels=CLASSES).sample
    tolerance = 0.05 if name == "half.pt" else 2e-4
    torch.testing.assert_close(found, theirs(x, t, CLASSES + 1), rtol=0, atol=tolerance)
    assert len(weights_digest(str(path))) == 64


DAMAGE = {
    "no classes": (
        lambda tensors: authors().state_dict(),
        "cond_embedding.condEmbedding.0.weight is missing, so that it knows no classes",
    ),
    "missing, one half of a pair": (without("downblocks.2.c2.bias"), "downblocks.2.c2.bias"),
    "missing, projection": (
        lambda tensors: {key: x for key, x in tensors.items() if "upblocks.1.cond" not in key},
        "upblocks.1.temb_proj.1.weight: (16, 32) instead of (16, 64)",
    ),
    "missing, embedding": (
        without("cond_embedding.condEmbedding.3.weight"), "condEmbedding.3.weight",
    ),
    "missing, convolution": (
        without("upblocks.3.t.weight"), "1 missing (upblocks.3.t.weight)",
    ),
    "unknown": (plus("upblocks.1.attn.proj.bias", 16), "1 unknown (upblocks.1.attn.proj.bias)"),
    "500 steps": (
        plus("time_embedding.timembedding.0.weight", 500, 8),
        "timembedding.0.weight: (500, 8) instead of (1000, 8)",
    ),
    "shape": (plus("downblocks.2.c1.weight", 8, 8, 5, 5), "of other shapes"),
    "widths": (plus("cond_embedding.condEmbedding.1.weight", 32, 9), "of other shapes"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "seen"), DAMAGE.values(), ids=DAMAGE)
def test_tensors_that_do_not_fit_are_named(damage, seen):
    with pytest.raises(WeightsError, match=re.escape(seen)) as error:
        load_conditional(damage(dict(authors_conditional().state_dict())), groups=8)
    one_sentence(error)


@pytest.mark.parametrize(
    ("size", "n_classes", "seen"),
    [(16, 3, ""), (16, 10, "knows 3 classes, and the images are of 10."), (15, 3, "halved 1 time")],
)
def test_images_of_another_size_or_other_classes_are_told(tmp_path, size, n_classes, seen):
    path = tmp_path / "a.pt"
    torch.save(authors_conditional().state_dict(), path)
    found = conditional_misfit(str(path), size, n_classes)
    assert (seen in found and str(path) in found) if seen else not found
