"""The cache of features: a folder of shards, whose index is rebuilt from them; or memory, of the same interface.

Writers don't know of each other: each shard has a name of its own and appears by a rename, so that there is nothing to
lock, and nothing that a killed process could leave behind but a file that nobody reads. Two that compute the same rows
write them twice, and either copy is right.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import WorkError
from .shard import PART, SUFFIX, Damaged, Shard, open_shard, write_shard

STALE = 3600.0  # seconds after which a part of another machine's is nobody's


class Gone(WorkError):
    """Rows that were there, and are not any more: pruned, or damaged. They are computed again by `extract`."""


class NoRoom(WorkError):
    """The limit of a store is too small for what is to be kept."""


class Keeps(Protocol):
    """What `extract` needs of a cache."""

    def missing(self, space: str, keys: Sequence[bytes]) -> list[int]:
        """Which of the keys (by place) have no sound row."""

    def get(self, space: str, keys: Sequence[bytes]) -> Tensor:
        """Shapes: n keys, at least one, of rows of one shape -> (n, ...). Errors: `Gone`."""

    def put(self, space: str, described: Mapping[str, Any], keys: Sequence[bytes], values: Tensor) -> None:
        """Keep rows. Shapes: n keys, values (n, ...)."""

    def room(self, needed: int) -> None:
        """See that so many bytes have room. Errors: `NoRoom` where they cannot have it."""


@dataclass
class _Index:
    """What is known of one space: its open shards, where each key's row is, files that were looked at."""

    shards: list[Shard] = field(default_factory=list)
    rows: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


class Store:
    """Features kept in a folder, which any number of processes may read and write at once.

    folder/<space>/<name>.safetensors; a space is one tap of one model on one construct (`key.space`).
    limit: bytes that the folder may come to, None for any number. Room is made by removing what was not used for
        longest; what this process uses stays.
    problems: files that are not used, and why: cut, changed, foreign. `prune` removes those that are shards of ours.
    Errors: `WorkError` where the folder cannot be written; `NoRoom` where the limit is too small.
    """

    def __init__(self, folder: str | Path, limit: int | None = None):
        self.folder = Path(folder)
        self.limit = limit
        self.problems: dict[Path, str] = {}
        self._spaces: dict[str, _Index] = {}
        self._used: set[Path] = set()
        if limit is not None and (type(limit) is not int or limit < 0):
            raise WorkError(f"the limit is {limit!r}; wanted a number of bytes from 0, or None")

    def missing(self, space: str, keys: Sequence[bytes]) -> list[int]:
        """As `Keeps`; looks for what other processes wrote, and compares the checksum of every row that is there."""
        index = self._refreshed(space)
        self._sound(index, {key for key in keys if key in index.rows})
        return [place for place, key in enumerate(keys) if key not in index.rows]

    def get(self, space: str, keys: Sequence[bytes]) -> Tensor:
        index = self._spaces.get(space) or self._refreshed(space)
        self._sound(index, {key for key in keys if key in index.rows})
        if absent := sum(key not in index.rows for key in keys):
            raise Gone(f"{self.folder}: {absent} of {len(keys)} rows are not there any more (pruned, or damaged)")
        places = np.array([index.rows[key] for key in keys], dtype=np.int64)
        used = np.unique(places[:, 0]).tolist()
        first = index.shards[used[0]]
        shapes = {(index.shards[number].shape, index.shards[number].dtype) for number in used}
        if len(shapes) > 1:
            raise WorkError(f"rows of different shapes ({', '.join(str(list(s)) for s, _ in shapes)}); ask by length")
        if len(used) == 1:
            return first.values(places[:, 1])
        out = torch.empty((len(keys), *first.shape), dtype=first.dtype)
        for number in used:
            own = np.flatnonzero(places[:, 0] == number)
            out[torch.from_numpy(own)] = index.shards[number].values(places[own, 1])
        return out

    def put(self, space: str, described: Mapping[str, Any], keys: Sequence[bytes], values: Tensor) -> None:
        try:
            path = write_shard(self.folder / space, space, described, keys, values)
        except OSError as error:
            raise WorkError(f"{self.folder}: features cannot be written: {error.strerror}") from None
        self._open(path, space, self._spaces.setdefault(space, _Index()))

    def room(self, needed: int) -> None:
        if self.limit is None:
            return
        self.prune(max(0, self.limit - needed))
        if (held := self.size()) + needed > self.limit:
            raise NoRoom(
                f"{self.folder}: {_bytes(needed)} of features are to be kept, but the limit is {_bytes(self.limit)}"
                f"{f' and {_bytes(held)} are in use' if held else ''}; fewer taps, a pool, half precision or a higher "
                "limit would do"
            )

    def size(self) -> int:
        """Bytes of all shards in the folder."""
        return sum(size for _, _, size in self._files())

    def prune(self, most: int | None = None) -> int:
        """Remove what is damaged, what writers left that were killed, and shards until so many bytes are left.

        Those go first that were not used for longest; those that this process uses stay. Returns the bytes removed.
        Safe while others read and write: a file that is open stays readable, a row that is gone is computed again.
        """
        removed = self._leftovers()
        for path in [path for path, why in self.problems.items() if path.suffix == SUFFIX and why != "foreign"]:
            removed += _remove(path)
            del self.problems[path]
        if most is not None:
            files = sorted(self._files(), key=lambda file: file[1])
            held = sum(size for _, _, size in files)
            for path, _, size in files:
                if held > most and path not in self._used:
                    removed += _remove(path)
                    held -= size
        return removed

    def _refreshed(self, space: str) -> _Index:
        index = self._spaces.setdefault(space, _Index())
        there = {entry.name for entry in _entries(self.folder / space) if entry.name.endswith(SUFFIX)}
        here = {shard.path.name for shard in index.shards}
        if here - there:  # somebody pruned: look again from the start
            index = self._spaces[space] = _Index()
        for name in sorted(there - index.seen):
            self._open(self.folder / space / name, space, index)
        return index

    def _open(self, path: Path, space: str, index: _Index) -> None:
        index.seen.add(path.name)
        try:
            shard = open_shard(path, space)
        except Damaged as error:
            self.problems[path] = str(error)
            return
        index.shards.append(shard)
        for row, key in enumerate(shard.keys):
            index.rows.setdefault(key, (len(index.shards) - 1, row))

    def _sound(self, index: _Index, keys: set[bytes]) -> None:
        """Compare checksums of rows, and drop from the index what fails. The shards count as used."""
        by_shard: dict[int, list[int]] = {}
        for key in keys:
            number, row = index.rows[key]
            by_shard.setdefault(number, []).append(row)
        for number, rows in by_shard.items():
            shard = index.shards[number]
            if shard.path not in self._used:
                self._used.add(shard.path)
                _touch(shard.path)
            for row in shard.damaged(np.array(rows, dtype=np.int64)).tolist():
                self.problems[shard.path] = f"changed: row {row} is not as it was written"
                del index.rows[shard.keys[row]]

    def _files(self) -> Iterator[tuple[Path, float, int]]:
        for space in _entries(self.folder):
            for entry in _entries(space):
                if entry.suffix == SUFFIX:
                    try:
                        found = entry.stat()
                    except OSError:
                        continue  # pruned by somebody else
                    yield entry, found.st_mtime, found.st_size

    def _leftovers(self) -> int:
        """Remove parts whose writer is dead, or that are older than any write takes."""
        removed = 0
        for space in _entries(self.folder):
            for entry in _entries(space):
                if entry.suffix == PART and _orphan(entry):
                    removed += _remove(entry)
        return removed


class Memory:
    """The same interface over a dictionary: features of this process alone."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[bytes, Tensor]] = {}

    def missing(self, space: str, keys: Sequence[bytes]) -> list[int]:
        held = self._rows.get(space, {})
        return [place for place, key in enumerate(keys) if key not in held]

    def get(self, space: str, keys: Sequence[bytes]) -> Tensor:
        held = self._rows.get(space, {})
        try:
            return torch.stack([held[key] for key in keys])
        except KeyError:
            raise Gone("rows that were never computed") from None

    def put(self, space: str, described: Mapping[str, Any], keys: Sequence[bytes], values: Tensor) -> None:
        self._rows.setdefault(space, {}).update(zip(keys, values.detach().cpu(), strict=True))

    def room(self, needed: int) -> None:
        pass


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _orphan(part: Path) -> bool:
    host, _, pid = part.name.removesuffix(PART).partition(".")[2].partition(".")[2].rpartition(".")
    try:
        if host == socket.gethostname() and pid.isdigit():
            os.kill(int(pid), 0)
            return False
        return time.time() - part.stat().st_mtime > STALE
    except ProcessLookupError:
        return True
    except OSError:
        return False


def _remove(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError:
        return 0
    return size


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # of another user, or gone: the index is not built on it
        os.utime(path)


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB"
