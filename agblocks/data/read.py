"""From files to a `Table`, or to one list of everything that is wrong with them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from .construct import normal
from .errors import DataError, count
from .rows import FASTA, BadRow, Column, Rows, column_names, read_fasta, read_rows, suffix
from .sequence import ALPHABET, unknown_letter
from .table import Table

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Targets = Column | Sequence[Column] | Mapping[str, Column]

_LETTERS = frozenset(ALPHABET)
_MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "."})
_LARGEST = float(np.finfo(np.float32).max)


def read_table(
    paths: Paths,
    *,
    sequence: Column,
    targets: Targets,
    fold: Column | None = None,
    group: Column | None = None,
    id: Column | None = None,
    allow_missing: bool = False,
    skip_bad_rows: bool = False,
) -> Table:
    """Measured sequences from one or several TSV, CSV, txt (each may be .gz) or Parquet files, pooled.

    Columns are given by name; or by number from 1, which says that the file has no header. `targets` may map
    names to columns; numbered targets without a name are called "column2". Repeats of an id with the same
    content are dropped and counted. Without an id column, rows are called `file:line`.

    A row is bad if it has a wrong number of columns, an empty sequence or one with letters that are no IUPAC
    code, a missing, infinite or non-numeric target, no fold, group or id where that column is asked for, or
    an id that also stands for other content (then all rows of that id are bad: which is right cannot be
    known). With `allow_missing` missing targets become NaN, unless a row has none at all.

    Errors: one `DataError` that lists all bad rows with file and line, before anything else happens; with
    `skip_bad_rows` the good rows are kept, and `Table.skipped` lists the others. No good row, a missing file
    or a missing column is always an error; columns come with near names.
    Use when: training or evaluating; `read_sequences` is for prediction.
    """
    files = _paths(paths)
    named = _targets(targets)
    wanted: list[Column] = [sequence, *named.values()]
    wanted += [c for c in (fold, group, id) if c is not None]
    _check_columns(wanted)
    for path in files:
        if suffix(path) in FASTA:
            raise DataError(f"{path}: FASTA holds no targets; wanted a table (read_sequences reads FASTA)")
    unreadable: list[str] = []
    parts: list[Rows] = []
    for path in files:
        try:
            parts.append(read_rows(path, list(dict.fromkeys(wanted))))
        except DataError as error:
            unreadable += error.problems or [str(error)]
    if unreadable:
        raise DataError("the tables cannot be used", unreadable)
    reader = _Reader(files, sequence, named, fold, group, id, allow_missing)
    for rows in parts:
        reader.read(rows)
    reader.find_conflicts()
    return reader.table(skip_bad_rows)


def read_sequences(
    path: str | os.PathLike[str],
    *,
    sequence: Column | None = None,
    id: Column | None = None,
    skip_bad_rows: bool = False,
) -> Table:
    """Sequences without targets, from FASTA (.fa .fasta .fna .fas, may be .gz) or a table; targets are (n,
    0).

    In a table the sequence column is `sequence`, else the one called "sequence" or "seq" in any case. Repeats
    are kept: there is one prediction for each row of the file.
    Errors: `DataError` that lists all bad rows, as `read_table`.
    Use when: predicting.
    """
    file = os.fspath(path)
    if suffix(file) in FASTA:
        if sequence is not None or id is not None:
            raise DataError(f"{file}: FASTA has no columns; leave out the names of columns")
        rows = read_fasta(file)
        reader = _Reader([file], "sequence", {}, None, None, "id", True, unique=False)
    else:
        if sequence is None:
            sequence = _guess(file)
        _check_columns([sequence] if id is None else [sequence, id])
        rows = read_rows(file, list(dict.fromkeys([sequence] if id is None else [sequence, id])))
        reader = _Reader([file], sequence, {}, None, None, id, True, unique=False)
    reader.read(rows)
    return reader.table(skip_bad_rows)


class _Reader:
    """Collects good and bad rows over several files."""

    def __init__(
        self,
        files: list[str],
        sequence: Column,
        targets: dict[str, Column],
        fold: Column | None,
        group: Column | None,
        id: Column | None,
        allow_missing: bool,
        unique: bool = True,
    ) -> None:
        self.files, self.sequence, self.targets = files, sequence, targets
        self.labels = {"fold": fold, "group": group, "id": id}
        self.allow_missing, self.unique = allow_missing, unique
        self.good: list[tuple[str, tuple[float, ...], str, str, str, int, int]] = []
        self.bad: list[BadRow] = []
        self.first: dict[str, int] = {}
        self.clashes: dict[str, list[int]] = {}
        self.duplicates = 0
        bases = [os.path.basename(f) for f in files]
        self.short = bases if len(set(bases)) == len(bases) else files

    def read(self, rows: Rows) -> None:
        """Check every row of a file."""
        self.bad += rows.bad
        file = self.files.index(rows.file)
        sequences = rows.values[self.sequence]
        targets = [(name, rows.values[column]) for name, column in self.targets.items()]
        labels = {k: rows.values[c] for k, c in self.labels.items() if c is not None}
        for i, number in enumerate(rows.numbers):
            reasons: list[str] = []
            text = self._sequence(sequences[i], reasons)
            values = tuple(self._target(name, column[i], reasons) for name, column in targets)
            if targets and self.allow_missing and not reasons and all(map(math.isnan, values)):
                reasons.append("all targets are missing")
            label = {k: self._label(k, column[i], reasons) for k, column in labels.items()}
            name = label.get("id", "")
            if reasons:
                self.bad.append(BadRow(rows.file, number, "; ".join(reasons), name))
                continue
            if "id" not in label:
                name = f"{self.short[file]}:{number}"
            self._keep((text, values, label.get("fold", ""), label.get("group", ""), name, file, number))

    def _keep(self, row: tuple[str, tuple[float, ...], str, str, str, int, int]) -> None:
        name = row[4]
        if self.unique and self.labels["id"] is not None:
            first = self.first.setdefault(name, len(self.good))
            if first < len(self.good):
                if repr(self.good[first][:4]) == repr(row[:4]):
                    self.duplicates += 1
                    return
                self.clashes.setdefault(name, [first]).append(len(self.good))
        self.good.append(row)

    def find_conflicts(self) -> None:
        """Turn rows that share an id but not their content into bad rows."""
        out: set[int] = set()
        for name, indices in self.clashes.items():
            places = [f"{self.files[self.good[i][5]]}:{self.good[i][6]}" for i in indices]
            for i, place in zip(indices, places, strict=True):
                others = [p for p in places[:4] if p != place][:3]
                more = f" and {len(places) - 1 - len(others)} more" if len(places) - 1 > len(others) else ""
                reason = f"id {name!r} stands for other content at {', '.join(others)}{more}"
                self.bad.append(BadRow(self.files[self.good[i][5]], self.good[i][6], reason, name))
            out.update(indices)
        self.good = [row for i, row in enumerate(self.good) if i not in out]

    def table(self, skip_bad_rows: bool) -> Table:
        """What was kept; or the one error."""
        order = {f: i for i, f in enumerate(self.files)}
        bad = tuple(sorted(self.bad, key=lambda b: (order[b.file], b.row)))
        if bad and not skip_bad_rows:
            total = len(self.good) + len(bad) + self.duplicates
            raise DataError(
                f"{count(len(bad), 'bad row')} of {total:,}; mend them, or leave them out with skip_bad_rows",
                (str(b) for b in bad),
            )
        if not self.good:
            raise DataError(
                f"no good row in {', '.join(self.files)} ({count(len(bad), 'bad row')})",
                (str(b) for b in bad),
            )
        sequences, targets, folds, groups, ids, file, row = zip(*self.good, strict=True)
        return Table(
            sequences=sequences,
            targets=np.array(targets, dtype=np.float32).reshape(len(sequences), len(self.targets)),
            target_names=tuple(self.targets),
            ids=ids,
            fold=None if self.labels["fold"] is None else np.array(folds, dtype=np.str_),
            group=None if self.labels["group"] is None else np.array(groups, dtype=np.str_),
            files=tuple(self.files),
            file=np.array(file, dtype=np.int64),
            row=np.array(row, dtype=np.int64),
            duplicates=self.duplicates,
            skipped=bad,
        )

    def _sequence(self, value: Any, reasons: list[str]) -> str:
        text = normal(value.strip()) if isinstance(value, str) else ""
        if not text:
            reasons.append(f"column {self.sequence!r}: empty sequence")
        elif not _LETTERS.issuperset(text):
            place, letter = cast(tuple[int, str], unknown_letter(value.strip()))
            reasons.append(f"column {self.sequence!r}, position {place}: unknown letter {letter!r}")
        return text

    def _target(self, name: str, value: Any, reasons: list[str]) -> float:
        where = f"column {self.targets[name]!r}"
        text = "" if value is None else str(value).strip()
        if text.lower() in _MISSING:
            if not self.allow_missing:
                reasons.append(f"{where}: missing target" + (f" ({text!r})" if text else ""))
            return math.nan
        try:
            number = float("x" if "_" in text else text)
        except ValueError:
            reasons.append(f"{where}: target {_clip(text)!r} is not a number")
            return math.nan
        if not abs(number) <= _LARGEST:
            reasons.append(f"{where}: target {_clip(text)!r} is not finite in float32")
            return math.nan
        return number

    def _label(self, kind: str, value: Any, reasons: list[str]) -> str:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = "" if value is None else str(value).strip()
        if not text or (isinstance(value, float) and math.isnan(value)):
            reasons.append(f"column {self.labels[kind]!r}: no {kind}")
        return text


def _paths(paths: Paths) -> list[str]:
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [os.fspath(p) for p in listed]
    if not files:
        raise DataError("no file to read: found an empty list, wanted at least one path")
    if len(set(files)) < len(files):
        raise DataError(f"a file is named twice: {', '.join(f for f in files if files.count(f) > 1)}")
    return files


def _targets(targets: Targets) -> dict[str, Column]:
    if isinstance(targets, Mapping):
        named = dict(targets)
    else:
        listed: Iterable[Column] = [targets] if isinstance(targets, (str, int)) else targets
        pairs = [(c if isinstance(c, str) else f"column{c}", c) for c in listed]
        named = dict(pairs)
        if len(named) < len(pairs):
            raise DataError(f"a target is named twice: {', '.join(n for n, _ in pairs)}")
    if not named:
        raise DataError("no target: found an empty list, wanted at least one column")
    return named


def _check_columns(columns: Sequence[Column]) -> None:
    numbers = [c for c in columns if isinstance(c, int)]
    if numbers and len(numbers) < len(columns):
        raise DataError(
            f"columns are given both by name and by number: {list(columns)}; "
            "give all by name (the file has a header) or all by number from 1 (it has none)"
        )


def _guess(file: str) -> str:
    names = column_names(file)
    for name in names:
        if name.casefold() in ("sequence", "seq"):
            return name
    raise DataError(f"{file}: which column holds the sequence? There are {', '.join(map(repr, names[:20]))}")


def _clip(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
