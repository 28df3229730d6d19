"""Files that are written as a whole, locked, and safe on the disk."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

# What file systems answer that cannot bring a folder to the disk (CIFS, some FUSE).
NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


@contextmanager
def locked(lock: FileLock, on_wait: Callable[[], Any]) -> Iterator[None]:
    """Holds the lock inside; calls `on_wait()` if another process, which is alive, has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file as a whole: a reader finds the old one or the new one, never a half."""
    new = path.with_name(f".{path.name}.{uuid4().hex}.new")
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


def fsync(path: Path) -> None:
    """Returns when a file is on the disk, or a folder, where the file system can do that."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in NO_FSYNC):
            raise
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """What the system says, and of which file."""
    text = error.strerror or str(error)
    return f"{text} ({error.filename})" if error.filename else text
