"""Files that are there whole or not at all, and locks."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import AgblocksError


@contextmanager
def beside(file: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """A new name in a file's folder to write to, which in the end is flushed to the disk and renamed onto the file.

    After an exception the file is as it was, and what was written is gone. No two writers get one name: threads,
    processes and machines that share the folder keep apart. suffix: what the name ends in, for writers that go by it.
    """
    path = Path(file)
    part = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex[:12]}.part{suffix}")
    try:
        yield part
        flush(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def flush(file: Path) -> None:
    """Have the disk hold what was written: an error of a full disk comes here at the latest."""
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def write_whole(file: str | os.PathLike[str], content: bytes, error: type[AgblocksError]) -> None:
    """Write a file `beside` its place. Raises `error`, saying why, if it cannot be written."""
    try:
        with beside(file) as part:
            part.write_bytes(content)
    except OSError as reason:
        raise error(f"{file}: cannot be written: {reason.strerror or reason}") from None


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Whether this process alone holds a lock: a file that is there meanwhile, let go of however the process ends.

    Errors: `OSError` where the file cannot be written, or the file system knows no locks.
    """
    handle = _taken(lock)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            lock.unlink(missing_ok=True)
            os.close(handle)


def _taken(lock: Path) -> int | None:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(lock)):
                    return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # who held it has just taken the file away
