"""What every training loop shares: learning rate and log."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 in `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def warmup_constant(step: int, warmup: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 in `warmup` steps, then 1."""
    return min(1.0, (step + 1) / (warmup + 1))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of all parameters, times the `lr_factor` of a group that has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def write_log(
    path: Path,
    step: int,
    per_epoch: int,
    losses: Tensor,
    lr: Callable[[int], float],
    further: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Rewrites a CSV with a row per epoch, the last of which ends after `step`.

    Columns: epoch, mean loss, learning rate at its end, and the further ones, where NaN is left
    empty.

    Args:
        losses: `(steps,)`, the loss of every step.
        further: name -> `(epochs,)`.
    """
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("epoch", "loss", "lr", *further))
        for epoch, start in enumerate(range(0, step + 1, per_epoch)):
            last = min(start + per_epoch - 1, step)
            more = ("" if x[epoch].isnan() else f"{x[epoch]:.4f}" for x in further.values())
            loss = losses[start : last + 1].mean()
            rows.writerow((epoch + 1, f"{loss:.5f}", f"{lr(last):.6g}", *more))
