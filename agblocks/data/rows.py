"""Rows of text and Parquet files, with the line each came from: the reading below `read_table`.

Text is read by `csv` and not by polars: polars fills short rows with nulls, cuts long ones, and forgets line
numbers, and a shifted column is exactly what has to be found. Polars reads Parquet.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, count, near

Column = str | int
"""A column by name, or by number counted from 1 in a file without a header."""

FASTA = (".fa", ".fasta", ".fna", ".fas")
_FIELD_LIMIT = 1 << 27


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. `row` is the line of a text file (the header is line 1), else the record."""

    file: str
    row: int
    reason: str
    id: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}"


@dataclass(frozen=True)
class Rows:
    """Chosen columns of one file: `values[column][i]` stands at line (Parquet: record) `numbers[i]`."""

    file: str
    numbers: list[int]
    values: dict[Column, list[Any]]
    bad: list[BadRow]


def suffix(path: str) -> str:
    """The lower-case suffix, a final `.gz` put aside."""
    name = path.lower().removesuffix(".gz")
    return Path(name).suffix


def column_names(path: str, *, header: bool = True) -> list[str]:
    """The names of a table's columns, or without header as many numbers "1", "2", ... as its first row has.

    Errors: `DataError` for a file that is missing, empty, unreadable or not text.
    """
    if suffix(path) in (".parquet", ".pq"):
        import polars as pl

        with _readable(path):
            return list(pl.read_parquet_schema(path))
    with _text(path) as handle:
        first = next(_records(path, handle), None)
    if first is None:
        raise DataError(f"{path}: the file is empty, wanted a table")
    return [name.strip() for name in first[1]] if header else [str(i + 1) for i in range(len(first[1]))]


def read_rows(path: str, columns: Sequence[Column]) -> Rows:
    """Chosen columns of a TSV, CSV, txt or Parquet file (text may be gzipped).

    Columns are all names (the file has a header) or all numbers from 1 (it has none). In text, rows with a
    wrong number of fields go to `bad`; blank lines are passed over. Values are text, or None; Parquet's own
    types are kept.
    Errors: `DataError` for a file that cannot be read and for columns it has not, with near names.
    """
    header = not any(isinstance(c, int) for c in columns)
    names = column_names(path, header=header)
    places: dict[Column, int] = {}
    wrong: list[str] = []
    for column in columns:
        try:
            places[column] = _place(path, column, names)
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError(f"{path}: {count(len(wrong), 'column')} cannot be found", wrong)
    if suffix(path) in (".parquet", ".pq"):
        return _parquet(path, [str(c) for c in columns], header)
    numbers: list[int] = []
    values: dict[Column, list[Any]] = {c: [] for c in columns}
    bad: list[BadRow] = []
    taken = [(values[c].append, place) for c, place in places.items()]
    with _text(path) as handle:
        records = _records(path, handle)
        if header:
            next(records)
        for number, fields, lines in records:
            if lines > 1:
                bad.append(BadRow(path, number, f"a quoted field runs over {lines} lines; a lone quote mark?"))
            elif len(fields) != len(names):
                bad.append(BadRow(path, number, f"found {count(len(fields), 'column')}, wanted {len(names)}"))
            else:
                numbers.append(number)
                for append, place in taken:
                    append(fields[place])
    return Rows(path, numbers, values, bad)


def read_fasta(path: str) -> Rows:
    """Records of a FASTA file (may be gzipped): columns "id" (the first word) and "sequence".

    A record's number is the line of its `>`. Text before the first `>` is a bad row.
    Errors: `DataError` for a file that cannot be read.
    """
    rows = Rows(path, [], {"id": [], "sequence": []}, [])
    parts: list[str] = []

    def close() -> None:
        if rows.numbers:
            rows.values["sequence"].append("".join(parts))
            parts.clear()

    with _text(path) as handle:
        for number, raw in enumerate(handle, 1):
            line = raw.strip()
            if line.startswith(">"):
                close()
                words = line[1:].split(maxsplit=1)
                rows.numbers.append(number)
                rows.values["id"].append(words[0] if words else "")
            elif line and not rows.numbers:
                rows.bad.append(BadRow(path, number, "text before the first '>' of a FASTA file"))
            else:
                parts.append(line)
    close()
    return rows


def _place(path: str, column: Column, names: list[str]) -> int:
    if isinstance(column, int):
        if not 1 <= column <= len(names):
            raise DataError(
                f"{path}: there is no column {column}; columns are counted from 1 to {len(names)} "
                "(a number means that the file has no header)"
            )
        return column - 1
    found = [i for i, name in enumerate(names) if name == column]
    if not found:
        raise DataError(f"{path}: there is no column {column!r}; {near(column, names)}")
    if len(found) > 1:
        raise DataError(f"{path}: the header names column {column!r} {len(found)} times")
    return found[0]


def _parquet(path: str, columns: list[str], header: bool) -> Rows:
    import polars as pl

    if not header:
        raise DataError(f"{path}: a Parquet file names its columns; found numbers {', '.join(columns)}")
    with _readable(path):
        frame = pl.read_parquet(path, columns=list(dict.fromkeys(columns)))
    values: dict[Column, list[Any]] = {c: frame[c].to_list() for c in columns}
    return Rows(path, list(range(1, frame.height + 1)), values, [])


def _records(path: str, handle: io.TextIOBase) -> Iterator[tuple[int, list[str], int]]:
    """Every record that is not blank: its first line, its fields, and how many lines it spans."""
    first = handle.readline()
    kind = suffix(path)
    tab = kind in (".tsv", ".tab") or (kind != ".csv" and "\t" in first)
    handle.seek(0)
    old = csv.field_size_limit(_FIELD_LIMIT)
    before = 0
    try:
        reader = csv.reader(handle, delimiter="\t" if tab else ",")
        for fields in reader:
            if any(f.strip() for f in fields):
                yield before + 1, fields, reader.line_num - before
            before = reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}:{before + 1}: cannot be read as a table: {error}") from None
    finally:
        csv.field_size_limit(old)


@contextmanager
def _text(path: str) -> Iterator[Any]:
    with _readable(path):
        if path.lower().endswith(".gz"):
            handle: Any = gzip.open(path, "rt", encoding="utf-8-sig", newline="")  # noqa: SIM115
        else:
            handle = open(path, encoding="utf-8-sig", newline="")  # noqa: SIM115
        with handle:
            yield handle


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; wanted TSV, CSV, FASTA (may be .gz) or .parquet") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except Exception as error:
        if type(error).__module__.startswith(("polars", "zlib")):
            raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
        raise
