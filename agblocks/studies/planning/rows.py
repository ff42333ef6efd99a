"""The measured rows of a study, by name: read once, with a checksum; their parts by fold, and fewer of them by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import Construct, Splits, Table, insert_groups, simulate_mpra, split_by_fold
from ...data.draw import keys
from ...data.simulate import MOTIFS, Pair
from ...errors import near
from ...training.sources import Source, read_construct, read_data, stripping
from ..errors import WorkError
from .cell import digest

_PERMUTE, _SUBSET = 200, 201  # streams of draws, beside those of agblocks.data.draw
SIMULATE = ("n", "length", "seed", "ceiling", "gc", "sites", "folds", "paired", "rules")
RULES = ("both", "motifs", "pairs")
PAIR = ("CREB", "ETS")  # of `rules: pairs`
_SOURCE = ("sequence", "fold", "group", "id", "skip_bad_rows", "allow_missing")


@dataclass(frozen=True)
class Rows:
    """A table, the construct around its inserts, and a checksum of everything in it."""

    table: Table
    construct: Construct
    sha256: str
    id_suffix: str | None = None

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Every length that an assembled sequence has, ascending."""
        return tuple(sorted({len(self.construct.assemble(sequence)) for sequence in self.table.sequences}))

    @cached_property
    def inserts(self) -> NDArray[np.str_]:
        """Each row's insert, the same text for both strands of one. Shapes: (rows,)."""
        return insert_groups(self.table, stripping(self.construct))

    @cached_property
    def key(self) -> str:
        """Of rows and construct together."""
        return digest([self.sha256, self.construct.to_dict()])

    @property
    def folds(self) -> list[str]:
        """Names of the folds, in their order."""
        assert self.table.fold is not None
        return sorted(set(self.table.fold.tolist()), key=lambda f: (len(f), f))


def described(values: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """A `data:` entry in plain values that mean the same from every folder.

    Errors: `WorkError` for values of the wrong form.
    """
    made = dict(values)
    for key in ("data", "targets"):
        if key in made:
            made[key] = [made[key]] if isinstance(made[key], str) else list(made[key])
    for key in ("sequence", "fold", "group", "id"):
        if key in made:
            made[key] = str(made[key])
    made["targets"] = [str(t) for t in made.get("targets", [])]
    if "data" in made:
        made["data"] = [_path(str(name), folder) for name in made["data"]]
    if str(made.get("construct", "")).endswith(".json"):
        made["construct"] = _path(made["construct"], folder)
    if (permute := made.get("permute")) is not None and (type(permute) is not int or permute < 0):
        raise WorkError(f"permute is {permute!r}; wanted a seed, a whole number from 0")
    if "simulate" in made:
        _check_simulate(made["simulate"])
    return made


def read_rows(spec: Mapping[str, Any]) -> Rows:
    """The rows of a described entry, with folds; kept in memory, as many cells ask for the same.

    Errors: `DataError` and `RunError` as `training.read_data`; `WorkError` for a simulation's arguments.
    """
    import json

    return _read(json.dumps(spec, sort_keys=True))


def forget() -> None:
    """Let go of what was read: files may have changed since."""
    _read.cache_clear()


@lru_cache(maxsize=16)
def _read(text: str) -> Rows:
    import json

    spec = json.loads(text)
    construct = read_construct(str(spec.get("construct", "none")))
    suffix = None
    if "simulate" in spec:
        table = _simulated(spec["simulate"])
        if spec["targets"]:
            raise WorkError("a simulated assay has one target, 'activity'; leave targets out")
    else:
        options = {key: spec[key] for key in _SOURCE if key in spec}
        source = Source(data=tuple(spec["data"]), targets=tuple(spec["targets"]), **options)
        table, suffix = read_data(source, construct), source.id_suffix
    if spec.get("permute") is not None:
        table = permuted(table, spec["permute"])
    return Rows(table, construct, _sum(table), suffix)


def permuted(table: Table, seed: int) -> Table:
    """Measurements dealt to other rows of the same fold: nothing is left to learn, everything else is as it was."""
    assert table.fold is not None
    targets = table.targets.copy()
    for name in sorted(set(table.fold.tolist())):
        rows = np.flatnonzero(table.fold == name)
        targets[rows] = table.targets[rows[np.argsort(keys(seed, 0, rows, _PERMUTE))]]
    return replace(table, targets=targets)


def parts(
    rows: Rows, test: Sequence[str], valid: Sequence[str], size: int | float | str = "all", seed: int = 0
) -> Splits:
    """Training, validation and test rows; of the training rows as many as asked for.

    size: all, a number, or a fraction. Smaller sets of one seed lie in larger ones of the same seed.
    Errors: `DataError` as `split_by_fold`; `WorkError` for more rows than there are.
    """
    splits = split_by_fold(rows.table, valid=list(valid), test=list(test))
    if size == "all":
        return splits
    there = len(splits.train)
    wanted = size if isinstance(size, int) else round(float(size) * there)
    if not 0 < wanted <= there:
        raise WorkError(f"rows: {size} of {there} training rows; wanted 1 to {there}, or a fraction of them, or all")
    order = np.argsort(keys(seed, 0, splits.train, _SUBSET), kind="stable")
    return replace(splits, train=np.sort(splits.train[order[:wanted]]))


def _path(name: str, folder: Path | None) -> str:
    """A file beside the study by its whole path; everything else as it is."""
    beside = (folder / name) if folder is not None else Path(name)
    return str(beside.resolve()) if beside.is_file() else str(Path(name).resolve()) if Path(name).is_file() else name


def _check_simulate(values: Any) -> None:
    if not isinstance(values, Mapping):
        raise WorkError(f"simulate maps {', '.join(SIMULATE)} to values, not {values!r}")
    for key in values:
        if key not in SIMULATE:
            raise WorkError(f"simulate has no {key!r}; {near(str(key), SIMULATE)}")
    if values.get("rules", "both") not in RULES:
        raise WorkError(f"simulate: rules is {values['rules']!r}; {near(str(values['rules']), RULES)}")
    for key in set(values) - {"rules"}:
        value, whole = values[key], key in ("n", "length", "seed", "folds")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value >= 0:
            wanted = "a whole number" if whole else "a number"
            raise WorkError(f"simulate: {key} is {value!r}; wanted {wanted} from 0")


def _simulated(values: Mapping[str, Any]) -> Table:
    """A simulated assay. `rules`: motifs count, each by itself; only a pair counts; or both, as `simulate_mpra` has it.

    Of `pairs`, every sequence gets its two motifs, neither a palindrome: on one strand they act together, on different
    strands they do nothing. So how often a motif stands there, on either strand, says nothing of the activity.
    """
    arguments = {"n": 1000, **{key: value for key, value in values.items() if key != "rules"}}
    rules = values.get("rules", "both")
    if rules == "motifs":
        return simulate_mpra(**arguments, pairs=())[0]
    if rules == "both":
        return simulate_mpra(**arguments)[0]
    motifs = tuple(replace(motif, weight=0.0) for motif in MOTIFS if motif.name in PAIR)
    return simulate_mpra(**{"sites": 0.0, "paired": 1.0, **arguments}, motifs=motifs, pairs=(Pair(*PAIR, 1.5, 0.0),))[0]


def _sum(table: Table) -> str:
    """A checksum of every row: sequence, targets, fold and id."""
    digest = hashlib.sha256("\t".join(table.target_names).encode())
    digest.update("\n".join(table.sequences).encode())
    digest.update("\n".join(table.ids).encode())
    if table.fold is not None:
        digest.update("\n".join(table.fold.tolist()).encode())
    digest.update(table.targets.astype("<f4").tobytes())
    return digest.hexdigest()
