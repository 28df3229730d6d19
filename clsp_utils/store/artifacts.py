"""A store of results, each under a key made from exactly what shaped it.

An artifact is a folder `<stage>/<key>` with its files and a `manifest.json`. It appears under its
name only when it is complete, and its files are verified when they are read.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from clsp_utils.store.files import fsync, locked, reason

FORMAT = 3  # of what is on the disk; part of every key, so that nothing of another one is ever used
LIBRARIES = ("torch", "torchvision", "diffusers", "scikit-learn", "numpy")


class StoreError(RuntimeError):
    """The store cannot be read or written; the message says where and why."""


class Request(NamedTuple):
    """All that shapes a result.

    Attributes:
        stage: name of what makes it.
        config: its settings, in JSON's types.
        inputs: keys of the results that it is made from.
        version: of the stage's own computation.
    """

    stage: str
    config: dict
    inputs: tuple[str, ...] = ()
    version: int = 1

    @property
    def key(self) -> str:
        """20 hex digits."""
        text = json.dumps([FORMAT, *self], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def described(self) -> dict:
        """As it is in the manifest."""
        return json.loads(json.dumps({"format": FORMAT} | self._asdict()))

    def __str__(self) -> str:
        return f"{self.stage}/{self.key}"


@dataclass(frozen=True)
class Artifact:
    """A finished, verified result; `artifact / "name"` is the path of one of its files."""

    path: Path
    manifest: dict

    @property
    def key(self) -> str:
        return self.path.name

    def __truediv__(self, name: str) -> Path:
        if name not in self.manifest["sha256"]:
            raise StoreError(f"{self.path} has no file {name!r} that was verified.")
        return self.path / name


class Store:
    """Artifacts below `root`; makes the folder, and refuses one that cannot be written.

    Files are verified once per store and as long as nobody touches them: a bank may be large.
    """

    def __init__(self, root: Path, log: Callable[[str], None] = print):
        self.root, self.log = Path(root), log
        self._verified: dict[Path, list] = {}
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=".writable-", dir=self.root):
                pass
        except OSError as error:
            raise StoreError(f"The store {self.root} cannot be written: {reason(error)}.") from None

    def find(self, request: Request) -> Artifact | None:
        """The artifact if it is there and intact; a damaged one is named and set aside.

        Raises:
            StoreError: it is damaged and cannot be set aside.
        """
        path = self._path(request)
        try:
            found = self._read(request)
        except _Damaged as damage:
            try:
                with _lock_of(path).acquire(timeout=0):
                    return self._find_locked(request)
            except Timeout:
                return None  # another process is making it anew
            except OSError as error:
                raise StoreError(
                    f"{request} is damaged ({damage}) and cannot be set aside: {reason(error)}."
                ) from error
        work = _beside(path, "work")
        if found and work.exists():  # its owner was killed as it was about to remove it
            with suppress(Timeout, OSError), _lock_of(path).acquire(timeout=0):
                shutil.rmtree(work, ignore_errors=True)
        return found

    def get(
        self,
        request: Request,
        build: Callable[[Path, Path], Any],
        notes: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """The artifact, built if it is missing.

        `build(out, work)` writes the result's files to `out`. What it keeps in `work` outlives a
        kill, so that a long build can go on where it was; a file `seconds` in there holds how long
        the sessions took that it goes on from. Of several processes that ask for the same artifact,
        one builds and the others wait; the lock of a dead process is free. The manifest of what is
        built has `notes` besides, which are no part of the key.

        Raises:
            StoreError: a file cannot be read or written, for example because the disk is full.
        """
        path = self._path(request)
        out, work = _beside(path, "new"), _beside(path, "work")
        wait = f"{request}: another process is making it; waiting."
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(_lock_of(path), lambda: self.log(wait)):
                found = self._find_locked(request)
                if not found:
                    if out.exists():
                        shutil.rmtree(out)
                    out.mkdir()
                    work.mkdir(exist_ok=True)
                    start = time.monotonic()
                    build(out, work)
                    seconds = time.monotonic() - start + _earlier_seconds(work)
                    _write_manifest(out, request, {**(notes or {}), "seconds": round(seconds, 3)})
                    out.rename(path)
                    fsync(path.parent)
                    found = self._find_locked(request)
                shutil.rmtree(
                    work, ignore_errors=True
                )  # if it stays, it takes room and does no harm
        except OSError as error:
            raise StoreError(f"{request} was not made in {self.root}: {reason(error)}.") from error
        if not found:
            raise StoreError(
                f"{request} was written to {self.root} and read back as something else: check the "
                f"disk."
            )
        return found

    def _path(self, request: Request) -> Path:
        return self.root / request.stage / request.key

    def _find_locked(self, request: Request) -> Artifact | None:
        """As `find`, with the lock held, so that nobody sets aside what another has just made."""
        try:
            return self._read(request)
        except _Damaged as damage:
            path = self._path(request)
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            self.log(f"{request} is damaged ({damage}): set aside as {aside.name}, made anew.")
            return None

    def _read(self, request: Request) -> Artifact | None:
        """The artifact, every file verified; None if there is nothing.

        Raises:
            _Damaged: something is there that must not be used.
        """
        path = self._path(request)
        if not os.path.lexists(path):
            return None
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            if not isinstance(manifest, dict) or manifest.pop("digest", None) != _digest(manifest):
                raise ValueError("its manifest is not what was written")
            for name, value in request.described.items():
                if manifest.get(name) != value:
                    raise ValueError(f"its manifest describes another {name}")
            state = [_state(path / name) for name in ("manifest.json", *manifest["sha256"])]
            if self._verified.get(path) != state:
                for name, digest in manifest["sha256"].items():
                    if _sha256(path / name) != digest:
                        raise ValueError(f"{name} is not what was written")
                self._verified[path] = state
                self._tell_other_versions(request, manifest)
        except OSError as error:
            raise _Damaged(reason(error)) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Damaged(error) from None
        return Artifact(path, manifest)

    def _tell_other_versions(self, request: Request, manifest: dict) -> None:
        """A word on libraries that are not those that an artifact was made with."""
        here = _versions()
        others = [
            f"{name} {made} (here {here.get(name)})"
            for name, made in manifest["versions"].items()
            if here.get(name) != made
        ]
        if others:
            self.log(f"{request} was made with {', '.join(others)}.")


def _beside(path: Path, kind: str) -> Path:
    """A hidden neighbour of an artifact: its "lock", or its files while it is made."""
    return path.with_name(f".{path.name}.{kind}")


def _lock_of(path: Path) -> FileLock:
    return FileLock(_beside(path, "lock"))


class _Damaged(Exception):
    """Something is not as it was written."""


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when somebody writes to a file."""
    info = path.stat()
    return info.st_ino, info.st_size, info.st_mtime_ns


def _earlier_seconds(work: Path) -> float:
    file = work / "seconds"
    return float(file.read_text()) if file.exists() else 0.0


def _write_manifest(out: Path, request: Request, notes: Mapping[str, Any]) -> None:
    """Makes the files durable and records what they are."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for path in files:
        fsync(path)
    manifest = {
        **request.described,
        "sha256": {str(path.relative_to(out)): _sha256(path) for path in files},
        "versions": _versions(),
        "machine": platform.machine(),
        **notes,
    }
    manifest["digest"] = _digest(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    fsync(out / "manifest.json")
    fsync(out)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _digest(manifest: dict) -> str:
    """Digest of the manifest; a bit may flip there too."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
