"""What training writes: whole files, into folders of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .. import files
from .errors import RunError


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file that is there whole or not at all. Errors: `RunError` saying why it cannot be written."""
    files.write_whole(path, content, RunError)


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Make a folder and hold it. Errors: `RunError` where another process does, or it cannot be made.

    A file system without locks holds nobody off.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made: {error.strerror}") from None
        with suppress(OSError):
            if not stack.enter_context(files.held(folder)):
                raise RunError(f"{folder}: another process is {doing} into it")
        yield
