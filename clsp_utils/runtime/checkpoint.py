"""Checkpoints: a loop that was cut off goes on to the same end, bit for bit."""

import hashlib
import io
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clsp_utils.runtime.distributed import state

MIN_INTERVAL = 20  # save at most once per 20 times the duration of a save
DIVERGED_ABOVE = 100  # times max(1, first loss)


class Diverged(RuntimeError):
    """Loss or weights are not finite, or beyond reason; the last good checkpoint is kept."""


class OutOfTime(Exception):
    """The time that a caller had is over; what was done is kept, and goes on when asked again."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds an infinite number, or none at all."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


class Checkpoint:
    """The state of a loop in one file, replaced as a whole, never half-written.

    Args:
        folder: where the file lives; it is made if missing. A checkpoint of another folder is not
            accepted: the store names its folders by all that shapes the loop.
        parts: name -> object with `state_dict` and `load_state_dict`.
        records: name -> tensor that the loop fills, NaN where it has not measured; "losses" holds
            the loss of every step.
        every: seconds between two saves; more where a network is so large that saving took over a
            twentieth of that.

    Attributes:
        stop_after: of `time.monotonic()`; a loop that comes there saves and ends with `OutOfTime`.
            Whoever has a machine for some minutes only sets it, on the class.
    """

    stop_after = math.inf

    def __init__(
        self, folder: Path, parts: dict[str, Any], records: dict[str, Tensor], every: float = 15.0
    ):
        self.path, self.parts, self.records = folder / "checkpoint", parts, records
        self.every = every
        folder.mkdir(parents=True, exist_ok=True)
        self.start = self.last = time.monotonic()
        self.earlier = 0.0  # seconds of the sessions that this one goes on from

    def restore(self) -> int:
        """Loads the last checkpoint, if there is an intact one; returns the step to go on with."""
        step = 0
        if self.path.exists():
            try:
                saved = self._read()
            except ValueError as error:
                os.replace(self.path, self.path.with_suffix(".damaged"))
                print(f"{self.path} is damaged ({error}): set aside, the stage starts anew.")
            else:
                for name, part in self.parts.items():
                    part.load_state_dict(saved[name])
                for name, record in self.records.items():
                    record.copy_(saved[name])
                step, self.earlier = saved["step"], saved["seconds"]
        (self.path.parent / "seconds").write_text(
            str(self.earlier)
        )  # the store adds them to its own
        return step

    def _read(self) -> dict[str, Any]:
        """What was saved, or a ValueError if it is not as it was written, here."""
        blob = self.path.read_bytes()
        if hashlib.sha256(blob[32:]).digest() != blob[:32]:
            raise ValueError("it is not what was written")
        saved = torch.load(io.BytesIO(blob[32:]), map_location="cpu", weights_only=True)
        if saved["folder"] != self.path.parent.name:
            raise ValueError(f"it is of {saved['folder']}")
        return saved

    def save(self, step: int, advice: str = "the learning rate") -> None:
        """`step` is the next step to do. Of several processes the first one writes.

        Raises:
            Diverged: a weight is not finite; the file is left as it was.
        """
        if not state().is_main_process:
            return
        begun = time.monotonic()
        to_save = {name: part.state_dict() for name, part in self.parts.items()}
        if not all_finite(_tensors(to_save)):
            raise Diverged(
                f"The weights are not finite numbers after step {step - 1}: lower {advice}."
            )
        to_save |= self.records | {
            "step": step,
            "folder": self.path.parent.name,
            "seconds": self.earlier + time.monotonic() - self.start,
        }
        buffer = io.BytesIO()
        torch.save(to_save, buffer)
        blob = buffer.getbuffer()
        new = self.path.with_suffix(".new")
        with open(new, "wb") as file:
            file.write(hashlib.sha256(blob).digest())
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)
        self.last = time.monotonic()
        self.every = max(self.every, MIN_INTERVAL * (self.last - begun))

    def after_step(self, step: int, loss: float, advice: str) -> None:
        """Saves when it is time; stops a run that has diverged or is out of time."""
        first = self.records["losses"][0].item()
        exploded = step > 0 and loss > DIVERGED_ABOVE * max(1.0, first)
        if exploded or not math.isfinite(loss):
            raise Diverged(f"The loss is {loss:g} at step {step}: lower {advice}.")
        out_of_time = time.monotonic() >= self.stop_after
        if out_of_time or time.monotonic() - self.last >= self.every:
            self.save(step + 1, advice)
        if out_of_time:
            raise OutOfTime(f"Stopped after step {step}; all of it is kept.")


def _tensors(node: Any) -> Iterator[Tensor]:
    """All tensors of a tree of dictionaries and lists."""
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _tensors(child)
