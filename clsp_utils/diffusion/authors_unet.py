"""The UNets of the paper's authors as UNet2DModels that compute the same.

The conditional one is another network than the unconditional one: it adds an embedding of the class
to each residual block by a projection of its own, learns the table of time steps, and resamples by
larger convolutions. Class i has row i + 1 of its table; row 0 stands for "no class". Its noise ends
at another beta. All of that is in what `conditional_from_authors` returns.
"""

import re
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils.diffusion.unet import BETA_END
from clsp_utils.runtime import WeightsError, fill
from clsp_utils.runtime.weights import Source, Tensors, source_name

# UNet2DModel's names and the authors': of layers outside the blocks, of blocks, and inside a block.
LAYER_NAMES = {
    "conv_in": "encoder.head",
    "conv_norm_out": "decoder.tail.0",
    "conv_out": "decoder.tail.2",
    "class_embedding": "cond_embedding.condEmbedding.0",
    "time_proj": "time_embedding.timembedding.0",
    "time_embedding.linear_1": "time_embedding.timembedding.1",
    "time_embedding.linear_2": "time_embedding.timembedding.3",
}
BLOCK_NAMES = {
    "down": "encoder.downblocks",
    "mid": "encoder.middleblocks",
    "up": "decoder.upblocks",
}
NAMES_IN_BLOCK = {
    "norm1": "block1.0",
    "conv1": "block1.2",
    "time_emb_proj": "temb_proj.1",
    "norm2": "block2.0",
    "conv2": "block2.3",
    "conv_shortcut": "shortcut",
    "group_norm": "attn.group_norm",
    "to_q": "attn.proj_q",
    "to_k": "attn.proj_k",
    "to_v": "attn.proj_v",
    "to_out.0": "attn.proj",
    "conv": "main",
    "conv.0": "t",
    "conv.1": "c",
}
TIME_TABLE = "time_embedding.timembedding.0.weight"
CLASS_TABLE = "cond_embedding.condEmbedding.0.weight"  # of the conditional UNet alone
CONDITIONAL_BETA_END = 0.028


def from_authors(tensors: Tensors, source: Source, groups: int) -> UNet2DModel:
    """A UNet2DModel with the authors' weights, in fp32 and eval mode.

    Args:
        tensors: by the authors' names; they are not changed.
        source: where the tensors come from, for the error message.
        groups: of the group norms.

    Raises:
        WeightsError: the tensors are of another network.
    """
    settings = authors_settings(tensors, source)
    channels, layers = settings["block_out_channels"], settings["layers_per_block"]
    unet = _build(settings, source, groups, flip_sin_to_cos=False, freq_shift=0)
    # The authors' time embedding is sin, cos, sin, cos, ...; diffusers' has all sin before all cos.
    order = torch.cat([torch.arange(0, channels[0], 2), torch.arange(1, channels[0], 2)])
    expected = unet.time_proj(torch.arange(1000))
    table = tensors.get(TIME_TABLE)
    if table is not None and not (
        table.shape == expected.shape
        and torch.allclose(table[:, order].cpu().float(), expected, rtol=0, atol=1e-2)
    ):
        raise WeightsError(
            f"{source_name(source)}: {TIME_TABLE} is not sin, cos, ... of 1000 steps in "
            f"{channels[0]} columns."
        )
    tensors = {
        key: tensor
        for key, tensor in _linear_attention(tensors).items()
        if key != TIME_TABLE and not key.startswith("encoder.projector.")  # never run
    }
    fill(unet, tensors, source, lambda key: _authors_name(key, layers))
    weight = unet.time_embedding.linear_1.weight.data
    weight.copy_(weight[:, order])
    return unet.eval()


def conditional_from_authors(tensors: Tensors, source: Source, groups: int) -> UNet2DModel:
    """A UNet2DModel with the weights of the authors' conditional UNet, in fp32 and eval mode.

    Embeddings of time and class stand side by side in one that is twice as wide, since what a block
    adds for the two is one linear map of both. As in our own models (see `build_unet`) the class
    after the last stands for "no class".

    Args:
        tensors: by the authors' names; they are not changed.
        source: where the tensors come from, for the error message.
        groups: of the group norms.

    Raises:
        WeightsError: the tensors are of another network.
    """
    settings = conditional_settings(tensors, source)
    layers, width = settings["layers_per_block"], settings["time_embedding_dim"]
    settings |= {"time_embedding_dim": 2 * width, "time_embedding_type": "learned"}
    unet = _build(settings, source, groups, num_train_timesteps=1000)
    unet.register_to_config(**{BETA_END: CONDITIONAL_BETA_END})
    for block in unet.down_blocks[:-1]:
        (down,) = block.downsamplers
        down.conv = nn.Conv2d(down.channels, down.channels, 5, stride=2, padding=2)
    for block in unet.up_blocks[:-1]:
        (up,) = block.upsamplers
        up.use_conv_transpose = True  # it does what `conv` does, and no more
        up.conv = nn.Sequential(
            nn.ConvTranspose2d(up.channels, up.channels, 5, 2, padding=2, output_padding=1),
            nn.Conv2d(up.channels, up.channels, 3, padding=1),
        )
    try:
        tensors = _joined(_linear_attention(tensors), width)
    except KeyError as missing:
        raise _misfit(source, f"{missing} is missing") from None
    except (RuntimeError, IndexError):
        other = "embeddings, projections or resamplings are of other shapes"
        raise _misfit(source, other) from None
    fill(unet, tensors, source, lambda key: _conditional_name(key, layers))
    return unet.eval()


def _joined(tensors: Tensors, width: int) -> Tensors:
    """The conditional UNet's tensors, with those in one that a UNet2DModel has as one.

    Args:
        width: of an embedding.

    Raises:
        KeyError, RuntimeError, IndexError: a tensor is missing, or they do not fit together.
    """
    joined = {key: tensor.float() for key, tensor in tensors.items()}

    def take(name: str) -> tuple[Tensor, Tensor]:
        return joined.pop(f"{name}.weight"), joined.pop(f"{name}.bias")

    def put(name: str, weight: Tensor, bias: Tensor) -> None:
        joined.update({f"{name}.weight": weight, f"{name}.bias": bias})

    for key in tensors:
        if key.endswith(".cond_proj.1.weight"):
            block = key.removesuffix(".cond_proj.1.weight")
            (w_time, b_time), (w, b) = take(f"{block}.temb_proj.1"), take(f"{block}.cond_proj.1")
            put(f"{block}.temb_proj.1", torch.cat([w_time, w], 1), b_time + b)
        elif key.endswith(".c1.weight"):  # 3 x 3 and 5 x 5, around the same pixel
            block = key.removesuffix(".c1.weight")
            (w, b), (wide, b_wide) = take(f"{block}.c1"), take(f"{block}.c2")
            put(f"{block}.c2", wide + F.pad(w, (1, 1, 1, 1)), b + b_wide)
    first, second = (take(f"time_embedding.timembedding.{i}") for i in (1, 3))
    more = (0, width)  # of which time says nothing
    put("time_embedding.timembedding.1", F.pad(first[0], (0, 0, *more)), F.pad(first[1], more))
    put("time_embedding.timembedding.3", F.pad(second[0], more * 2), F.pad(second[1], more))
    first, second = (take(f"cond_embedding.condEmbedding.{i}") for i in (1, 3))
    of_classes = F.linear(F.silu(F.linear(joined[CLASS_TABLE].roll(-1, 0), *first)), *second)
    joined[CLASS_TABLE] = F.pad(of_classes, (width, 0))
    return joined


def conditional_settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    """As `authors_settings`, of the conditional UNet; `num_class_embeds` counts "no class" too."""
    if CLASS_TABLE not in tensors:
        raise _misfit(source, f"{CLASS_TABLE} is missing, so that it knows no classes")
    named = {
        f"{half}{key}".replace(".c1.", ".main."): tensor
        for key, tensor in tensors.items()
        for half in ["decoder." if key.startswith(("upblocks.", "tail.")) else "encoder."]
    }
    times = {key: tensor for key, tensor in tensors.items() if key.startswith("time_embedding.")}
    n_classes = {"num_class_embeds": len(tensors[CLASS_TABLE])}
    return authors_settings(named | times, source) | n_classes


def _misfit(source: Source, why: str) -> WeightsError:
    return WeightsError(f"{source_name(source)} does not fit the authors' UNet: {why}.")


def _build(settings: dict[str, Any], source: Source, groups: int, **more: Any) -> UNet2DModel:
    channels = settings["block_out_channels"]
    if any(c % groups for c in channels):
        raise WeightsError(
            f"{source_name(source)} has channels {channels}, which groups={groups} does not divide."
        )
    return UNet2DModel(
        **settings,
        norm_num_groups=groups,
        norm_eps=1e-5,
        downsample_padding=1,
        attention_head_dim=None,  # a single head
        **more,
    )


def _linear_attention(tensors: Tensors) -> Tensors:
    """The authors compute attention with 1x1 convolutions, diffusers with linear layers."""
    return {
        key: tensor.flatten(1) if ".attn." in key and tensor.shape[2:] == (1, 1) else tensor
        for key, tensor in tensors.items()
    }


def authors_settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    """The settings of the UNet2DModel that names and shapes tell.

    `fill` finds the tensors that disagree with them.

    Raises:
        WeightsError: the tensors are of another network.
    """
    modules = {key[: dot.start()] for key in tensors for dot in re.finditer(r"\.", key)}
    found = [re.fullmatch(r"encoder\.downblocks\.(\d+)", name) for name in modules]
    n = max((int(match[1]) + 1 for match in found if match), default=0)
    if not n:
        shown = ", ".join([*tensors][:3]) or "nothing"
        raise WeightsError(
            f"{source_name(source)} is neither diffusers' nor the authors' UNet; it starts with "
            f"{shown}."
        )
    # A level has so many residual blocks and ends in a downsampling.
    layers = next((i for i in range(n) if f"encoder.downblocks.{i}.main" in modules), n)
    # The first block of each level.
    down = [f"encoder.downblocks.{i}" for i in range(0, n, layers + 1)]
    up = [f"decoder.upblocks.{i * (layers + 2)}" for i in range(len(down))]

    def kinds(half: str, blocks: list[str]) -> tuple[str, ...]:
        return tuple(f"{'Attn' * (f'{b}.attn' in modules)}{half}Block2D" for b in blocks)

    try:
        return {
            "block_out_channels": tuple(len(tensors[f"{block}.block1.2.weight"]) for block in down),
            "layers_per_block": layers,
            "down_block_types": kinds("Down", down),
            "up_block_types": kinds("Up", up),
            "time_embedding_dim": len(tensors["time_embedding.timembedding.1.weight"]),
        }
    except KeyError as missing:
        raise _misfit(source, f"{missing} is missing") from None


def _authors_name(key: str, layers: int) -> str:
    """The authors' name of a UNet2DModel's tensor.

    Each of their halves numbers residual blocks and resamplings through all levels.
    """
    part, kind = key.rsplit(".", 1)
    if part in LAYER_NAMES:
        return f"{LAYER_NAMES[part]}.{kind}"
    pattern = r"(down|mid|up)_blocks?\.?(\d*)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.+)"
    [(half, level, group, i, inside)] = re.findall(pattern, part)
    n_residual = layers + (half == "up")
    place = n_residual if group.endswith("samplers") else int(i)
    number = int(level or 0) * (n_residual + 1) + place
    return f"{BLOCK_NAMES[half]}.{number}.{NAMES_IN_BLOCK[inside]}.{kind}"


def _conditional_name(key: str, layers: int) -> str:
    """The same of the conditional UNet, which has no halves."""
    name = _authors_name(key, layers).removeprefix("encoder.").removeprefix("decoder.")
    return name.replace(".main.", ".c2.")
