"""One file of cached features: rows of one shape, with their keys and checksums.

A shard is a safetensors file of three tensors: `keys` (rows, 16), `sums` (rows,), a CRC-32 of each row, and `values`
(rows, ...). safetensors rather than Arrow: it holds bfloat16, it is one block of bytes behind a header in JSON, so rows
are read where they lie, and it is already the form of every other file of ours. A row's checksum is compared when the
row is first read, the table of keys when the file is opened: nothing is read twice, and damage costs one row.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .key import ROW, raw

FORMAT = "agblocks-features"
VERSION = 1
SUFFIX, PART = ".safetensors", ".part"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
}  # fmt: skip
_LONGEST_HEADER = 1 << 20


class Damaged(Exception):
    """A file that is no whole shard of ours; the message says why."""


@dataclass
class Shard:
    """An open shard: its keys in memory, its values mapped."""

    path: Path
    keys: list[bytes] = field(repr=False)
    dtype: torch.dtype
    shape: tuple[int, ...]  # of one row
    _sums: NDArray[np.uint32] = field(repr=False)
    _bytes: NDArray[np.uint8] = field(repr=False)  # (rows, bytes of a row), mapped
    _good: NDArray[np.bool_] = field(repr=False)

    def damaged(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of these rows don't have the checksum that they were written with."""
        unread = np.unique(rows[~self._good[rows]])
        for row in unread.tolist():
            self._good[row] = zlib.crc32(self._bytes[row].data) == self._sums[row]
        return unread[~self._good[unread]]

    def values(self, rows: NDArray[np.int64]) -> Tensor:
        """Shapes: (n,) rows, checked before -> (n, *shape), a copy."""
        taken = torch.from_numpy(np.ascontiguousarray(self._bytes[rows]))
        return taken.view(self.dtype).reshape(len(rows), *self.shape)


def write_shard(folder: Path, space: str, described: Mapping[str, Any], keys: Sequence[bytes], values: Tensor) -> Path:
    """Write rows beside, then rename: the file is there whole or not at all. Every shard has a name of its own.

    Shapes: keys n of 16 bytes, values (n, ...). Not flushed to the disk: what a power cut tears is found by its
    checksums, and computed again.
    """
    from safetensors.torch import save

    values = values.detach().to("cpu").contiguous()
    rows = raw(values).reshape(len(keys), -1)
    sums = np.array([zlib.crc32(row.data) for row in rows], dtype=np.int64)
    table = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), ROW)
    content = {"version": VERSION, "space": space, "document": described, "index": _index_sum(table, sums, values)}
    tensors = {"keys": torch.from_numpy(table.copy()), "sums": torch.from_numpy(sums), "values": values}
    packed = save(tensors, metadata={FORMAT: json.dumps(content, sort_keys=True)})
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    beside = folder / f".{name}.{socket.gethostname()}.{os.getpid()}{PART}"
    try:
        beside.write_bytes(packed)
        os.replace(beside, folder / f"{name}{SUFFIX}")
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return folder / f"{name}{SUFFIX}"


def open_shard(path: Path, space: str) -> Shard:
    """Open a shard of one space. Raises Damaged, with the reason, for anything else than a whole one of ours."""
    try:
        mapped = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise Damaged(f"cannot be read: {error}") from None
    content, entries, start = _header(mapped)
    if content.get("version") != VERSION or type(content.get("document")) is not dict:
        raise Damaged(f"of another format than version {VERSION}")
    if content.get("space") != space:
        raise Damaged("of another tap or other weights than its folder's")
    keys, sums = (_block(mapped, entries, name, start) for name in ("keys", "sums"))
    entry = entries["values"]
    dtype, shape = DTYPES.get(entry["dtype"]), tuple(entry["shape"])
    rows = len(keys) // ROW
    table = keys.reshape(rows, ROW)
    checks = sums.view(np.int64)
    if dtype is None or not shape or shape[0] != rows or len(checks) != rows:
        raise Damaged("its parts don't fit together")
    size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    values = _block(mapped, entries, "values", start)
    if len(values) != rows * size:
        raise Damaged("its parts don't fit together")
    if content.get("index") != _index_sum(table, checks, (entry["dtype"], shape)):
        raise Damaged("its table of keys was changed")
    return Shard(
        path, [row.tobytes() for row in table], dtype, shape[1:], checks.astype(np.uint32),
        values.reshape(rows, size), np.zeros(rows, dtype=np.bool_),
    )  # fmt: skip


def _header(mapped: NDArray[np.uint8]) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Our content, safetensors' entries, and where the tensors begin."""
    if len(mapped) < 8:
        raise Damaged("cut short")
    length = int.from_bytes(mapped[:8].tobytes(), "little")
    if length > _LONGEST_HEADER:
        raise Damaged("not a shard of features")
    if len(mapped) < 8 + length:
        raise Damaged("cut short")
    try:
        entries = json.loads(mapped[8 : 8 + length].tobytes())
        content = json.loads(entries.pop("__metadata__")[FORMAT])
        parts = [entries[name] for name in ("keys", "sums", "values")]
        numbers = [number for part in parts for number in (*part["data_offsets"], *part["shape"])]
        ends = [part["data_offsets"][1] for part in parts]
        good = all(type(part["dtype"]) is str and len(part["data_offsets"]) == 2 for part in parts)
        good &= type(content) is dict and all(type(n) is int and n >= 0 for n in numbers) and len(entries) == 3
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise Damaged("not a shard of features")
    if len(mapped) != 8 + length + max(ends):
        raise Damaged("cut short" if len(mapped) < 8 + length + max(ends) else "longer than it says")
    return content, entries, 8 + length


def _block(mapped: NDArray[np.uint8], entries: Mapping[str, Any], name: str, start: int) -> NDArray[np.uint8]:
    first, last = entries[name]["data_offsets"]
    block: NDArray[np.uint8] = mapped[start + first : start + last]
    if len(block) % {"keys": ROW, "sums": 8}.get(name, 1):
        raise Damaged("its parts don't fit together")
    return block


def _index_sum(table: NDArray[np.uint8], sums: NDArray[np.int64], values: Tensor | tuple[str, tuple[int, ...]]) -> str:
    if isinstance(values, Tensor):
        values = next(name for name, dtype in DTYPES.items() if dtype == values.dtype), tuple(values.shape)
    digest = hashlib.sha256(f"{values[0]} {list(values[1])} ".encode())
    digest.update(table.tobytes() + sums.tobytes())
    return digest.hexdigest()
