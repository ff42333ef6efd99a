"""What training writes: whole files, and a checksum of sequences in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import files
from ..data import reverse_complement
from .errors import RunError


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file that is there whole or not at all. Errors: `RunError` saying why it cannot be written."""
    files.write_whole(path, content, RunError)


def insert_sum(insert: str) -> str:
    """A checksum of an insert: 16 hexadecimal digits, the same for both strands."""
    return hashlib.blake2b(min(insert, reverse_complement(insert)).encode(), digest_size=8).hexdigest()
