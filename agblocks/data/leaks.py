"""Does a held-out insert also stand in the training rows, as itself or as its other strand?

Whole sequences don't show it: with adapters on, the reverse complement of a row is never a row.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .affix import common_affixes
from .construct import Construct
from .errors import DataError, count
from .sequence import reverse_complement
from .table import Table

LENTIMPRA_STRAND = r"_(?:F|Reversed:)$"
"""The id convention of the human lentiMPRA tables: `<element>_F` and `<element>_Reversed:` are the two
orientations of one element. Taken off only where a caller says so (`id_suffix=LENTIMPRA_STRAND`)."""


def inserts(table: Table, construct: Construct | None = None) -> list[str]:
    """The insert of every row: by the construct's adapters, else without the ends that all rows share.

    Errors: `DataError` listing the rows that lack the construct's adapters.
    """
    if construct is None:
        prefix, suffix = common_affixes(table.sequences)
        return [s[len(prefix) : len(s) - len(suffix)] for s in table.sequences]
    found: list[str] = []
    problems: list[str] = []
    for index, sequence in enumerate(table.sequences):
        try:
            found.append(construct.insert(sequence))
        except DataError as error:
            problems.append(f"{table.where(index)}: {error}")
    if problems:
        raise DataError(f"{count(len(problems), 'row')} without the construct's adapters", problems)
    return found


def insert_groups(table: Table, construct: Construct | None = None) -> NDArray[np.str_]:
    """One label a row, equal for equal inserts and for reverse complements.

    Shapes: (n,) text, the smaller of the two strands.
    Use when: rows are split or folded by a rule that must keep an insert on one side.
    """
    return np.array([min(s, reverse_complement(s)) for s in inserts(table, construct)], dtype=np.str_)


def elements(ids: Sequence[str], id_suffix: str | None = None) -> list[str]:
    """Ids with a regular expression taken off their end, or as they are.

    Errors: `DataError` for a pattern that is none.
    """
    if id_suffix is None:
        return list(ids)
    try:
        pattern = re.compile(f"(?:{id_suffix})\\Z" if not id_suffix.endswith("$") else id_suffix)
    except re.error as error:
        raise DataError(f"id_suffix {id_suffix!r} is no regular expression: {error}") from None
    return [pattern.sub("", name, count=1) for name in ids]


def find_leaks(
    table: Table,
    parts: Mapping[str, ArrayLike],
    *,
    construct: Construct | None = None,
    id_suffix: str | None = None,
) -> list[str]:
    """Every pair of rows in two parts that are one insert, its reverse complement, or one id; a line each.

    Without a construct, inserts are compared once whole and once without the ends that all rows share;
    declare the construct to be sure. Near copies (a variant of an insert, an overlapping window) are not
    found: keep those together by group or by genomic block.
    """
    part = _part_of(len(table), parts)
    names = elements(table.ids, id_suffix)
    rule = "same id" if id_suffix is None else "same element"
    lines: dict[tuple[int, int], str] = {}
    for texts in [inserts(table, construct), *([] if construct else [list(table.sequences)])]:
        strands: dict[str, list[int]] = defaultdict(list)
        for i, text in enumerate(texts):
            strands[min(text, reverse_complement(text))].append(i)
        for members in strands.values():
            for i, j in _across(members, part):
                same = "same insert" if texts[i] == texts[j] else "reverse complement"
                lines.setdefault((i, j), same)
    same_name: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        same_name[name].append(i)
    for name, members in same_name.items():
        for i, j in _across(members, part):
            lines.setdefault((i, j), f"{rule} {name!r}")
    return [
        f"{part[i]} {table.where(i)} and {part[j]} {table.where(j)}: {why}" for (i, j), why in sorted(lines.items())
    ]


def check_leaks(
    table: Table,
    parts: Mapping[str, ArrayLike],
    *,
    construct: Construct | None = None,
    id_suffix: str | None = None,
) -> None:
    """Raise if `find_leaks` finds any.

    parts: name -> row numbers, as `Splits.parts()` gives them.
    Errors: `DataError` listing all pairs, with file and row; also for a row that stands in two parts.
    Use when: before every training.
    """
    if leaks := find_leaks(table, parts, construct=construct, id_suffix=id_suffix):
        raise DataError(
            f"{count(len(leaks), 'pair')} of rows leak from one part into another; split by fold, by group, "
            "or keep copies together (insert_groups)",
            leaks,
        )


def _part_of(n: int, parts: Mapping[str, ArrayLike]) -> list[str]:
    """The part of each row, "" for none."""
    part = [""] * n
    for name, rows in parts.items():
        for row in np.asarray(rows, dtype=np.int64).tolist():
            if not 0 <= row < n:
                raise DataError(f"part {name!r} holds row {row}; the table has rows 0 to {n - 1}")
            if part[row] and part[row] != name:
                raise DataError(f"row {row} stands both in {part[row]!r} and in {name!r}")
            part[row] = name
    return part


def _across(members: Sequence[int], part: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of members in different parts: each one against the first member of every other part."""
    if len(members) < 2:
        return []
    first: dict[str, int] = {}
    for i in members:
        if part[i]:
            first.setdefault(part[i], i)
    if len(first) < 2:
        return []
    pairs = {(min(i, j), max(i, j)) for i in members if part[i] for name, j in first.items() if name != part[i]}
    return sorted(pairs)
