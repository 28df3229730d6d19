"""Diffusion models that others have trained, from files, folders or the Hub.

To keep an imported UNet as safetensors use `unet.save_pretrained(folder)`; `load_diffusion(folder)`
reads it back.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from huggingface_hub import snapshot_download

from clsp_utils.config import UNetShape, is_hub_name
from clsp_utils.diffusion.authors_unet import (
    authors_settings,
    conditional_from_authors,
    conditional_settings,
    from_authors,
)
from clsp_utils.diffusion.unet import BETAS
from clsp_utils.runtime import WeightsError, fill, read_tensors
from clsp_utils.runtime.weights import Source

WEIGHT_FILES = (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)  # as diffusers names them

FIRST_TENSOR = "conv_in.weight"  # of each UNet2DModel, and not of the authors' UNet

# `encode` and `decode` assume this of a UNet2DModel; all values are diffusers' defaults.
SUPPORTED_CONFIG = {
    "_class_name": "UNet2DModel",
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "class_embed_type": None,
    "num_class_embeds": None,
    "mid_block_type": "UNetMidBlock2D",
}
SCHEDULE = "scheduler_config.json"  # how images were noised in the training of a UNet
SUPPORTED_SCHEDULE = BETAS | {
    "prediction_type": "epsilon", "trained_betas": None, "rescale_betas_zero_snr": False,
}  # fmt: skip
OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_diffusion(source: Source, groups: int = 32) -> UNet2DModel:
    """A trained UNet, in fp32 and eval mode, on the CPU.

    Args:
        source: a Hub name "owner/name"; a folder that diffusers wrote, `config.json` being in it or
            in its `unet`; a file of such a folder; or a file or state dict of the authors' UNet,
            whose widths, levels and attention are read from its tensors.
        groups: of the authors' group norms, which no tensor tells.

    Raises:
        WeightsError: not found, damaged, another network, a UNet that `encode` cannot cut, or one
            of another noise schedule.
    """
    if not isinstance(source, Mapping):
        source = _find(str(source))
    tensors = read_tensors(source)
    if FIRST_TENSOR not in tensors:
        return from_authors(tensors, source, groups)
    if isinstance(source, Mapping):
        raise WeightsError(
            "The dictionary is of a UNet2DModel, which needs its config.json: pass the folder."
        )
    # Not with `from_pretrained`, which fills what is missing at random and blames config.json for
    # every failure.
    config = _config(source.parent)
    try:
        unet = UNet2DModel.from_config(config)
    except Exception as error:  # wrong settings fail somewhere in diffusers or torch
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{str(source.parent)!r}: config.json makes no UNet2DModel ({reason})."
        ) from None
    for old, new in OLD_ATTENTION_NAMES.items():
        tensors = {key.replace(f".{old}.", f".{new}."): value for key, value in tensors.items()}
    fill(unet, tensors, source)
    return unet.eval()


def load_conditional(source: Source, groups: int = 32) -> UNet2DModel:
    """The authors' UNet that is conditioned on the class, in fp32 and eval mode, on the CPU.

    It is used as ours are (`encode`, `positives.conditional_samples`), with their noise schedule.

    Args:
        source: their file, or a state dict of it.
        groups: of its group norms, which no tensor tells.

    Raises:
        WeightsError: not found, damaged, or another network.
    """
    return conditional_from_authors(read_tensors(source), source, groups)


def weights_digest(source: str) -> str:
    """SHA-256 of the weights and settings that `load_diffusion(source)` reads, wherever they lie.

    Args:
        source: a Hub name, whose files are fetched if need be, a folder or a file.

    Raises:
        WeightsError: not found, damaged, or a UNet that `encode` cannot cut.
    """
    path = _find(source)
    digest = hashlib.sha256(path.read_bytes())
    if FIRST_TENSOR in read_tensors(path):
        digest.update(json.dumps(_config(path.parent), sort_keys=True).encode())
    return digest.hexdigest()


def unet_misfit(source: str, size: int) -> str:
    """Why the UNet that `load_diffusion(source)` reads cannot work on images of `size` pixels.

    Returns:
        One sentence; empty if it can.

    Raises:
        WeightsError: not found, damaged, or a UNet that `encode` cannot cut.
    """
    path = _find(source)
    tensors = read_tensors(path)
    if FIRST_TENSOR in tensors:
        trained_on = _config(path.parent).get("sample_size")
        levels = len({key.split(".")[1] for key in tensors if key.startswith("down_blocks.")})
    else:
        trained_on = None  # no tensor tells
        levels = len(authors_settings(tensors, source)["block_out_channels"])
    if trained_on and trained_on not in (size, [size, size]):
        return (
            f"data.size={size}: the UNet of {source!r} was trained on images of {trained_on} "
            f"pixels a side; use that size."
        )
    return _too_deep(source, levels, size)


def conditional_misfit(source: str, size: int, n_classes: int) -> str:
    """Why the UNet of `load_conditional(source)` cannot make images of `size` pixels and classes.

    Returns:
        One sentence; empty if it can.

    Raises:
        WeightsError: not found, damaged, or another network.
    """
    settings = conditional_settings(read_tensors(source), source)
    known = settings["num_class_embeds"] - 1
    if known != n_classes:
        return f"{source!r} knows {known} classes, and the images are of {n_classes}."
    return _too_deep(source, len(settings["block_out_channels"]), size)


def _too_deep(source: str, levels: int, size: int) -> str:
    misfit = UNetShape(channels=(8,) * levels).misfit(size)
    return f"{source!r}: {misfit}." if misfit else ""


def _find(source: str) -> Path:
    """The file with the weights, fetched from the Hub if need be."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        if not is_hub_name(source):
            raise WeightsError(
                f"{source!r} is neither a file, nor a folder, nor a Hub name (owner/name)."
            )
        path = _download(source)
    folder = path / "unet" if (path / "unet" / "config.json").is_file() else path
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{str(folder)!r} has no weights, neither {' nor '.join(WEIGHT_FILES)}.")


def _download(name: str) -> Path:
    """The folder of `name` in the Hub's cache."""
    for weights in WEIGHT_FILES:  # the second is fetched only where the first does not exist
        files = [f"{folder}{file}" for file in (weights, "config.json") for folder in ("", "unet/")]
        files += [SCHEDULE, f"scheduler/{SCHEDULE}"]
        try:
            path = Path(snapshot_download(name, allow_patterns=files))
        except Exception as error:  # the network may throw anything
            raise WeightsError(
                f"{name!r} is neither a folder here nor in the Hub's cache, and could not be "
                f"fetched from the Hub ({type(error).__name__})."
            ) from None
        if any((path / file).is_file() for file in files[:2]):
            break
    return path


def _config(folder: Path) -> dict[str, Any]:
    """The settings of the UNet2DModel in a folder, if `encode` and `decode` support them.

    A folder of diffusers tells how images were noised, too: beside the weights or, if these are one
    part of a pipeline, in another part.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        found = [
            f"{key}={config[key]!r} instead of {value!r}"
            for key, value in SUPPORTED_CONFIG.items()
            if config.get(key, value) != value
        ]
        blocks = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        raise WeightsError(f"{str(folder)!r} has no readable config.json of diffusers.") from None
    # The images of these blocks go round the middle.
    found += [str(block) for block in blocks if str(block).startswith("Skip")]
    if found:
        raise WeightsError(f"{str(folder)!r}: {', '.join(found)} is not covered.")
    places = [up / part / SCHEDULE for up in (folder, folder.parent) for part in ("", "scheduler")]
    if path := next(filter(Path.is_file, places), None):
        _refuse_another_schedule(path)
    return config


def _refuse_another_schedule(path: Path) -> None:
    try:
        schedule = json.loads(path.read_text())
        found = [
            f"{key}={schedule.get(key)!r} instead of {value!r}"
            for key, value in SUPPORTED_SCHEDULE.items()
            # Files of the first versions leave out what did not exist then.
            if schedule.get(key, None if key in BETAS else value) != value
        ]
    except (OSError, ValueError, AttributeError):
        raise WeightsError(f"{str(path)!r} is no readable {SCHEDULE} of diffusers.") from None
    if found:
        raise WeightsError(
            f"{str(path)!r}: the UNet was trained with {', '.join(found)}, so what it predicts is "
            f"of no use here; take one with DDPM's schedule that predicts the noise."
        )
