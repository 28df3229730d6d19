"""A store of results, each under a key made from exactly what shaped it.

An artifact is a folder `<stage>/<key>` with its files and a `manifest.json`. It appears under its
name only when it is complete, and its files are verified each time it is opened.
"""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LIBRARIES = ("torch", "torchvision", "diffusers", "scikit-learn", "numpy")


class StoreError(RuntimeError):
    """The store cannot be read or written; the message says where and why."""


@dataclass(frozen=True)
class Artifact:
    """A finished, verified result; `artifact / "name"` is the path of one of its files."""

    path: Path
    manifest: dict

    @property
    def key(self) -> str:
        return self.path.name

    def __truediv__(self, name: str) -> Path:
        return self.path / name


class Store:
    """Artifacts below `root`; makes the folder, and refuses one that cannot be written."""

    def __init__(self, root: Path, log: Callable[[str], None] = print):
        self.root, self.log = Path(root), log
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(f"The store {self.root} cannot be written: {error.strerror or error}.") from None

    @staticmethod
    def key(stage: str, config: dict, inputs: tuple[str, ...] = ()) -> str:
        """20 hex digits from stage, configuration and the keys of the inputs."""
        text = json.dumps([stage, config, list(inputs)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def find(self, stage: str, config: dict, inputs: tuple[str, ...] = ()) -> Artifact | None:
        """The artifact if it is there and intact; a damaged one is named and set aside."""
        path = self.root / stage / self.key(stage, config, inputs)
        if not path.exists():
            return None
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            wanted = json.loads(json.dumps({"config": config, "inputs": list(inputs)}))
            if {name: manifest[name] for name in wanted} != wanted:
                raise ValueError("its manifest describes another configuration")
            for name, digest in manifest["sha256"].items():
                if _sha256(path / name) != digest:
                    raise ValueError(f"{name} is not what was written")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            self.log(f"{stage}/{path.name} is damaged ({error}): set aside as {aside.name}, made anew.")
            return None
        return Artifact(path, manifest)

    def get(
        self,
        stage: str,
        config: dict,
        build: Callable[[Path, Path], Any],
        inputs: tuple[str, ...] = (),
    ) -> Artifact:
        """The artifact, built if it is missing.

        `build(out, work)` writes the result's files to `out`. What it keeps in `work` outlives a
        kill, so that a long build can go on where it was. Of several processes that ask for the
        same artifact, one builds and the others wait; the lock of a dead process is free.

        Raises:
            StoreError: the folder cannot be written, for example because the disk is full.
        """
        key = self.key(stage, config, inputs)
        path = self.root / stage / key
        out, work = (path.with_name(f".{key}.{kind}") for kind in ("new", "work"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_name(f".{key}.lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.log(f"{stage}/{key}: another process is making it; waiting.")
                lock.acquire()
            try:
                found = self.find(stage, config, inputs)
                if found:
                    return found
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                work.mkdir(exist_ok=True)
                start = time.monotonic()
                build(out, work)
                _write_manifest(out, stage, config, inputs, time.monotonic() - start)
                out.rename(path)
                _fsync(path.parent)
                shutil.rmtree(work, ignore_errors=True)
            finally:
                lock.release()
        except OSError as error:
            raise StoreError(f"{stage}/{key} cannot be written to {self.root}: {error.strerror or error}.") from error
        return self.find(stage, config, inputs)


def _write_manifest(out: Path, stage: str, config: dict, inputs: tuple, seconds: float) -> None:
    """Makes the files durable and records what they are."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for path in files:
        _fsync(path)
    manifest = {
        "stage": stage,
        "config": config,
        "inputs": list(inputs),
        "sha256": {str(path.relative_to(out)): _sha256(path) for path in files},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "machine": platform.machine(),
        "seconds": round(seconds, 3),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    _fsync(out / "manifest.json")
    _fsync(out)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
