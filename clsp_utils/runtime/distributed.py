"""Several processes, one result: `accelerate launch` starts them, one per GPU (`torchrun` on CPUs).

Each process holds its `Share` of each batch and draws the random numbers that the whole batch would
draw. What the loss needs from the others is gathered in the order of the whole batch, so that all
processes compute the same loss, and one process would compute it too.
"""

import atexit
import os
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn

# What a launcher tells each of its processes; without all of it there is nobody to wait for.
LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What MPI tells, which accelerate would take for the same.
OF_MPI = ("PMI_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@cache
def state() -> PartialState:
    """What accelerate knows of this process: its device, its number, how many there are.

    A GPU of a Mac is taken only if CLSP_DEVICE is "mps": nothing here is tested on one. What a
    scheduler has left in the environment of a process that was not launched is ignored.
    """
    if not _is_launched():
        for name in (*LAUNCHED, *OF_MPI):
            os.environ.pop(name, None)
    if not os.environ.get("OMP_NUM_THREADS", "1").isdecimal():  # accelerate would stumble over it
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    here = PartialState(cpu=not torch.cuda.is_available() and not _wants_mps())
    if here.num_processes > 1:  # else its threads may outlive the interpreter, which then aborts
        atexit.register(here.destroy_process_group)
    return here


def _is_launched() -> bool:
    """Whether a launcher started this process as one of several; a notebook's kernel never is."""
    numbers = [os.environ.get(name, "") for name in LAUNCHED[:3]]
    complete = all(os.environ.get(name) for name in LAUNCHED)
    return (
        "ipykernel" not in sys.modules
        and complete
        and all(number.isdecimal() for number in numbers)
        and int(numbers[0]) > 1
    )


def _wants_mps() -> bool:
    return os.environ.get("CLSP_DEVICE") == "mps" and torch.backends.mps.is_available()


def print_once(text: str) -> None:
    """Prints it once, not once per process."""
    if state().is_main_process:
        print(text, flush=True)


def wait_for_all() -> None:
    """Returns when every process has come here."""
    state().wait_for_everyone()


def broadcast(message: Any) -> Any:
    """What the first process says arrives at all."""
    box = [message]
    distributed.broadcast_object_list(box)
    return box[0]


def synchronise_batch_norm(net: nn.Module) -> nn.Module:
    """Batch norm over the whole batch on GPUs; on CPUs, where torch has none, over own rows."""
    if state().num_processes > 1 and torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return net


class Share:
    """One process's share of a batch: every `world`-th row, from `rank` on. With one, all of it."""

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world

    def rows(self, x: Any) -> Any:
        """The rows `(N / world, ...)` of a whole batch `(N, ...)` that are this process's."""
        return x[self.rank :: self.world]

    def gather(self, z: Tensor) -> Tensor:
        """Rows `(n, ...)` of all processes in the order of the whole batch, `(n * world, ...)`.

        Carries gradients: with the same loss computed by every process, `average_gradients` turns
        what arrives into the gradient of that loss.
        """
        return _Gather.apply(z, self) if self.world > 1 else z

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each gradient becomes its mean over the processes."""
        if self.world > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.world

    def mean(self, x: Tensor) -> Tensor:
        """The mean of a number over the processes; no gradient."""
        return self.gather(x.detach().reshape(1)).mean()


ALONE = Share()


def my_share() -> Share:
    """The share of this process among those that were launched with it."""
    return Share(state().process_index, state().num_processes)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Share) -> Tensor:
        ctx.share = share
        parts = [torch.empty_like(x) for _ in range(share.world)]
        distributed.all_gather(parts, x.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        distributed.all_reduce(grad)
        return grad.unflatten(0, (-1, ctx.share.world))[:, ctx.share.rank], None
