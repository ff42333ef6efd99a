"""Which rows a run has seen: written beside it, and asked before it is scored or trained on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import Construct, DataError, Splits, Table, inserts, reverse_complement
from .errors import RunError
from .tuning.loads import Load
from .write import write_whole

FILE = "rows.tsv"
HEAD = ("part", "id", "insert")
EARLIER = "earlier"  # the part of what the weights that a run starts from had seen


def insert_sum(insert: str) -> str:
    """A checksum of an insert: 16 hexadecimal digits, the same for both strands."""
    return hashlib.blake2b(min(insert, reverse_complement(insert)).encode(), digest_size=8).hexdigest()


def write_rows(folder: Path, table: Table, splits: Splits, construct: Construct, loads: Sequence[Load] = ()) -> None:
    """rows.tsv: which row was in which part, with a checksum of its insert; and what the weights had seen before."""
    texts = inserts(table, construct)
    lines = ["\t".join(HEAD)]
    for part, rows in splits.parts().items():
        lines += [f"{part}\t{' '.join(table.ids[i].split())}\t{insert_sum(texts[i])}" for i in rows.tolist()]
    earlier = {known for load in loads if isinstance(load.source, str) for known in seen_sums(load.source)}
    lines += [f"{EARLIER}\t\t{known}" for known in sorted(earlier)]
    write_whole(folder / FILE, ("\n".join(lines) + "\n").encode())


def seen_sums(run: str | Path) -> set[str]:
    """Checksums of the inserts that a run, or a run that it started from, trained or validated on.

    run: its folder, or the model in it; empty without a rows.tsv of ours there. Errors: `RunError` for a damaged one.
    """
    path = (Path(run).parent if Path(run).is_file() else Path(run)) / FILE
    if not path.is_file():
        return set()
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if tuple(head.split("\t")) != HEAD:
        return set()
    return {line.rpartition("\t")[2] for line in lines if line.partition("\t")[0] != "test"}


def seen(run: str | Path, table: Table, construct: Construct) -> NDArray[np.bool_]:
    """Which rows' inserts, on either strand, a run or one that it started from trained or validated on.

    Inserts are what the construct takes as such: a run on sequences with their ends on is known by such sequences.
    Shapes: n rows -> (n,); all False without a rows.tsv (a model sent alone). Errors: as `seen_sums`.
    """
    known = seen_sums(run)
    if not known:
        return np.zeros(len(table), dtype=np.bool_)
    return np.array([insert_sum(text) in known for text in inserts(table, construct)], dtype=np.bool_)


def check_seen(loads: Iterable[Load], table: Table, rows: ArrayLike, construct: Construct) -> None:
    """Weights of runs must not have seen the rows that are held out for test. Errors: `DataError`; as `seen_sums`."""
    held = table.take(np.asarray(rows, np.int64))
    for load in loads:
        if isinstance(load.source, str) and (n := int(seen(load.source, held, construct).sum())):
            raise DataError(
                f"{load.place}, or a run that it started from, was trained or validated on {n} of the {len(held)} test "
                "rows: hold out here what was held out there, or take these rows out"
            )
