"""Several processes, one result: `accelerate launch` starts them, one a GPU (`torchrun` on CPUs).

Each process holds every `world`-th row of each batch, from its `rank` on, and draws the random
numbers that the whole batch would draw. What the loss needs from the others is gathered in the order
of the whole batch, so that all processes compute the same loss, and one process would compute it too.
With one process nothing here does anything.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn

from clsp_utils.artifacts import Artifact, Store, StoreError


def state() -> PartialState:
    """What accelerate knows of this process: its device, its number, how many there are."""
    return PartialState(cpu=not torch.accelerator.is_available())


def rank() -> int:
    return state().process_index


def world() -> int:
    return state().num_processes


def say(text: str) -> None:
    """Prints it once, not once a process."""
    if rank() == 0:
        print(text, flush=True)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        distributed.all_gather(parts, x.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad.unflatten(0, (-1, world()))[:, rank()]


def gather(x: Tensor) -> Tensor:
    """Rows `(n, ...)` of all processes in the order of the whole batch, `(n * world, ...)`.

    Carries gradients: with the same loss computed by every process, `average_gradients` turns what
    arrives into the gradient of that loss.
    """
    return _Gather.apply(x) if world() > 1 else x


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each gradient becomes its mean over the processes."""
    if world() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world()


def mean(x: Tensor) -> Tensor:
    """The mean of a number over the processes; no gradient."""
    return gather(x.detach().reshape(1)).mean()


def synchronise_batch_norm(net: nn.Module) -> nn.Module:
    """Batch norm over the whole batch on GPUs; on CPUs torch has none, and each process has its own."""
    if world() > 1 and torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return net


def wait_for_all() -> None:
    state().wait_for_everyone()


class SharedStore(Store):
    """A store that all processes ask at once: the first leads, the others join in what it builds."""

    def get(
        self, stage: str, config: dict, build: Callable[[Path, Path], Any], inputs: tuple[str, ...] = ()
    ) -> Artifact:
        if world() == 1:
            return super().get(stage, config, build, inputs)
        if rank() == 0:

            def lead(out: Path, work: Path) -> None:
                _tell(str(work))
                build(out, work)

            try:
                super().get(stage, config, lead, inputs)
            finally:
                _tell(None)
        else:
            while (work := _tell(None)) is not None:
                with tempfile.TemporaryDirectory() as out:  # the leader's files are the ones that stay
                    build(Path(out), Path(work))
        artifact = self.find(stage, config, inputs)
        if artifact is None:
            raise StoreError(f"{stage}: the leading process did not finish it.")
        return artifact


def _tell(message: str | None) -> str | None:
    """What the first process says arrives at all."""
    box = [message]
    distributed.broadcast_object_list(box)
    return box[0]
