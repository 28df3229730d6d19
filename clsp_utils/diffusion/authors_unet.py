"""The UNet of the paper's authors as a UNet2DModel that computes the same (method, section 4)."""

import re
from typing import Any

import torch
from diffusers import UNet2DModel

from clsp_utils.runtime import WeightsError, fill
from clsp_utils.runtime.weights import Source, Tensors, source_name

# UNet2DModel's names and the authors': of layers outside the blocks, of blocks, and inside a block.
LAYER_NAMES = {
    "conv_in": "encoder.head",
    "conv_norm_out": "decoder.tail.0",
    "conv_out": "decoder.tail.2",
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
}
TIME_TABLE = "time_embedding.timembedding.0.weight"


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
    if any(c % groups for c in channels):
        raise WeightsError(
            f"{source_name(source)} has channels {channels}, which groups={groups} does not divide."
        )
    unet = UNet2DModel(
        **settings,
        norm_num_groups=groups,
        norm_eps=1e-5,
        downsample_padding=1,
        flip_sin_to_cos=False,
        freq_shift=0,
        attention_head_dim=None,  # a single head
    )
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
        # The authors compute attention with 1x1 convolutions, diffusers with linear layers.
        key: tensor.flatten(1) if ".attn." in key and tensor.shape[2:] == (1, 1) else tensor
        for key, tensor in tensors.items()
        if key != TIME_TABLE and not key.startswith("encoder.projector.")  # never run
    }
    fill(unet, tensors, source, lambda key: _authors_name(key, layers))
    weight = unet.time_embedding.linear_1.weight.data
    weight.copy_(weight[:, order])
    return unet.eval()


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
        raise WeightsError(
            f"{source_name(source)} does not fit the authors' UNet: {missing} is missing."
        ) from None


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
