"""Networks that somebody else has trained: diffusion models and encoders from files or the Hub.

Files are data here, never programs: a `.pt` is read with `weights_only=True`, and one that holds
Python objects is refused. To keep an imported UNet as safetensors use
`unet.save_pretrained(folder)`; `load_diffusion(folder)` reads it back.
"""

import json
import math
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import UNet2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from clsp_utils.config import ConfigError, Encoder
from clsp_utils.encoders import build_backbone

Source = str | Path | Mapping[str, Any]
Tensors = dict[str, Tensor]

# Where training scripts put the weights; averaged ones (EMA) first, for those are meant for use.
WRAPPINGS = ("ema", "ema_model", "state_dict", "model", "net_model")
WEIGHTS = (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)  # diffusers' own
STAGES = {"basic": (2, 2, 2, 2), "bottleneck": (3, 4, 6, 3)}  # blocks a stage of ResNet-18 and -50

# What `bottleneck.encode` and `decode` assume of a UNet2DModel; all are diffusers' defaults.
COVERED = {
    "in_channels": 3, "out_channels": 3, "center_input_sample": False, "time_embedding_type": "positional",
    "class_embed_type": None, "num_class_embeds": None, "mid_block_type": "UNetMidBlock2D",
}
# UNet2DModel's first names for attention; diffusers converts such files as it reads them.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# UNet2DModel's names and the authors' (method, section 4): outside and inside the blocks.
OUTSIDE = {
    "conv_in": "encoder.head", "conv_norm_out": "decoder.tail.0", "conv_out": "decoder.tail.2",
    "time_embedding.linear_1": "time_embedding.timembedding.1",
    "time_embedding.linear_2": "time_embedding.timembedding.3",
}
INSIDE = {
    "norm1": "block1.0", "conv1": "block1.2", "time_emb_proj": "temb_proj.1",
    "norm2": "block2.0", "conv2": "block2.3", "conv_shortcut": "shortcut",
    "group_norm": "attn.group_norm", "to_q": "attn.proj_q", "to_k": "attn.proj_k", "to_v": "attn.proj_v",
    "to_out.0": "attn.proj", "conv": "main",
}
BLOCKS = {"down": "encoder.downblocks", "mid": "encoder.middleblocks", "up": "decoder.upblocks"}
TABLE = "time_embedding.timembedding.0.weight"


class CheckpointError(ConfigError):
    """A checkpoint that cannot be used; the message names it and the reason."""


def load_diffusion(source: Source, groups: int = 32) -> UNet2DModel:
    """A trained UNet, in fp32 and eval mode, on the CPU.

    Args:
        source: a Hub name "owner/name"; a folder that diffusers wrote, `config.json` being in it or
            in its `unet`; a file of such a folder; or a file or state dict of the authors' UNet,
            whose widths, levels and attention are read from its tensors.
        groups: of the authors' group norms, which no tensor tells.

    Raises:
        CheckpointError: not found, damaged, another network, or a UNet that `bottleneck` cannot cut.
    """
    if not isinstance(source, Mapping):
        source = _find(str(source))
    tensors = _tensors(source)
    if "conv_in.weight" not in tensors:
        return _from_authors(tensors, source, groups)
    if isinstance(source, Mapping):
        raise CheckpointError(f"{_name(source)} is of a UNet2DModel, which needs its config.json: pass the folder.")
    config = _config(source.parent)
    try:
        unet = UNet2DModel.from_config(config)
    except Exception as error:  # wrong settings fail somewhere in diffusers or torch
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{str(source.parent)!r}: config.json makes no UNet2DModel ({reason}).") from None
    for old, new in OLD.items():
        tensors = {key.replace(f".{old}.", f".{new}."): tensor for key, tensor in tensors.items()}
    _fill(unet, tensors, source)
    return unet.eval()


def load_encoder(source: Source, max_pool: bool = False) -> ResNet:
    """The backbone of a trained encoder, in fp32 and eval mode: `(B, 3, H, W)` to `(B, n_features)`.

    Its images must be normalised as in its training.

    Args:
        source: a file or state dict with torchvision's names: ResNet-18 or -50 with a 3x3 stem of
            stride 1. A projector or classifier under `fc` is left out.
        max_pool: whether the stem ends in max-pooling (it does at 64 pixels); no tensor tells.

    Raises:
        CheckpointError: not found, damaged, or another network.
    """
    tensors = {key: tensor for key, tensor in _tensors(source).items() if not key.startswith("fc.")}
    block = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
    cfg = Encoder(block=block, layers=STAGES[block], width=64, stem_stride=1, max_pool=max_pool)
    net = build_backbone(cfg)
    _fill(net, tensors, source)
    return net.eval()


# Tensors ----------------------------------------------------------------------------------------


def _name(source: Source) -> str:
    return "The dictionary" if isinstance(source, Mapping) else repr(str(source))


def _tensors(source: Source) -> Tensors:
    """The tensors of a file or state dict, without wrapping dictionaries and prefixes."""
    state = source if isinstance(source, Mapping) else _read(Path(source))
    while isinstance(state, Mapping) and (
        inner := [state[key] for key in WRAPPINGS if isinstance(state.get(key), Mapping)]
    ):
        state = inner[0]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(
            f"{_name(source)} holds no state dict, which is tensors by name, plain or under {', '.join(WRAPPINGS)}."
        )
    # DataParallel and torch.compile put their own names in front.
    return {re.sub(r"^((module|_orig_mod)\.)+", "", key): value for key, value in state.items()}


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r} is not a file.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{str(path)!r} is damaged or holds Python objects, which are refused because they can run code."
        ) from None
    except Exception as error:  # damaged bytes make the readers fail in any way
        raise CheckpointError(f"{str(path)!r} is damaged or no checkpoint ({type(error).__name__}).") from None


def _fill(net: nn.Module, tensors: Tensors, source: Source, rename: Callable[[str], str] = str) -> None:
    """Copies `tensors` into `net`, `rename` turning its names into theirs; each must fit."""
    own = {rename(key): value for key, value in net.state_dict().items()}
    shapes = {key: (tuple(tensors[key].shape), tuple(own[key].shape)) for key in own if key in tensors}
    problems = {
        "unknown": [key for key in tensors if key not in own],
        "missing": [key for key in own if key not in tensors],
        "of another shape": [f"{key}: {a} instead of {b}" for key, (a, b) in shapes.items() if a != b],
    }
    found = [
        f"{len(keys)} {problem} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for problem, keys in problems.items()
        if keys
    ]
    if found:
        raise CheckpointError(f"{_name(source)} does not fit {type(net).__name__}; tensors: {', '.join(found)}.")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])


# diffusers' files -------------------------------------------------------------------------------


def _find(source: str) -> Path:
    """The file with the weights, fetched from the Hub if need be."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        is_file_name = path.suffix in (".pt", ".pth", ".bin", ".safetensors")
        if is_file_name or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
            raise CheckpointError(f"{source!r} is neither a file, nor a folder, nor a Hub name (owner/name).")
        path = _download(source)
    folder = path / "unet" if (path / "unet" / "config.json").is_file() else path
    _config(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{str(folder)!r} has no weights, neither {' nor '.join(WEIGHTS)}.")


def _download(name: str) -> Path:
    """The folder of `name` in the Hub's cache."""
    for weights in WEIGHTS:  # the second is fetched only where the first does not exist
        files = [f"{folder}{file}" for file in (weights, "config.json") for folder in ("", "unet/")]
        try:
            path = Path(snapshot_download(name, allow_patterns=files))
        except Exception as error:  # whatever the network throws; `from_pretrained` would blame config.json
            raise CheckpointError(
                f"{name!r} is neither a folder here nor in the Hub's cache, and could not be fetched from the Hub "
                f"({type(error).__name__})."
            ) from None
        if any((path / file).is_file() for file in files[:2]):
            break
    return path


def _config(folder: Path) -> dict:
    """The settings of the UNet2DModel in a folder, if `encode` and `decode` cover them."""
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config.get("_class_name", "UNet2DModel")
        blocks = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        raise CheckpointError(f"{str(folder)!r} has no readable config.json of diffusers.") from None
    if kind != "UNet2DModel":
        raise CheckpointError(f"{str(folder)!r} holds a {kind}; only a UNet2DModel can be used.")
    for key, value in COVERED.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{str(folder)!r}: {key}={config[key]!r} is not covered; it must be {value!r}.")
    for block in blocks:
        if str(block).startswith("Skip"):
            raise CheckpointError(f"{str(folder)!r}: {block} is not covered, because its images go round the middle.")
    return config


# The authors' UNet ------------------------------------------------------------------------------


def _from_authors(tensors: Tensors, source: Source, groups: int) -> UNet2DModel:
    """Their UNet as a UNet2DModel that computes the same."""
    settings = _settings(tensors, source)
    channels, layers = settings["block_out_channels"], settings["layers_per_block"]
    if any(c % groups for c in channels):
        raise CheckpointError(f"{_name(source)} has channels {channels}, which groups={groups} does not divide.")
    table = tensors.pop(TABLE, None)
    if table is not None and not _is_sinusoid(table, channels[0]):
        raise CheckpointError(f"{_name(source)}: {TABLE} is not sin, cos, ... of 1000 steps in {channels[0]} columns.")
    tensors = {
        # Attention by 1x1 convolutions; in diffusers by linear layers.
        key: tensor.flatten(1) if ".attn." in key and tensor.shape[2:] == (1, 1) else tensor
        for key, tensor in tensors.items()
        if not key.startswith("encoder.projector.")  # no part of the forward pass
    }
    unet = UNet2DModel(
        **settings, norm_num_groups=groups, norm_eps=1e-5, downsample_padding=1, flip_sin_to_cos=False,
        freq_shift=0, attention_head_dim=None,  # None: a single head
    )
    _fill(unet, tensors, source, lambda key: _authors_name(key, layers))
    # Their time embedding goes sin, cos, sin, cos, ...; diffusers' has all sin before all cos.
    weight = unet.time_embedding.linear_1.weight.data
    weight.copy_(torch.cat([weight[:, 0::2], weight[:, 1::2]], 1))
    return unet.eval()


def _is_sinusoid(table: Tensor, width: int) -> bool:
    frequency = torch.exp(-math.log(10000) * torch.arange(0, width, 2, dtype=torch.float64) / width)
    phase = torch.arange(1000)[:, None] * frequency
    expected = torch.stack([phase.sin(), phase.cos()], 2).flatten(1)
    return table.shape == expected.shape and torch.allclose(table.cpu().double(), expected, rtol=0, atol=1e-2)


def _settings(tensors: Tensors, source: Source) -> dict:
    """What the names and shapes of the authors' tensors tell; `_fill` finds what disagrees with it."""
    modules = {key[: dot.start()] for key in tensors for dot in re.finditer(r"\.", key)}
    numbers = [int(found[1]) for name in modules if (found := re.fullmatch(r"encoder\.downblocks\.(\d+)", name))]
    if not numbers:
        shown = ", ".join([*tensors][:3]) or "nothing"
        raise CheckpointError(f"{_name(source)} is neither diffusers' nor the authors' UNet; it starts with {shown}.")
    n = max(numbers) + 1
    # Residual blocks a level; a level ends in a downsampling.
    layers = next((i for i in range(n) if f"encoder.downblocks.{i}.main" in modules), n)
    down = [f"encoder.downblocks.{i}" for i in range(0, n, layers + 1)]  # the first block of each level
    up = [f"decoder.upblocks.{i * (layers + 2)}" for i in range(len(down))]
    try:
        return {
            "block_out_channels": tuple(len(tensors[f"{block}.block1.2.weight"]) for block in down),
            "layers_per_block": layers,
            "down_block_types": tuple("AttnDownBlock2D" if f"{b}.attn" in modules else "DownBlock2D" for b in down),
            "up_block_types": tuple("AttnUpBlock2D" if f"{b}.attn" in modules else "UpBlock2D" for b in up),
            "time_embedding_dim": len(tensors["time_embedding.timembedding.1.weight"]),
        }
    except KeyError as missing:
        raise CheckpointError(f"{_name(source)} does not fit the authors' UNet: {missing} is missing.") from None


def _authors_name(key: str, layers: int) -> str:
    """The authors' name of a UNet2DModel's tensor.

    Each of their halves numbers residual blocks and resamplings through all levels.
    """
    part, kind = key.rsplit(".", 1)
    if part in OUTSIDE:
        return f"{OUTSIDE[part]}.{kind}"
    pattern = r"(down|mid|up)_blocks?\.?(\d*)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.+)"
    half, level, group, i, inside = re.fullmatch(pattern, part).groups()
    n_residual = layers + (half == "up")
    place = n_residual if group.endswith("samplers") else int(i)
    return f"{BLOCKS[half]}.{int(level or 0) * (n_residual + 1) + place}.{INSIDE[inside]}.{kind}"
