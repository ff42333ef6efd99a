"""Files that are there whole or not at all, and locks."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import AgblocksError


@contextmanager
def beside(file: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """A new name in a file's folder to write to, which in the end is flushed to the disk and renamed onto the file.

    After an exception the file is as it was, and what was written is gone. No two writers get one name: threads,
    processes and machines that share the folder keep apart. suffix: what the name ends in, for writers that go by it.
    """
    path = Path(file)
    part = path.parent / f".{uuid.uuid4().hex}.part{suffix}"
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
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        raise error(f"{file}: cannot be written: {getattr(reason, 'strerror', None) or reason}") from None


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether this process alone holds a folder, or a file that is made for it; let go of however the process ends.

    Nothing is taken away: a lock on what is gone would hold nobody off. Errors: `OSError` where it cannot be opened, or
    the file system knows no locks (over a network, none of folders).
    """
    handle = os.open(path, os.O_RDONLY) if path.is_dir() else os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except BlockingIOError:
            mine = False
        yield mine
    finally:
        os.close(handle)
