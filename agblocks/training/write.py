"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..data import reverse_complement
from .errors import RunError


def write_whole(path: str | Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename. Errors: `RunError` saying why it cannot be written."""
    file = Path(path)
    beside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(f"{file}: cannot be written: {error.strerror}") from None


def insert_sum(insert: str) -> str:
    """A checksum of an insert: 16 hexadecimal digits, the same for both strands."""
    return hashlib.blake2b(min(insert, reverse_complement(insert)).encode(), digest_size=8).hexdigest()
