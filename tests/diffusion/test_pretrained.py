"""Imported UNets compute what they computed where they come from; all else is refused."""

import json
import re

import huggingface_hub
import pytest
import safetensors.torch
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from networks_of_others import (
    TABLE,
    TINY,
    WRAPPED,
    authors,
    batch,
    one_sentence,
    plus,
    randomised,
    tiny_unet,
    without,
)
from torch import nn

from clsp_utils.diffusion import decode, encode, pretrained
from clsp_utils.diffusion.pretrained import load_diffusion, unet_misfit, weights_digest
from clsp_utils.positives import mix_in_anchor
from clsp_utils.runtime import WeightsError, generator

ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

SHAPES = {
    "one level": dict(channels=(16,)),
    "two levels": dict(channels=(8, 16)),
    "three levels, attention in the middle one": dict(channels=(8, 16, 16), attention=(1,)),
    "four levels as published, thinner": dict(channels=(32, 64, 64, 64), attention=(1,), groups=32),
    "STL-10's as published, thinner": dict(
        channels=(32, 64, 96, 128), attention=(1, 2, 3), groups=32, blocks=3
    ),
    "attention everywhere": dict(channels=(8, 24), attention=(0, 1), groups=4),
    "attention at the last level": dict(channels=(16, 8, 8), attention=(2,), groups=2),
    "one block a level": dict(channels=(8, 16, 16), attention=(1,), blocks=1),
    "three blocks a level": dict(channels=(8, 16), blocks=3),
    "other time embedding": dict(channels=(8, 8), width_temb=3),
}


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
        fresh, a = torch.randn(anchor.shape, generator=generator(0)), ALPHA_BAR[t]
        noised = a.sqrt() * anchor + (1 - a).sqrt() * fresh
        (h, skips, temb), (h_anchor, skips_anchor, _) = (
            theirs.encode(x, ts),
            theirs.encode(noised, ts),
        )
        outputs = [expected]
        for n in range(3):  # skip connections, from the innermost
            if n:
                skips[-n] = 0.1 * skips[-n] + 0.9 * skips_anchor[-n]
            outputs.append(theirs.decode(0.1 * h + 0.9 * h_anchor, skips, temb))
            edit = mix_in_anchor(ours, anchor, 0.1, 1000, 1, generator(0), n)
            found = decode(ours, *edit(encode(ours, x, t), torch.tensor(t)))
            torch.testing.assert_close(found, outputs[-1], rtol=0, atol=2e-4)
            assert (outputs[-1] - outputs[-2]).abs().max() > 1e-2


def test_group_norms_divide_by_what_pytorch_does():
    # Another eps changes the output by less than the tolerance here, but not in every network.
    unet = load_diffusion(authors((8, 16), attention=(0,)).state_dict(), groups=8)
    assert {norm.eps for norm in unet.modules() if isinstance(norm, nn.GroupNorm)} == {
        nn.GroupNorm(1, 1).eps
    }


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
    with pytest.raises(WeightsError, match=re.escape(TABLE)) as error:
        load_diffusion(tensors, groups=8)
    one_sentence(error)


def test_the_dictionary_given_is_left_as_it_is():
    tensors = authors().state_dict()
    before = {key: value.clone() for key, value in tensors.items()}
    unet = load_diffusion(tensors, groups=8)
    with torch.no_grad():
        unet.conv_in.weight.zero_()
    assert tensors.keys() == before.keys() and all(
        torch.equal(tensors[key], before[key]) for key in before
    )


DAMAGE = {
    "missing, inside": (
        without("encoder.downblocks.1.block2.3.bias"),
        "1 missing (encoder.downblocks.1.block2.3.bi",
    ),
    "missing, width": (
        without("encoder.downblocks.0.block1.2.weight"),
        "encoder.downblocks.0.block1.2.weight",
    ),
    "missing, time": (
        without("time_embedding.timembedding.1.weight"),
        "time_embedding.timembedding.1.weight",
    ),
    "missing, resampling": (
        without("encoder.downblocks.2.main.bias"),
        "1 missing (encoder.downblocks.2.main.bias)",
    ),
    "unknown": (plus("cond_embedding.weight", 10, 32), "1 unknown (cond_embedding.weight)"),
    "unknown, one block more": (
        plus("decoder.upblocks.7.temb_proj.1.bias", 8),
        "decoder.upblocks.7.temb_proj.1.bias",
    ),
    "attention in one block of its level": (
        plus("encoder.downblocks.1.attn.proj.bias", 8),
        "1 unknown (encoder.downblocks.1.attn.proj.bias)",
    ),
    "shape": (
        plus("encoder.head.weight", 8, 4, 3, 3),
        "encoder.head.weight: (8, 4, 3, 3) instead of (8, 3, 3, 3)",
    ),
    "shape, attention": (
        plus("encoder.middleblocks.0.attn.proj_q.weight", 16, 16, 3, 3),
        "encoder.middleblocks.0.attn.proj_q.weight",
    ),
    "no attention in the middle": (
        lambda tensors: {
            key: value for key, value in tensors.items() if "middleblocks.0.attn" not in key
        },
        "10 missing (encoder.middleblocks.0.attn.",
    ),
    "nothing": (lambda tensors: {}, "starts with nothing."),
    "an encoder": (
        lambda tensors: {"conv1.weight": torch.zeros(64, 3, 3, 3)},
        "starts with conv1.weight.",
    ),
}


@pytest.mark.parametrize(("damage", "seen"), DAMAGE.values(), ids=DAMAGE)
def test_tensors_that_do_not_fit_are_named(damage, seen):
    with pytest.raises(WeightsError, match=re.escape(seen)) as error:
        load_diffusion(damage(dict(authors().state_dict())), groups=8)
    one_sentence(error)


def test_many_missing_names_are_counted_and_the_first_are_named():
    tensors = {
        key: value
        for key, value in authors().state_dict().items()
        if "decoder.upblocks.0" not in key
    }
    with pytest.raises(
        WeightsError, match=r"12 missing \(decoder\.upblocks\.0\.\S+, \S+, \S+, \.\.\.\)"
    ) as error:
        load_diffusion(tensors, groups=8)
    one_sentence(error)


def test_groups_must_divide_the_channels():
    with pytest.raises(WeightsError, match=r"\(8, 16\).*groups=32"):
        load_diffusion(authors().state_dict())


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
    theirs.float().time_embedding.timembedding[0] = authors((8,)).time_embedding.timembedding[
        0
    ]  # unrounded
    x, t = batch(50, size=8)
    for source in (path, str(path)):
        ours = load_diffusion(source, groups=8)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours(x, t).sample, theirs(x, t), rtol=0, atol=1e-4)


# Folders of diffusers and the Hub -----------------------------------------------------------------

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


def rename_to_old(folder):
    """diffusers' first names for attention, as old files on the Hub have them."""
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    for new, old in (
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ):
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
    ours = load_diffusion(
        folder / "diffusion_pytorch_model.safetensors" if kind == "file" else str(tmp_path)
    )
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
    "SkipDownBlock2D": dict(
        down_block_types=("SkipDownBlock2D",), up_block_types=("SkipUpBlock2D",)
    ),
    "SkipUpBlock2D": dict(up_block_types=("SkipUpBlock2D",)),
}


@pytest.mark.parametrize(("name", "change"), UNCOVERED.items(), ids=UNCOVERED)
def test_a_unet_that_cannot_be_cut_is_refused(tmp_path, name, change):
    if "Skip" in name:
        UNet2DModel.from_config(TINY).save_pretrained(tmp_path)
        config = tmp_path / "config.json"
        config.write_text(
            config.read_text().replace(
                '"DownBlock2D"' if "Down" in name else '"UpBlock2D"', f'"{name}"'
            )
        )
    else:
        UNet2DModel(**(TINY | change)).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=f"{name}.*not covered") as error:
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
    "settings that make no network": (
        change_config('{"block_out_channels": [8, 8]}'),
        "makes no UNet2DModel",
    ),
    "other settings": (
        change_config(json.dumps(TINY | {"block_out_channels": [16]})),
        r"conv_in.weight: \(8, 3,",
    ),
    "another class": (
        change_config('{"_class_name": "UNet2DConditionModel"}'),
        "UNet2DConditionModel",
    ),
    "no weights": (
        lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(),
        "no weights",
    ),
    "a tensor less": (drop_a_tensor, r"1 missing \(conv_out.bias\)"),
}


@pytest.mark.parametrize(("damage", "seen"), BROKEN.values(), ids=BROKEN)
def test_broken_folders(tmp_path, damage, seen):
    tiny_unet().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=seen):
        load_diffusion(tmp_path)


def test_a_state_dict_of_diffusers_needs_its_settings():
    with pytest.raises(WeightsError, match="pass the folder"):
        load_diffusion(tiny_unet().state_dict())


@pytest.mark.parametrize(
    "source", ["nowhere", "./no/where", "a/b/c", "runs/a.pt", "runs/a.safetensors", "o n/e"]
)
def test_neither_file_nor_folder_nor_hub_name(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        pretrained, "snapshot_download", lambda *a, **k: pytest.fail("asked the Hub")
    )
    with pytest.raises(WeightsError, match=re.escape(repr(source))) as error:
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
    with pytest.raises(
        WeightsError, match="'some/unet' is neither a folder here nor in the Hub's cache"
    ) as error:
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
    monkeypatch.setattr(pretrained, "snapshot_download", download)
    tiny_unet().save_pretrained(tmp_path)
    load_diffusion("some/unet")
    assert len(asked) == 1 and not any("bin" in file for file in asked[0])


# Digests ------------------------------------------------------------------------------------------


def change_a_weight(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["conv_out.bias"][0] += 1
    safetensors.torch.save_file(tensors, path)


def change_a_setting(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"norm_eps": 0.5}))


def test_the_digest_of_a_folder_is_of_its_content_not_its_path(tmp_path):
    for name in ("a", "b/unet"):
        tiny_unet().save_pretrained(tmp_path / name)
    digest = weights_digest(str(tmp_path / "a"))
    assert re.fullmatch("[0-9a-f]{64}", digest)
    file = tmp_path / "b" / "unet" / "diffusion_pytorch_model.safetensors"
    for same in (tmp_path / "b", tmp_path / "b" / "unet", file):
        assert weights_digest(str(same)) == digest


@pytest.mark.parametrize("change", [change_a_weight, change_a_setting])
def test_other_weights_or_settings_have_another_digest(tmp_path, change):
    tiny_unet().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    before = weights_digest(str(tmp_path))
    change(tmp_path)
    assert weights_digest(str(tmp_path)) == weights_digest(str(file)) != before


def test_the_digest_of_an_authors_file(tmp_path):
    tensors = authors((8,)).state_dict()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        torch.save(tensors, tmp_path / name / "unet.pt")
    (tmp_path / "b" / "config.json").write_text("{")  # of something else: it is not read
    digest = weights_digest(str(tmp_path / "a" / "unet.pt"))
    assert weights_digest(str(tmp_path / "b" / "unet.pt")) == digest
    tensors["encoder.head.bias"] = tensors["encoder.head.bias"] + 1
    torch.save(tensors, tmp_path / "b" / "unet.pt")
    assert weights_digest(str(tmp_path / "b" / "unet.pt")) != digest


def test_the_digest_of_a_hub_name_is_of_its_files(hub, tmp_path):
    for folder in (hub("some/unet"), tmp_path / "here"):
        tiny_unet().save_pretrained(folder)
    assert weights_digest("some/unet") == weights_digest(str(tmp_path / "here"))


@pytest.mark.parametrize("source", ["nowhere", "nowhere.pt", "some/unet", "."])
def test_what_is_not_there_has_no_digest(hub, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as error:
        weights_digest(source)
    one_sentence(error)


def test_weights_without_their_settings_have_no_digest(tmp_path):
    tiny_unet().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="no readable config.json") as error:
        weights_digest(str(tmp_path / "diffusion_pytorch_model.safetensors"))
    one_sentence(error)


# Noise schedules ----------------------------------------------------------------------------------

DDPM = dict(beta_schedule="linear", beta_start=0.0001, beta_end=0.02, num_train_timesteps=1000)
SCHEDULES = {
    "DDPM": lambda **more: DDPMScheduler(**(DDPM | more)),
    "DDIM": lambda **more: DDIMScheduler(**(DDPM | more)),
    "DPM-Solver++": lambda **more: DPMSolverMultistepScheduler(**(DDPM | more)),
}
OTHER_SCHEDULES = {
    "cosine": (dict(beta_schedule="squaredcos_cap_v2"), "beta_schedule='squaredcos_cap_v2'"),
    "scaled": (dict(beta_schedule="scaled_linear"), "beta_schedule='scaled_linear'"),
    "first beta": (dict(beta_start=0.00085), "beta_start=0.00085"),
    "last beta": (dict(beta_end=0.028), "beta_end=0.028 instead of 0.02"),
    "steps": (dict(num_train_timesteps=4000), "num_train_timesteps=4000 instead of 1000"),
    "v": (dict(prediction_type="v_prediction"), "prediction_type='v_prediction'"),
    "image": (dict(prediction_type="sample"), "prediction_type='sample' instead of 'epsilon'"),
    "betas": (dict(trained_betas=[0.1, 0.2]), "trained_betas=[0.1, 0.2] instead of None"),
    "no signal": (dict(rescale_betas_zero_snr=True), "rescale_betas_zero_snr=True"),
}


def place_schedule(folder, unet_in, schedule_in, schedule):
    """A UNet and its noise schedule, each in its part of a folder."""
    tiny_unet().save_pretrained(folder / unet_in)
    schedule.save_pretrained(folder / schedule_in)
    return folder


PLACES = [(".", "."), ("unet", "scheduler"), ("unet", "."), (".", "scheduler"), ("unet", "unet")]


@pytest.mark.parametrize(("unet_in", "schedule_in"), PLACES)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_noise_schedule_of_ours_is_taken(tmp_path, unet_in, schedule_in, kind):
    place_schedule(tmp_path, unet_in, schedule_in, SCHEDULES[kind]())
    for source in (tmp_path, tmp_path / unet_in):
        load_diffusion(source)
        weights_digest(str(source))


@pytest.mark.parametrize(("unet_in", "schedule_in"), PLACES)
@pytest.mark.parametrize("case", OTHER_SCHEDULES)
def test_another_noise_schedule_is_refused(tmp_path, unet_in, schedule_in, case):
    changes, seen = OTHER_SCHEDULES[case]
    place_schedule(tmp_path, unet_in, schedule_in, SCHEDULES["DDPM"](**changes))
    file = tmp_path / unet_in / "diffusion_pytorch_model.safetensors"
    for source in (tmp_path, tmp_path / unet_in, file):
        for read in (load_diffusion, weights_digest, lambda source: unet_misfit(source, 32)):
            with pytest.raises(WeightsError, match=re.escape(seen)) as error:
                read(str(source))
            one_sentence(error)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("{", "is no readable scheduler_config.json"),
        ("[]", "is no readable scheduler_config.json"),
        ("{}", "num_train_timesteps=None"),
        ('{"num_train_timesteps": 1000, "shift": 3.0}', "beta_schedule=None"),  # flow matching
        ('{"sigma_min": 0.01, "sigma_max": 1348.0}', "beta_schedule=None"),  # of scores
        (json.dumps(DDPM | {"beta_end": "0.02"}), "beta_end='0.02'"),
    ],
)
def test_a_noise_schedule_that_nobody_can_read_is_refused(tmp_path, text, seen):
    tiny_unet().save_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text(text)
    with pytest.raises(WeightsError, match=re.escape(seen)) as error:
        load_diffusion(tmp_path)
    one_sentence(error)


def test_the_noise_schedule_of_googles_first_files_is_ours(tmp_path):
    tiny_unet().save_pretrained(tmp_path)
    first = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large", "trained_betas": None}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(DDPM | first))
    load_diffusion(tmp_path)


@pytest.mark.parametrize(("unet_in", "schedule_in"), [(".", "."), ("unet", "scheduler")])
def test_the_noise_schedule_on_the_hub_counts(hub, unet_in, schedule_in):
    schedule = SCHEDULES["DDPM"](prediction_type="v_prediction")
    place_schedule(hub("some/unet"), unet_in, schedule_in, schedule)
    with pytest.raises(WeightsError, match="v_prediction"):
        load_diffusion("some/unet")


def test_the_download_asks_for_the_noise_schedule(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        pretrained, "snapshot_download", lambda name, allow_patterns: asked.extend(allow_patterns)
    )
    with pytest.raises(WeightsError):
        load_diffusion("some/unet")
    assert {"scheduler_config.json", "scheduler/scheduler_config.json"} <= set(asked)


# Sizes --------------------------------------------------------------------------------------------


def of_levels(n, **more):
    return UNet2DModel(
        block_out_channels=(4,) * n,
        down_block_types=("DownBlock2D",) * n,
        up_block_types=("UpBlock2D",) * n,
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=None,
        **more,
    )


@pytest.mark.parametrize(
    ("levels", "size", "fits"),
    [(1, 8, 1), (3, 8, 1), (4, 8, 0), (5, 16, 0), (4, 16, 1), (3, 18, 0), (6, 32, 0)],
)
@pytest.mark.parametrize("kind", ["diffusers", "authors"])
def test_a_unet_deeper_than_the_images_allow_is_told(tmp_path, kind, levels, size, fits):
    source = tmp_path if kind == "diffusers" else tmp_path / "a.pt"
    if kind == "diffusers":
        of_levels(levels).save_pretrained(tmp_path)
    else:
        torch.save(authors((8,) * levels).state_dict(), source)
    misfit = unet_misfit(str(source), size)
    assert (misfit == "") == fits
    if not fits:
        assert misfit.startswith(f"{str(source)!r}: data.size={size} cannot be halved")
        assert misfit.endswith(".") and f"UNet of {levels} resolutions" in misfit


@pytest.mark.parametrize("sample_size", [None, 32, 64, (32, 32), 256])
def test_a_unet_of_other_images_is_told(tmp_path, sample_size):
    of_levels(2, sample_size=sample_size).save_pretrained(tmp_path)
    misfit = unet_misfit(str(tmp_path), 32)
    if sample_size in (None, 32, (32, 32)):
        assert misfit == ""
    else:
        assert f"trained on images of {sample_size} pixels" in misfit and "data.size=32" in misfit
