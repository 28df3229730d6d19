"""Files of trained weights: written as safetensors, read from what others have trained.

Files are data here, never programs: a `.pt` is read with `weights_only=True`, and one that holds
Python objects is refused.
"""

import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clsp_utils.config import ConfigError
from clsp_utils.runtime.checkpoint import Diverged, all_finite

Source = str | Path | Mapping[str, Any]
Tensors = dict[str, Tensor]

# Training scripts put the weights under these keys; averaged weights (EMA) come first, because they
# are meant for use.
WRAPPERS = ("ema", "ema_model", "state_dict", "model", "net_model")


class WeightsError(ConfigError):
    """Pretrained weights that cannot be used; the message names them and the reason."""


def save_weights(net: nn.Module, path: Path, advice: str = "the learning rate") -> None:
    """Writes the tensors of a trained network as safetensors; they are then on the disk.

    Not with safetensors' own `save_file`, which hides what the system said when a disk is full.

    Raises:
        Diverged: a tensor is not finite; nothing is written.
    """
    state = {name: x.contiguous() for name, x in net.state_dict().items()}
    if not all_finite(state.values()):
        raise Diverged(f"The trained weights are not finite numbers: lower {advice}.")
    with open(path, "wb") as file:
        file.write(safetensors.torch.save(state))
        file.flush()
        os.fsync(file.fileno())


def source_name(source: Source) -> str:
    """What an error message calls a source."""
    return "The dictionary" if isinstance(source, Mapping) else repr(str(source))


def read_tensors(source: Source) -> Tensors:
    """The tensors of a file or state dict, by name.

    Wrapping dictionaries are opened, and prefixes of DataParallel and torch.compile are dropped.

    Raises:
        WeightsError: not a file, damaged, with Python objects in it, or not tensors by name.
    """
    state = source if isinstance(source, Mapping) else _read(Path(source))
    while isinstance(state, Mapping) and (
        inner := [state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)]
    ):
        state = inner[0]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise WeightsError(
            f"{source_name(source)} holds no state dict, which is tensors by name, plain or under "
            f"{', '.join(WRAPPERS)}."
        )
    return {re.sub(r"^((module|_orig_mod)\.)+", "", key): value for key, value in state.items()}


def _read(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"{str(path)!r} is not a file.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{str(path)!r} is damaged or holds Python objects, which are refused because they can "
            f"run code."
        ) from None
    except Exception as error:  # damaged bytes make the readers fail in any way
        raise WeightsError(
            f"{str(path)!r} is damaged or no file of weights ({type(error).__name__})."
        ) from None


def fill(
    net: nn.Module, tensors: Tensors, source: Source, rename: Callable[[str], str] = str
) -> None:
    """Copies tensors into a network, whose tensors they must fit one by one.

    Args:
        source: where the tensors come from, for the error message.
        rename: turns a name of `net` into the name in `tensors`.

    Raises:
        WeightsError: a tensor is unknown, missing or of another shape.
    """
    own = {rename(key): value for key, value in net.state_dict().items()}
    problems = {
        "unknown": [key for key in tensors if key not in own],
        "missing": [key for key in own if key not in tensors],
        "of another shape": [
            f"{key}: {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
            for key, value in own.items()
            if key in tensors and tensors[key].shape != value.shape
        ],
    }
    found = [
        f"{len(keys)} {problem} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for problem, keys in problems.items()
        if keys
    ]
    if found:
        raise WeightsError(
            f"{source_name(source)} does not fit {type(net).__name__}; tensors: {', '.join(found)}."
        )
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])
