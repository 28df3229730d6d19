"""Imported networks compute what they computed where they come from; everything else is refused."""

import itertools
import json
import math
import os
import pickle
import re

import huggingface_hub
import pytest
import safetensors.torch
import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from clsp_utils import checkpoints
from clsp_utils.bottleneck import decode, encode, mix
from clsp_utils.checkpoints import CheckpointError, load_diffusion, load_encoder


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def randomised(net, gain=1.0):
    """Every parameter and statistic random: zeros and ones would hide a mistake."""
    g = seeded()
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if not value.is_floating_point() or name == TABLE:
            continue
        if value.dim() > 1:
            value.copy_(torch.randn(value.shape, generator=g) * gain / math.sqrt(value[0].numel()))
        elif name.endswith(("weight", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=g))
        else:
            value.copy_(torch.randn(value.shape, generator=g) * 0.3)
    return net.eval()


# The authors' UNet, written from its description (method, section 4) ------------------------------

TABLE = "time_embedding.timembedding.0.weight"


class Residual(nn.Module):
    def __init__(self, c_in, c_out, d_temb, attends, groups):
        super().__init__()
        self.block1 = nn.Sequential(nn.GroupNorm(groups, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(d_temb, c_out))
        self.block2 = nn.Sequential(
            nn.GroupNorm(groups, c_out), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.attn = Attention(c_out, groups) if attends else nn.Identity()

    def forward(self, x, temb):
        h = self.block1(x) + self.temb_proj(temb)[:, :, None, None]
        return self.attn(self.block2(h) + self.shortcut(x))


class Attention(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, c)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        y = self.group_norm(x)
        q, k, v = (f(y).flatten(2) for f in (self.proj_q, self.proj_k, self.proj_v))  # (B, C, H W)
        weights = torch.einsum("bci,bcj->bij", q, k).mul(x.shape[1] ** -0.5).softmax(2)
        return x + self.proj(torch.einsum("bij,bcj->bci", weights, v).view_as(x))


class Resampling(nn.Module):
    def __init__(self, c, up):
        super().__init__()
        self.up, self.main = up, nn.Conv2d(c, c, 3, stride=1 if up else 2, padding=1)

    def forward(self, x, temb):
        return self.main(F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x)


class AuthorsUNet(nn.Module):
    def __init__(self, channels, attention=(), groups=8, width_temb=4, blocks=2):
        super().__init__()
        d, d_temb = channels[0], channels[0] * width_temb
        table = torch.zeros(1000, d)
        for i in range(d // 2):
            angle = torch.arange(1000) * math.exp(-math.log(10000) * 2 * i / d)
            table[:, 2 * i], table[:, 2 * i + 1] = angle.sin(), angle.cos()
        self.time_embedding = nn.Module()
        self.time_embedding.timembedding = nn.Sequential(
            nn.Embedding.from_pretrained(table), nn.Linear(d, d_temb), nn.SiLU(), nn.Linear(d_temb, d_temb)
        )
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.head = nn.Conv2d(3, d, 3, padding=1)
        self.encoder.downblocks, self.decoder.upblocks = nn.ModuleList(), nn.ModuleList()
        c, skips = d, [d]
        for level, c_out in enumerate(channels):
            for _ in range(blocks):
                self.encoder.downblocks.append(Residual(c, c_out, d_temb, level in attention, groups))
                c = c_out
                skips.append(c)
            if level < len(channels) - 1:
                self.encoder.downblocks.append(Resampling(c, up=False))
                skips.append(c)
        self.encoder.middleblocks = nn.ModuleList(
            [Residual(c, c, d_temb, True, groups), Residual(c, c, d_temb, False, groups)]
        )
        self.encoder.projector = nn.Sequential(nn.Linear(c, 5), nn.ReLU(), nn.Linear(5, 4))  # never run
        for level, c_out in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.decoder.upblocks.append(Residual(c + skips.pop(), c_out, d_temb, level in attention, groups))
                c = c_out
            if level > 0:
                self.decoder.upblocks.append(Resampling(c, up=True))
        self.decoder.tail = nn.Sequential(nn.GroupNorm(groups, c), nn.SiLU(), nn.Conv2d(c, 3, 3, padding=1))

    def encode(self, x, t):
        temb = self.time_embedding.timembedding(t)
        x = self.encoder.head(x)
        skips = [x]
        for block in self.encoder.downblocks:
            x = block(x, temb)
            skips.append(x)
        for block in self.encoder.middleblocks:
            x = block(x, temb)
        return x, skips, temb

    def decode(self, h, skips, temb):
        skips = list(skips)
        for block in self.decoder.upblocks:
            h = block(torch.cat([h, skips.pop()], 1) if isinstance(block, Residual) else h, temb)
        assert not skips
        return self.decoder.tail(h)

    def forward(self, x, t):
        return self.decode(*self.encode(x, t))


SHAPES = {
    "one level": dict(channels=(16,)),
    "two levels": dict(channels=(8, 16)),
    "three levels, attention in the middle one": dict(channels=(8, 16, 16), attention=(1,)),
    "four levels as published, thinner": dict(channels=(32, 64, 64, 64), attention=(1,), groups=32),
    "attention everywhere": dict(channels=(8, 24), attention=(0, 1), groups=4),
    "attention at the last level": dict(channels=(16, 8, 8), attention=(2,), groups=2),
    "one block a level": dict(channels=(8, 16, 16), attention=(1,), blocks=1),
    "three blocks a level": dict(channels=(8, 16), blocks=3),
    "other time embedding": dict(channels=(8, 8), width_temb=3),
}


def authors(channels=(8, 16), **more):
    return randomised(AuthorsUNet(channels, **more))


def batch(t, seed=0, size=16):
    return torch.randn(2, 3, size, size, generator=seeded(seed)), torch.full((2,), t)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_the_authors_unet_plain_and_mixed(shape):
    theirs = authors(**shape)
    ours = load_diffusion(theirs.state_dict(), groups=shape.get("groups", 8))
    assert not ours.training and ours.dtype == torch.float32
    for t in (0, 50, 999):
        (x, ts), (anchor, _) = batch(t), batch(t, seed=1)
        expected = theirs(x, ts)
        assert expected.std() > 0.1  # or the tolerance says nothing
        torch.testing.assert_close(ours(x, ts).sample, expected, rtol=0, atol=1e-4)
        (h, skips, temb), (h_anchor, *_) = theirs.encode(x, ts), theirs.encode(anchor, ts)
        mixed = theirs.decode(0.1 * h + 0.9 * h_anchor, skips, temb)
        features = encode(ours, x, t)
        h = mix(features.h, encode(ours, anchor, t).h, 0.1)
        torch.testing.assert_close(decode(ours, *features._replace(h=h)), mixed, rtol=0, atol=1e-4)
        assert (mixed - expected).abs().max() > 1e-2


def test_group_norms_divide_by_what_pytorch_does():
    # Another eps changes the output by less than the tolerance here, but not in every network.
    unet = load_diffusion(authors((8, 16), attention=(0,)).state_dict(), groups=8)
    assert {norm.eps for norm in unet.modules() if isinstance(norm, nn.GroupNorm)} == {nn.GroupNorm(1, 1).eps}


@pytest.mark.parametrize("part", ["time", "middle", "attention", "skip", "shortcut"])
@torch.no_grad()
def test_the_comparison_sees_each_part(part):
    # Each of these parts changes the output far beyond the tolerance, so a wrong one would be seen.
    theirs = authors((8, 16), attention=(1,))
    tensors = dict(theirs.state_dict())
    name, scale = {
        "time": ("time_embedding.timembedding.1.weight", -1),
        "middle": ("encoder.middleblocks.1.block2.3.weight", 0),
        "attention": ("decoder.upblocks.0.attn.proj.weight", 0),
        "skip": ("encoder.head.weight", 0),
        "shortcut": ("decoder.upblocks.6.shortcut.weight", 0),
    }[part]
    tensors[name] = scale * tensors[name]
    x, t = batch(500)
    assert (load_diffusion(tensors, groups=8)(x, t).sample - theirs(x, t)).abs().max() > 1e-2


def test_the_authors_unet_without_what_is_not_computed():
    tensors = authors().state_dict()
    x, t = batch(50)
    with torch.no_grad():
        expected = load_diffusion(tensors, groups=8)(x, t).sample
        fewer = {k: v for k, v in tensors.items() if k != TABLE and ".projector." not in k}
        assert len(fewer) == len(tensors) - 5
        assert torch.equal(load_diffusion(fewer, groups=8)(x, t).sample, expected)


TABLES = {
    "one step later": lambda table: table.roll(-1, 0),
    "sin and cos in halves": lambda table: torch.cat([table[:, 0::2], table[:, 1::2]], 1),
    "500 steps": lambda table: table[:500],
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_another_time_table_is_another_network(change):
    tensors = authors().state_dict()
    tensors[TABLE] = change(tensors[TABLE])
    with pytest.raises(CheckpointError, match=re.escape(TABLE)) as error:
        load_diffusion(tensors, groups=8)
    one_sentence(error)


def test_the_dictionary_given_is_left_as_it_is():
    tensors = authors().state_dict()
    before = {key: value.clone() for key, value in tensors.items()}
    unet = load_diffusion(tensors, groups=8)
    with torch.no_grad():
        unet.conv_in.weight.zero_()
    assert tensors.keys() == before.keys() and all(torch.equal(tensors[key], before[key]) for key in before)


# Refusals: names and shapes -----------------------------------------------------------------------


def without(*names):
    return lambda tensors: {key: value for key, value in tensors.items() if key not in names}


def plus(name, *shape):
    return lambda tensors: {**tensors, name: torch.zeros(shape)}


DAMAGE = {
    "missing, inside": (without("encoder.downblocks.1.block2.3.bias"), "1 missing (encoder.downblocks.1.block2.3.bi"),
    "missing, width": (without("encoder.downblocks.0.block1.2.weight"), "encoder.downblocks.0.block1.2.weight"),
    "missing, time": (without("time_embedding.timembedding.1.weight"), "time_embedding.timembedding.1.weight"),
    "missing, resampling": (without("encoder.downblocks.2.main.bias"), "1 missing (encoder.downblocks.2.main.bias)"),
    "unknown": (plus("cond_embedding.weight", 10, 32), "1 unknown (cond_embedding.weight)"),
    "unknown, one block more": (plus("decoder.upblocks.7.temb_proj.1.bias", 8), "decoder.upblocks.7.temb_proj.1.bias"),
    "attention in one block of its level": (
        plus("encoder.downblocks.1.attn.proj.bias", 8), "1 unknown (encoder.downblocks.1.attn.proj.bias)"
    ),
    "shape": (plus("encoder.head.weight", 8, 4, 3, 3), "encoder.head.weight: (8, 4, 3, 3) instead of (8, 3, 3, 3)"),
    "shape, attention": (
        plus("encoder.middleblocks.0.attn.proj_q.weight", 16, 16, 3, 3), "encoder.middleblocks.0.attn.proj_q.weight"
    ),
    "no attention in the middle": (
        lambda tensors: {key: value for key, value in tensors.items() if "middleblocks.0.attn" not in key},
        "10 missing (encoder.middleblocks.0.attn.",
    ),
    "nothing": (lambda tensors: {}, "starts with nothing."),
    "an encoder": (lambda tensors: {"conv1.weight": torch.zeros(64, 3, 3, 3)}, "starts with conv1.weight."),
}


@pytest.mark.parametrize(("damage", "seen"), DAMAGE.values(), ids=DAMAGE)
def test_tensors_that_do_not_fit_are_named(damage, seen):
    with pytest.raises(CheckpointError, match=re.escape(seen)) as error:
        load_diffusion(damage(dict(authors().state_dict())), groups=8)
    one_sentence(error)


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 400
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_many_missing_names_are_counted_and_the_first_are_named():
    tensors = {key: value for key, value in authors().state_dict().items() if "decoder.upblocks.0" not in key}
    with pytest.raises(CheckpointError, match=r"12 missing \(decoder\.upblocks\.0\.\S+, \S+, \S+, \.\.\.\)") as error:
        load_diffusion(tensors, groups=8)
    one_sentence(error)


def test_groups_must_divide_the_channels():
    with pytest.raises(CheckpointError, match=r"\(8, 16\).*groups=32"):
        load_diffusion(authors().state_dict())


# Files ----------------------------------------------------------------------------------------------

WRAPPED = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {}}},
    "ema before model": lambda s: {"model": {key: 0 * value for key, value in s.items()}, "ema": s},
    "DataParallel": lambda s: {"module." + key: value for key, value in s.items()},
    "nested": lambda s: {"model": {"state_dict": {"module._orig_mod." + key: value for key, value in s.items()}}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@torch.no_grad()
def test_wrapped_state_dicts(wrap):
    theirs = authors((8,))
    x, t = batch(50, size=8)
    ours = load_diffusion(wrap(theirs.state_dict()), groups=8)
    torch.testing.assert_close(ours(x, t).sample, theirs(x, t), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [".pt", "old .pt", "half precision", ".safetensors"])
@torch.no_grad()
def test_files_of_the_authors_layout(tmp_path, kind):
    theirs = authors((8,))
    path = tmp_path / ("a.safetensors" if kind == ".safetensors" else "a.pt")
    tensors = (theirs.half() if kind == "half precision" else theirs).state_dict()
    if kind == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind != "old .pt")
    theirs.float().time_embedding.timembedding[0] = authors((8,)).time_embedding.timembedding[0]  # unrounded
    x, t = batch(50, size=8)
    for source in (path, str(path)):
        ours = load_diffusion(source, groups=8)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours(x, t).sample, theirs(x, t), rtol=0, atol=1e-4)


@pytest.mark.parametrize("load", [load_diffusion, load_encoder])
@pytest.mark.parametrize(
    "value", [[1, 2], {"epoch": 1}, {"state_dict": {"a": "b"}}, torch.zeros(3), {0: torch.zeros(1)}], ids=str
)
def test_a_file_without_a_state_dict(tmp_path, load, value):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="a.pt' holds no state dict") as error:
        load(tmp_path / "a.pt")
    one_sentence(error)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(("how", "load"), [
    *itertools.product(["torch", "old torch", "pickle"], [load_diffusion, load_encoder]),
    ("diffusers folder", load_diffusion),
])
def test_a_file_that_would_run_code_is_refused(tmp_path, how, load):
    trap, path = tmp_path / "trap", tmp_path / "a.pt"
    value = {"state_dict": authors((8,)).state_dict(), "more": Malicious(trap)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how != "old torch")
    if how == "diffusers folder":
        tiny_unet().save_config(tmp_path)
        path.rename(tmp_path / "diffusion_pytorch_model.bin")
        path = tmp_path
    with pytest.raises(CheckpointError, match="can run code") as error:
        load(path)
    one_sentence(error)
    assert not trap.exists()
    if path.is_file():  # the trap does spring where it is let
        torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
        assert trap.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(tmp_path, suffix, share):
    tensors, path = authors((8,)).state_dict(), tmp_path / f"a{suffix}"
    (torch.save if suffix == ".pt" else safetensors.torch.save_file)(tensors, path)
    os.truncate(path, int(share * path.stat().st_size))
    for load in (load_diffusion, load_encoder):
        with pytest.raises(CheckpointError, match="damaged") as error:
            load(path)
        one_sentence(error)


def test_bytes_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "a.pt"
    for blob in (b"", b"hello", bytes(range(256)) * 9, b"\x80\x02}q\x00.", b"PK\x03\x04"):
        path.write_bytes(blob)
        for load in (load_diffusion, load_encoder):
            with pytest.raises(CheckpointError, match="a.pt") as error:
                load(path)
            one_sentence(error)


# Folders of diffusers and the Hub -------------------------------------------------------------------

# google/ddpm-cifar10-32 but for the channels (method, section 4).
GOOGLE = dict(
    sample_size=32,
    block_out_channels=(32, 64, 64, 64),
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=2,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
    norm_eps=1e-6,
    norm_num_groups=32,
    attention_head_dim=None,
)
TINY = dict(
    block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4
)


def tiny_unet(**more):
    return randomised(UNet2DModel(**(TINY | more)))


def rename_to_old(folder):
    """diffusers' first names for attention, as old files on the Hub have them."""
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        tensors = {key.replace(new, old): value for key, value in tensors.items()}
    assert sum(".query." in key for key in tensors) == 12
    safetensors.torch.save_file(tensors, path)


@pytest.mark.parametrize("kind", ["folder", "unet/", "file", "bin", "old names"])
@torch.no_grad()
def test_the_configuration_of_google_from_a_folder(tmp_path, kind):
    theirs = randomised(UNet2DModel(**GOOGLE))
    folder = tmp_path / "unet" if kind == "unet/" else tmp_path
    theirs.save_pretrained(folder, safe_serialization=kind != "bin")
    if kind == "old names":
        rename_to_old(folder)
    ours = load_diffusion(folder / "diffusion_pytorch_model.safetensors" if kind == "file" else str(tmp_path))
    assert not ours.training
    for t in (0, 50, 999):
        x, ts = batch(t)
        expected = theirs(x, ts).sample
        assert torch.equal(ours(x, ts).sample, expected)
        assert torch.equal(decode(ours, *encode(ours, x, t)), expected)


@torch.no_grad()
def test_an_imported_unet_is_kept_by_diffusers(tmp_path):
    unet = load_diffusion(authors(attention=(1,)).state_dict(), groups=8)
    unet.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    x, t = batch(50)
    assert torch.equal(load_diffusion(tmp_path)(x, t).sample, unet(x, t).sample)


UNCOVERED = {
    "num_class_embeds": dict(num_class_embeds=10),
    "class_embed_type": dict(class_embed_type="timestep"),
    "time_embedding_type": dict(time_embedding_type="fourier"),
    "center_input_sample": dict(center_input_sample=True),
    "mid_block_type": dict(mid_block_type=None),
    "in_channels": dict(in_channels=4),
    "out_channels": dict(out_channels=6),
    "SkipDownBlock2D": dict(down_block_types=("SkipDownBlock2D",), up_block_types=("SkipUpBlock2D",)),
    "SkipUpBlock2D": dict(up_block_types=("SkipUpBlock2D",)),
}


@pytest.mark.parametrize(("name", "change"), UNCOVERED.items(), ids=UNCOVERED)
def test_a_unet_that_cannot_be_cut_is_refused(tmp_path, name, change):
    if "Skip" in name:
        UNet2DModel.from_config(TINY).save_pretrained(tmp_path)
        config = tmp_path / "config.json"
        config.write_text(config.read_text().replace('"DownBlock2D"' if "Down" in name else '"UpBlock2D"', f'"{name}"'))
    else:
        UNet2DModel(**(TINY | change)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"{name}.*not covered") as error:
        load_diffusion(tmp_path)
    one_sentence(error)


def change_config(text):
    return lambda folder: (folder / "config.json").write_text(text)


def drop_a_tensor(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    safetensors.torch.save_file(without("conv_out.bias")(safetensors.torch.load_file(path)), path)


BROKEN = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no readable config.json"),
    "no JSON": (change_config("{"), "no readable config.json"),
    "no settings": (change_config("[]"), "no readable config.json"),
    "no list of blocks": (change_config('{"down_block_types": null}'), "no readable config.json"),
    "settings that make no network": (change_config('{"block_out_channels": [8, 8]}'), "makes no UNet2DModel"),
    "other settings": (change_config(json.dumps(TINY | {"block_out_channels": [16]})), r"conv_in.weight: \(8, 3,"),
    "another class": (change_config('{"_class_name": "UNet2DConditionModel"}'), "UNet2DConditionModel"),
    "no weights": (lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(), "no weights"),
    "a tensor less": (drop_a_tensor, r"1 missing \(conv_out.bias\)"),
}


@pytest.mark.parametrize(("damage", "seen"), BROKEN.values(), ids=BROKEN)
def test_broken_folders(tmp_path, damage, seen):
    tiny_unet().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=seen):
        load_diffusion(tmp_path)


def test_a_state_dict_of_diffusers_needs_its_settings():
    with pytest.raises(CheckpointError, match="pass the folder"):
        load_diffusion(tiny_unet().state_dict())


@pytest.mark.parametrize("source", ["nowhere", "./no/where", "a/b/c", "runs/a.pt", "runs/a.safetensors", "o n/e"])
def test_neither_file_nor_folder_nor_hub_name(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "snapshot_download", lambda *a, **k: pytest.fail("asked the Hub"))
    with pytest.raises(CheckpointError, match=re.escape(repr(source))) as error:
        load_diffusion(source)
    one_sentence(error)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub's cache without the Hub: `hub(name)` is an empty folder for the files of `name`."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def folder(name):
        root = tmp_path / f"models--{name.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("0" * 40)
        return root / "snapshots" / ("0" * 40)

    return folder


def test_a_hub_name_that_cannot_be_had_is_said_so(hub):
    with pytest.raises(CheckpointError, match="'some/unet' is neither a folder here nor in the Hub's cache") as error:
        load_diffusion("some/unet")
    one_sentence(error)


@pytest.mark.parametrize("safetensors_too", [True, False])
@pytest.mark.parametrize("subfolder", [".", "unet"])
@torch.no_grad()
def test_a_hub_name_that_is_in_the_cache(hub, subfolder, safetensors_too):
    unet, folder = tiny_unet(), hub("some/unet-v1.5")
    unet.save_pretrained(folder / subfolder, safe_serialization=safetensors_too)
    x, t = batch(50, size=8)
    assert torch.equal(load_diffusion("some/unet-v1.5")(x, t).sample, unet(x, t).sample)


def test_the_download_asks_for_one_kind_of_weights_where_the_better_exists(tmp_path, monkeypatch):
    asked = []
    download = lambda name, allow_patterns: (asked.append(allow_patterns), tmp_path)[1]  # noqa: E731
    monkeypatch.setattr(checkpoints, "snapshot_download", download)
    tiny_unet().save_pretrained(tmp_path)
    load_diffusion("some/unet")
    assert len(asked) == 1 and not any("bin" in file for file in asked[0])


# Encoders -------------------------------------------------------------------------------------------


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
    ("build", "n_features", "max_pool"), [(resnet18, 512, False), (resnet18, 512, True), (resnet50, 2048, False)]
)
@torch.no_grad()
def test_the_authors_encoder(build, n_features, max_pool):
    theirs = authors_encoder(build, max_pool)
    ours = load_encoder(theirs.state_dict(), max_pool)
    theirs.fc = nn.Identity()
    features = ours(images())
    assert not ours.training and features.shape == (2, n_features) and ours.n_features == n_features
    assert torch.equal(features, theirs(images()))


@pytest.mark.parametrize("projector", [True, False])
@torch.no_grad()
def test_an_encoder_file_with_and_without_projector(tmp_path, resnet18_tensors, projector):
    tensors = {key: value for key, value in resnet18_tensors.items() if projector or not key.startswith("fc.")}
    assert len(tensors) == 120 + 4 * projector
    torch.save(WRAPPED["DataParallel"](tensors), tmp_path / "a.pt")
    assert torch.equal(load_encoder(tmp_path / "a.pt")(images()), load_encoder(resnet18_tensors)(images()))


@torch.no_grad()
def test_max_pooling_is_not_in_the_weights_but_changes_the_features(resnet18_tensors):
    plain, pooled = (load_encoder(resnet18_tensors, max_pool)(images()) for max_pool in (False, True))
    assert (plain - pooled).abs().max() > 1e-2


DAMAGED_ENCODERS = {
    "missing": (without("layer3.1.bn2.running_var"), "1 missing (layer3.1.bn2.running_var)"),
    "unknown": (plus("layer5.0.conv1.weight", 1), "1 unknown (layer5.0.conv1.weight)"),
    "the large stem": (plus("conv1.weight", 64, 3, 7, 7), "conv1.weight: (64, 3, 7, 7) instead of (64, 3, 3, 3)"),
    "another width": (plus("layer4.1.conv2.weight", 256, 512, 3, 3), "layer4.1.conv2.weight: (256, 512, 3, 3)"),
    "nothing": (lambda tensors: {}, "missing (conv1.weight"),
    "a diffusion model": (lambda tensors: authors((8,)).state_dict(), "unknown (time_embedding"),
}


@pytest.mark.parametrize(("damage", "seen"), DAMAGED_ENCODERS.values(), ids=DAMAGED_ENCODERS)
def test_encoders_that_do_not_fit_are_named(resnet18_tensors, damage, seen):
    with pytest.raises(CheckpointError, match=re.escape(seen)) as error:
        load_encoder(damage(resnet18_tensors))
    one_sentence(error)


@pytest.mark.parametrize("source", ["nowhere.pt", "."])
def test_an_encoder_comes_from_a_file(source):
    with pytest.raises(CheckpointError, match="is not a file"):
        load_encoder(source)
