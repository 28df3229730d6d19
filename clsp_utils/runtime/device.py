"""Device and precision."""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clsp_utils.runtime.distributed import state

# "fp32" means it: where convolutions could be rounded to TF32, bf16 is there too, and faster.
torch.backends.cudnn.allow_tf32 = False
# cuDNN sums some gradients in no fixed order, unless told so; a resumed run would end elsewhere.
torch.backends.cudnn.deterministic = True


def resolve_precision(precision: str) -> str:
    """What "auto" comes to: "bf16" where the hardware multiplies bf16 natively, else "fp32"."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if native() else "fp32"


def device() -> torch.device:
    """The device of this process, as accelerate finds it."""
    return state().device


def autocast(where: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast on a device for "bf16" (or "auto", where the hardware has it); else none.

    Not accelerate's own, which fixes one precision for the whole process.
    """
    enabled = resolve_precision(precision) == "bf16"
    return torch.autocast(where.type, torch.bfloat16, enabled=enabled)


def to_device(net: nn.Module) -> nn.Module:
    """`net` on the device; on CUDA with channels last.

    In bf16 its matrix units read images in that order, and each convolution with another turns its
    input, its weights and its result over.
    """
    order = torch.channels_last if device().type == "cuda" else torch.preserve_format
    return net.to(device(), memory_format=order)


def upload(x: Tensor, where: torch.device) -> Tensor:
    """`x` on a device; to CUDA through pinned memory, so that the copy runs beside other work."""
    return (x.pin_memory() if where.type == "cuda" else x).to(where, non_blocking=True)


def compiled_on_cuda(function: Callable) -> Callable:
    """`function`, fused by torch.compile when a tensor it gets is on a CUDA device.

    Not on CPUs, where compiling takes longer than it saves, nor without Triton, which it needs.
    """

    @functools.cache
    def fast() -> Callable:
        return torch.compile(function) if importlib.util.find_spec("triton") else function

    @functools.wraps(function)
    def choose(*args: Any, **named: Any) -> Any:
        tensors = (*args, *named.values())
        on_cuda = any(isinstance(value, Tensor) and value.is_cuda for value in tensors)
        return (fast() if on_cuda else function)(*args, **named)

    return choose


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread inside, on a CPU; what it had comes back.

    A small network gains little from a second thread; a second job beside it gains all of it. And
    what is always computed with one thread does not depend on how many jobs run side by side.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
