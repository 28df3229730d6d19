"""Makes stages, each after what it is made from, and keeps them in a store."""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from clsp_utils.config import home
from clsp_utils.pipeline.stage import Job, Stage
from clsp_utils.runtime import device, my_share, print_once, resolve_precision, workers
from clsp_utils.store import Artifact, Store, StoreError
from clsp_utils.store.shared import SharedStore


class Cost(NamedTuple):
    """How long stages of a kind, and of a method if they have one, will take on this machine."""

    stage: str
    runs: int
    minutes: float


class Pipeline:
    """Stages and the store that they are kept in.

    Args:
        announce: whether a few steps are timed before a long stage, to say how long it will take.
        log: says what happens.
    """

    def __init__(self, store: Store, announce: bool, log: Callable[[str], None] = print_once):
        self.store, self.announce, self.log = store, announce, log

    def artifact(self, stage: Stage) -> Artifact:
        """The result as the store keeps it; made, with all that it needs, if it is missing.

        Raises:
            StoreError: a file cannot be read or written.
        """
        request = stage.request
        found = self.store.find(request)
        if found:
            return found
        stage.check()
        for one in stage.inputs:
            if one.made:
                self.artifact(one)
        if self.announce and stage.n_steps:
            self._tell_time(stage, 1)
        notes = {"device": str(device())}
        if precision := getattr(stage, "precision", ""):
            notes["precision"] = resolve_precision(precision)
        return self.store.get(
            request, lambda out, work: stage.make(Job(out, work, self.get, self.artifact)), notes
        )

    def get(self, stage: Stage) -> Any:
        """The result, loaded."""
        return stage.load(self.artifact(stage))

    def get_all(self, stages: Sequence[Stage], what: str) -> list[Any]:
        """The results of several stages, made side by side, one process per core."""
        missing = [stage for stage in stages if not self.store.find(stage.request)]
        for stage in missing:
            self._make_wide(stage)
        if workers.count(len(missing)) > 1:  # else they are made where they are asked for
            several = [one for stage in missing for one in (stage, *stage.inputs) if one.n_steps]
            long = [one for one in dict.fromkeys(several) if not self.store.find(one.request)]
            if self.announce and long:
                self._tell_time(long[-1], len(long))
            workers.side_by_side(_make, [(stage,) for stage in missing], what)
        return [self.get(stage) for stage in stages]

    def _make_wide(self, stage: Stage) -> None:
        """Makes those inputs of a missing stage, and theirs, that use all cores by themselves."""
        for one in stage.inputs:
            if one.wide:
                self.artifact(one)
            elif not self.store.find(one.request):
                self._make_wide(one)

    def missing(self, stages: Sequence[Stage]) -> dict[str, list[Stage]]:
        """What takes long and is missing of some stages, with all that they need.

        Returns:
            Kind, and method if they have one -> the stages of that name, in the order in which they
            have to be made.
        """
        missing: dict[Stage, None] = {}
        for stage in stages:
            self._add_missing(stage, missing)
        alike: dict[str, list[Stage]] = {}
        for stage in missing:
            if stage.n_steps:
                name = f"{stage.kind} {getattr(stage, 'method', '')}".rstrip()
                alike.setdefault(name, []).append(stage)
        return alike

    def estimate(self, stages: Sequence[Stage]) -> list[Cost]:
        """How long what is missing of some stages, with all that they need, will take here.

        Nothing is made: a few steps of each kind are timed, from stand-ins of what they need.
        """
        return [
            Cost(name, len(same), self._seconds(same[-1], len(same), self._get_or_stand_in) / 60)
            for name, same in self.missing(stages).items()
        ]

    def _add_missing(self, stage: Stage, missing: dict[Stage, None]) -> None:
        """Adds a stage that is not in the store, after what of its inputs is not."""
        if stage.made and stage not in missing and not self.store.find(stage.request):
            stage.check()
            for one in stage.inputs:
                self._add_missing(one, missing)
            missing[stage] = None

    def _tell_time(self, stage: Stage, n: int) -> None:
        """Says how long n stages like this one will take here."""
        minutes = self._seconds(stage, n, self.get) / 60
        text = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(minutes, 0.1):.1f} min"
        gigabytes = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0
        memory = f", {gigabytes:.1f} GB of GPU memory" if gigabytes else ""
        many = f"{n} x " if n > 1 else ""
        self.log(f"{many}{stage.kind}: about {text} on this machine{memory}")

    def _seconds(self, stage: Stage, n: int, get: Callable[[Stage], Any]) -> float:
        """How long n stages like this one will take here, from the first steps of one.

        What does not fit into memory ends here.

        Args:
            get: gives what it is made from.
        """
        try:
            # The first warms up.
            seconds = [self._time_trial(stage, steps, get) for steps in (1, 1, 4)]
        except torch.OutOfMemoryError:
            raise StoreError(
                f"{stage.kind} does not fit into the memory of this GPU: lower its batch."
            ) from None
        total = n * max(0.0, seconds[2] - seconds[1]) / 3 * stage.n_steps
        launched = min(stage.n_parts, my_share().world)  # processes that share its parts
        return total / max(launched, workers.count(n * stage.n_parts))

    def _time_trial(self, stage: Stage, n: int, get: Callable[[Stage], Any]) -> float:
        """Seconds of the first n steps; in a folder of its own, where no checkpoint shortens it."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            stage.trial(Job(Path(folder), Path(folder), get, self.artifact), n)
            return time.monotonic() - start

    def _get_or_stand_in(self, stage: Stage) -> Any:
        found = self.store.find(stage.request)
        return stage.load(found) if found else stage.stand_in()


def _make(stage: Stage) -> None:
    pipeline_of_worker().artifact(stage)


def pipeline_of_worker() -> Pipeline:
    """One for all jobs of a worker process, which says nothing."""
    return _pipeline_at(home("artifacts"))


@cache
def _pipeline_at(root: Path) -> Pipeline:
    return Pipeline(SharedStore(root, lambda text: None), announce=False, log=lambda text: None)
