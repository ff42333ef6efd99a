"""Where measured rows come from, in words that a run can store: files or a public data set, columns, folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import (
    LENTIMPRA_STRAND,
    PUBLIC,
    Construct,
    Splits,
    Table,
    fold_groups,
    insert_groups,
    load,
    named_construct,
    read_table,
    simulate_mpra,
    split_by_fold,
)
from ..errors import near
from .errors import RunError

SIMULATED = "simulated"
FOLDS = 10


@dataclass(frozen=True)
class Source:
    """Measured rows: which files, which columns, which folds are held out.

    data: files, or one name of a public data set, or "simulated". Columns are needed for files only; numbers count
    from 1 in files without a header. Without a fold column ten folds are dealt by group, or by insert, so that copies
    stay together.
    """

    data: tuple[str, ...]
    sequence: str = ""
    targets: tuple[str, ...] = ()
    fold: str = ""
    group: str = ""
    id: str = ""
    valid_folds: tuple[str, ...] = ("1",)
    test_folds: tuple[str, ...] = ("0",)
    skip_bad_rows: bool = False
    allow_missing: bool = False

    @property
    def public(self) -> bool:
        """Whether this is one of our own names rather than files."""
        return len(self.data) == 1 and (self.data[0] == SIMULATED or self.data[0] in PUBLIC)

    @property
    def id_suffix(self) -> str | None:
        """What to take off ids to compare elements, where we know it."""
        return LENTIMPRA_STRAND if self.data == ("human_lentimpra_3k",) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Source:
        """What `to_dict` wrote. Errors: `RunError` where the run came from Python and names no source."""
        try:
            kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**kept)
        except TypeError:
            raise RunError("this run does not say where its rows came from; name them with --data") from None


def read_data(source: Source, construct: Construct | None = None, *, download: bool = True) -> Table:
    """The rows of a source, with folds.

    Errors: `RunError` for names that are missing; `DataError` as `data.read_table` and `data.load`.
    """
    if not source.data:
        raise RunError(f"no data: name files, or one of {', '.join([*PUBLIC, SIMULATED])}")
    if source.public:
        table = _public(source, download)
    else:
        table = _files(source)
    if table.fold is not None:
        return table
    labels = table.group if table.group is not None else insert_groups(table, stripping(construct))
    groups = len(np.unique(labels))
    return replace(table, fold=fold_groups(labels, folds=max(2, min(FOLDS, groups))))


def stripping(construct: Construct | None) -> Construct | None:
    """The construct where it says which constant ends to take off; else None, and the ends that all rows share go.

    Use when: inserts are compared: with the adapters on, a reverse complement is never found.
    """
    return construct if construct and (construct.strip_left or construct.strip_right) else None


def split(source: Source, table: Table) -> Splits:
    """The rows for training, validation and test, by the source's folds."""
    return split_by_fold(table, valid=source.valid_folds, test=source.test_folds)


def read_construct(name: str) -> Construct:
    """A construct by name (`lentimpra:adapters`), or from a JSON file as `Construct.to_dict` gives it.

    Errors: `DataError` for an unknown name or a file that holds none; `RunError` for a file that cannot be read.
    """
    if not name.endswith(".json"):
        return named_construct(name)
    import json

    try:
        return Construct.from_dict(json.loads(Path(name).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        raise RunError(f"{name}: cannot be read as a construct: {error}") from None


def _public(source: Source, download: bool) -> Table:
    if source.data == (SIMULATED,):
        table, _ = simulate_mpra(3000)
    else:
        table = load(source.data[0], download=download)
    for name in source.targets:
        if name not in table.target_names:
            raise RunError(f"{source.data[0]} has no target {name!r}; {near(name, table.target_names)}")
    if source.targets:
        columns = [table.target_names.index(name) for name in source.targets]
        table = replace(table, targets=table.targets[:, columns], target_names=source.targets)
    return table


def _files(source: Source) -> Table:
    for path in source.data:
        if not Path(path).exists() and "." not in Path(path).name and "/" not in path:
            raise RunError(f"there is no file or data set {path!r}; {near(path, [*PUBLIC, SIMULATED])}")
    missing = [option for option, value in (("sequence", source.sequence), ("targets", source.targets)) if not value]
    if missing:
        raise RunError(
            f"{', '.join(source.data)}: say which column holds the {' and which the '.join(missing)} "
            f"({', '.join('--' + option for option in missing)})"
        )
    column = lambda name: int(name) if name.isdigit() else name or None  # noqa: E731
    sequence = column(source.sequence)
    assert sequence is not None
    targets = {(f"column{t}" if t.isdigit() else t): int(t) if t.isdigit() else t for t in source.targets}
    return read_table(
        source.data,
        sequence=sequence,
        targets=targets,
        fold=column(source.fold),
        group=column(source.group),
        id=column(source.id),
        skip_bad_rows=source.skip_bad_rows,
        allow_missing=source.allow_missing,
    )
