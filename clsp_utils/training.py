"""What every long loop shares: random numbers, device and precision, learning rate, checkpoints.

Random numbers come from generators that are made anew for each step from (seed, names, step). The
step is thus the only position that a loop has, and a resumed run draws what an unbroken one draws.
"""

import csv
import functools
import hashlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from clsp_utils import processes


SAVING = 20  # times as long as a save takes, so much time passes before the next one at least
EXPLODED = 100  # times the first loss, or times 1 where that is less

# "fp32" means it: where convolutions could be rounded to TF32, bf16 is there too, and faster.
torch.backends.cudnn.allow_tf32 = False


class Diverged(RuntimeError):
    """Loss or weights are not finite any more, or beyond reason; the last good checkpoint is kept."""


def seed_for(*names: Any) -> int:
    """A 63-bit seed from any printable names, for example `seed_for(0, "views", step)`."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*names: Any, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_for(*names))


def resolve_precision(precision: str) -> str:
    """"auto" becomes "bf16" where the hardware multiplies bf16 natively, else "fp32"."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if native() else "fp32"


def device() -> torch.device:
    """The device of this process, as accelerate finds it."""
    return processes.state().device


def autocast(where: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast on a device, or none for "fp32".

    Not accelerate's own, which fixes one precision for the whole process.
    """
    return torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16")


def upload(x: Tensor, where: torch.device) -> Tensor:
    """`x` on a device; to CUDA through pinned memory, so that the copy runs beside the computation."""
    return (x.pin_memory() if where.type == "cuda" else x).to(where, non_blocking=True)


def compiled_on_cuda(function: Callable) -> Callable:
    """`function`, fused by torch.compile when a tensor it gets is on a CUDA device.

    Not on CPUs, where compiling takes longer than it saves, nor without Triton, which it needs.
    """
    fast = functools.cache(lambda: torch.compile(function) if importlib.util.find_spec("triton") else function)

    @functools.wraps(function)
    def choose(*args: Any, **named: Any) -> Any:
        on_cuda = any(isinstance(value, Tensor) and value.is_cuda for value in (*args, *named.values()))
        return (fast() if on_cuda else function)(*args, **named)

    return choose


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 in `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def write_log(
    path: Path, step: int, per_epoch: int, losses: Tensor, lr: Callable[[int], float], scores: Sequence[float] = ()
) -> None:
    """Rewrites a CSV with a row an epoch, the last of which ends after `step`.

    Columns: epoch, mean loss, learning rate at its end, and of `scores` (-1 = none) the one of the epoch.
    """
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("epoch", "loss", "lr", "knn")[: 4 if len(scores) else 3])
        for epoch, start in enumerate(range(0, step + 1, per_epoch)):
            last = min(start + per_epoch - 1, step)
            score = [f"{x:.4f}" if x >= 0 else "" for x in scores[epoch : epoch + 1]]
            rows.writerow((epoch + 1, f"{losses[start : last + 1].mean():.5f}", f"{lr(last):.6g}", *score))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def all_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def save_weights(net: torch.nn.Module, path: Path) -> None:
    """Writes the tensors of a trained network as safetensors, unless they are not finite.

    Not with safetensors' own `save_file`, which hides what the system said when a disk is full.
    """
    state = net.state_dict()
    if not all_finite(state.values()):
        raise Diverged("The trained weights are not finite numbers: lower the learning rate.")
    path.write_bytes(safetensors.torch.save(state))


class Checkpoint:
    """The tensors of a loop in one file, replaced as a whole, never half-written.

    Args:
        folder: where the file lives; it is made if missing. A checkpoint of another folder is not
            accepted: the store names its folders by all that shapes the loop.
        parts: name -> object with `state_dict` and `load_state_dict`.
        records: name -> tensor that the loop fills; "losses" holds the loss of every step.
        every: seconds between two saves; more where a network is so large that saving took over a
            twentieth of that.
    """

    def __init__(self, folder: Path, parts: dict[str, Any], records: dict[str, Tensor], every: float = 15.0):
        self.path, self.parts, self.records, self.every = folder / "checkpoint", parts, records, every
        folder.mkdir(parents=True, exist_ok=True)
        self.start = self.last = time.monotonic()
        self.earlier = 0.0  # seconds of the sessions that this one goes on from

    def restore(self) -> int:
        """Loads the last checkpoint, if there is an intact one; returns the step to go on with."""
        step = 0
        if self.path.exists():
            try:
                state = self._read()
            except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
                os.replace(self.path, self.path.with_suffix(".damaged"))
                print(f"{self.path} is damaged ({error}): set aside, the stage starts anew.")
            else:
                for name, part in self.parts.items():
                    part.load_state_dict(state[name])
                for name, record in self.records.items():
                    record.copy_(state[name])
                step, self.earlier = state["step"], state["seconds"]
        (self.path.parent / "seconds").write_text(str(self.earlier))  # the store adds them to its own
        return step

    def _read(self) -> dict[str, Any]:
        blob = self.path.read_bytes()
        digest, blob = blob[:32], blob[32:]
        if hashlib.sha256(blob).digest() != digest:
            raise ValueError("it is not what was written")
        tensors = safetensors.torch.load(blob)
        tree = json.loads(tensors.pop("tree").numpy().tobytes())
        state = _unflatten(tree, tensors)
        if state["folder"] != self.path.parent.name:
            raise ValueError(f"it is of {state['folder']}")
        return state

    def save(self, step: int, advice: str = "the learning rate") -> None:
        """`step` is the next step to do. Of several processes the first one writes.

        Raises:
            Diverged: something in it is not finite; the file is left as it was.
        """
        if processes.rank() > 0:
            return
        begun = time.monotonic()
        tensors: dict[str, Tensor] = {}
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= self.records | {
            "step": step, "folder": self.path.parent.name,
            "seconds": self.earlier + time.monotonic() - self.start,
        }
        tree = _flatten(state, tensors)
        if not all_finite(tensors.values()):
            raise Diverged(f"The weights are not finite numbers after step {step - 1}: lower {advice}.")
        tensors["tree"] = torch.frombuffer(bytearray(json.dumps(tree).encode()), dtype=torch.uint8)
        blob = safetensors.torch.save(tensors)
        new = self.path.with_suffix(".new")
        with open(new, "wb") as file:
            file.write(hashlib.sha256(blob).digest())
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)
        self.last = time.monotonic()
        self.every = max(self.every, SAVING * (self.last - begun))

    def after_step(self, step: int, loss: float, advice: str) -> None:
        """Saves when it is time; stops a run that has diverged."""
        exploded = step > 0 and loss > EXPLODED * max(1.0, self.records["losses"][0].item())
        if exploded or not math.isfinite(loss):
            raise Diverged(f"The loss is {loss:g} at step {step}: lower {advice}.")
        if time.monotonic() - self.last >= self.every:
            self.save(step + 1, advice)


def _flatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree with its tensors moved to `tensors` and numbered in their place."""
    if isinstance(node, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"items": [[key, _flatten(value, tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_flatten(value, tensors) for value in node]
    return node


def _unflatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if "tensor" in node:
            return tensors[node["tensor"]]
        return {key: _unflatten(value, tensors) for key, value in node["items"]}
    if isinstance(node, list):
        return [_unflatten(value, tensors) for value in node]
    return node
