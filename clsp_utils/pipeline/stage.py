"""What a stage is: a result that is made from settings and from other stages, and kept.

A stage is declared in one place, as a class of settings with `make`. From the declaration follow
its key, its inputs, its section of the profile, its command, the time it will take and its call
in a worker process.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from clsp_utils.config import Precision, Seed, as_dict, frozen
from clsp_utils.store import Artifact, Request


@dataclasses.dataclass(frozen=True)
class Job:
    """What `make` works with.

    Attributes:
        out: folder for the files of the result.
        work: folder that outlives a kill, for what a long computation goes on from.
        get: gives an input, loaded.
        artifact: gives an input as the store keeps it.
    """

    out: Path
    work: Path
    get: Callable[["Stage"], Any]
    artifact: Callable[["Stage"], Artifact]


class Stage:
    """A result that is made once.

    A field that is a stage is an input: it is made first, and its key counts. A field with a
    default is a setting: it belongs to the section of the profile and shapes the result, unless it
    is `local`. All other fields are given by whoever asks.

    Attributes:
        kind: name of its folder in the store and of its command; a class without one is abstract.
        section: of the profile.
        version: raise it when `make` comes to compute something else.
        made: False for what is only described, such as data.
        wide: it uses all cores by itself, so that none is made beside another.
    """

    kind: ClassVar[str] = ""
    section: ClassVar[str] = ""
    version: ClassVar[int] = 1
    made: ClassVar[bool] = True
    wide: ClassVar[bool] = False
    kinds: ClassVar[dict[str, type["Stage"]]] = {}

    def __init_subclass__(cls, name: str = "", section: str = ""):
        if name:
            cls.kind, cls.section = name, (section or name).replace("-", "_")
            Stage.kinds[name] = cls

    # What a stage declares ------------------------------------------------------------------------

    def make(self, job: Job) -> None:
        """Writes the files of the result to `job.out`."""
        raise NotImplementedError

    def load(self, artifact: Artifact) -> Any:
        """The result, read from its files."""
        return artifact

    def check(self) -> None:
        """Refuses, before anything is made, what cannot be made."""

    def stand_in(self) -> Any:
        """What takes its place, before it is made, in trials of what is made from it."""
        raise NotImplementedError

    def content(self) -> dict[str, Any]:
        """What is part of the key by its content: files that others have made."""
        return {}

    @property
    def n_steps(self) -> int:
        """How many steps `make` takes that `trial` can time; 0 = too few to tell."""
        return 0

    @property
    def n_parts(self) -> int:
        """How many parts of it can be made side by side."""
        return 1

    def trial(self, job: Job, n: int) -> None:
        """Does the first n of the steps, in folders that are thrown away."""
        raise NotImplementedError

    @classmethod
    def plan(cls, profile: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Completes what a caller gives, where that takes more than the profile's section."""
        return given

    # What follows from it -------------------------------------------------------------------------

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Its section of the profile: all fields that have a default."""
        own = (f for f in _fields(cls) if f.default is not dataclasses.MISSING)
        return {
            f.name: as_dict(f.default) if dataclasses.is_dataclass(f.default) else f.default
            for f in own
        }

    @property
    def inputs(self) -> tuple["Stage", ...]:
        """The stages that this one is made from."""
        values = (getattr(self, f.name) for f in _fields(self))
        return tuple(value for value in values if isinstance(value, Stage))

    @property
    def request(self) -> Request:
        """All that shapes the result, for the store."""
        config = _shaping(self) | content_of(self)
        return Request(
            self.kind, config, tuple(one.request.key for one in self.inputs), self.version
        )


@lru_cache(maxsize=16)
def content_of(stage: Stage) -> dict[str, Any]:
    """Its `content`, of which large files are read once."""
    return stage.content()


def _fields(stage: Any) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(stage)


def _shaping(node: Any) -> Any:
    """Settings as plain values, without those that are local and without inputs."""
    if not dataclasses.is_dataclass(node):
        return node
    values = {f.name: getattr(node, f.name) for f in _fields(node) if not f.metadata.get("local")}
    return {name: _shaping(value) for name, value in values.items() if not isinstance(value, Stage)}


@frozen
class Seeded(Stage):
    """A stage that draws random numbers and computes in a precision.

    The key holds the precision that was asked for: what "auto" comes to on a machine is told by the
    manifest, so that one store serves machines with and without bf16.
    """

    seed: Seed
    precision: Precision
