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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# Of what stages compute and of how it is kept. Raise it when either changes: it is part of every
# key, so that nothing of an older version is ever used.
VERSION = 2
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
        if name not in self.manifest["sha256"]:
            raise StoreError(f"{self.path} has no file {name!r} that was verified.")
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
            raise StoreError(f"The store {self.root} cannot be written: {_reason(error)}.") from None

    @staticmethod
    def key(stage: str, config: dict, inputs: tuple[str, ...] = ()) -> str:
        """20 hex digits from version, stage, configuration and the keys of the inputs."""
        text = json.dumps([VERSION, stage, config, list(inputs)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def find(self, stage: str, config: dict, inputs: tuple[str, ...] = ()) -> Artifact | None:
        """The artifact if it is there and intact; a damaged one is named and set aside.

        Raises:
            StoreError: it is damaged and cannot be set aside.
        """
        path = self.root / stage / self.key(stage, config, inputs)
        try:
            return self._told(_read(path, stage, config, inputs))
        except _Damaged as damage:
            try:
                with _lock_of(path).acquire(timeout=0):
                    return self._find_locked(path, stage, config, inputs)
            except Timeout:
                return None  # another process is making it anew
            except OSError as error:
                raise StoreError(
                    f"{stage}/{path.name} is damaged ({damage}) and cannot be set aside: {_reason(error)}."
                ) from error

    def _find_locked(self, path: Path, stage: str, config: dict, inputs: tuple) -> Artifact | None:
        """What `find` does while the lock is held, so that nobody sets aside what another has just made."""
        try:
            return self._told(_read(path, stage, config, inputs))
        except _Damaged as damage:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            self.log(f"{stage}/{path.name} is damaged ({damage}): set aside as {aside.name}, made anew.")
            return None

    def _told(self, artifact: Artifact | None) -> Artifact | None:
        """The artifact, after a word on libraries that are not those that it was made with."""
        if artifact:
            here = _versions()
            others = [f"{n} {v} (here {here.get(n)})" for n, v in artifact.manifest["versions"].items() if here.get(n) != v]
            if others:
                self.log(f"{artifact.path.parent.name}/{artifact.key} was made with {', '.join(others)}.")
        return artifact

    def get(
        self,
        stage: str,
        config: dict,
        build: Callable[[Path, Path], Any],
        inputs: tuple[str, ...] = (),
    ) -> Artifact:
        """The artifact, built if it is missing.

        `build(out, work)` writes the result's files to `out`. What it keeps in `work` outlives a
        kill, so that a long build can go on where it was; a file `seconds` in there holds how long
        the sessions took that it goes on from. Of several processes that ask for the same artifact,
        one builds and the others wait; the lock of a dead process is free.

        Raises:
            StoreError: a file cannot be read or written, for example because the disk is full.
        """
        key = self.key(stage, config, inputs)
        path = self.root / stage / key
        out, work = (path.with_name(f".{key}.{kind}") for kind in ("new", "work"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with alone(_lock_of(path), lambda: self.log(f"{stage}/{key}: another process is making it; waiting.")):
                found = self._find_locked(path, stage, config, inputs)
                if not found:
                    if out.exists():
                        shutil.rmtree(out)
                    out.mkdir()
                    work.mkdir(exist_ok=True)
                    start = time.monotonic()
                    build(out, work)
                    seconds = time.monotonic() - start + _earlier_seconds(work)
                    _write_manifest(out, stage, config, inputs, seconds)
                    out.rename(path)
                    _fsync(path.parent)
                    found = self._find_locked(path, stage, config, inputs)
                shutil.rmtree(work, ignore_errors=True)  # if it stays, it takes room and does no harm
        except OSError as error:
            raise StoreError(f"{stage}/{key} was not made in {self.root}: {_reason(error)}.") from error
        if not found:
            raise StoreError(f"{stage}/{key} was written to {self.root} and read back as something else: check the disk.")
        return found


@contextmanager
def alone(lock: FileLock, waiting: Callable[[], Any]) -> Iterator[None]:
    """Holds the lock inside; calls `waiting()` if another process has it. A dead process has none."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file as a whole: a reader finds the old one or the new one, never a half."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _reason(error: OSError) -> str:
    """What the system says, and of which file."""
    text = error.strerror or str(error)
    return f"{text} ({error.filename})" if error.filename else text


class _Damaged(Exception):
    """What is not as it was written."""


def _read(path: Path, stage: str, config: dict, inputs: tuple) -> Artifact | None:
    """The artifact in the folder `path`, every file verified; None if there is nothing.

    Raises:
        _Damaged: something is there that must not be used.
    """
    if not os.path.lexists(path):
        return None
    wanted = {"version": VERSION, "stage": stage, "config": config, "inputs": list(inputs)}
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if not isinstance(manifest, dict) or manifest.pop("digest", None) != _digest(manifest):
            raise ValueError("its manifest is not what was written")
        for name, value in json.loads(json.dumps(wanted)).items():
            if manifest.get(name) != value:
                raise ValueError(f"its manifest describes another {name}")
        for name, digest in manifest["sha256"].items():
            if _sha256(path / name) != digest:
                raise ValueError(f"{name} is not what was written")
    except OSError as error:
        raise _Damaged(_reason(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(error) from None
    return Artifact(path, manifest)


def _earlier_seconds(work: Path) -> float:
    file = work / "seconds"
    return float(file.read_text()) if file.exists() else 0.0


def _write_manifest(out: Path, stage: str, config: dict, inputs: tuple, seconds: float) -> None:
    """Makes the files durable and records what they are."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for path in files:
        _fsync(path)
    manifest = {
        "version": VERSION,
        "stage": stage,
        "config": config,
        "inputs": list(inputs),
        "sha256": {str(path.relative_to(out)): _sha256(path) for path in files},
        "versions": _versions(),
        "machine": platform.machine(),
        "seconds": round(seconds, 3),
    }
    manifest["digest"] = _digest(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    _fsync(out / "manifest.json")
    _fsync(out)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _digest(manifest: dict) -> str:
    """Of the manifest itself, since a bit may flip there too."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
