"""The form of a cell: which paths there are, and what may stand at each.

A cell is written as a flat mapping from paths to values. `set`, `inputs`, `head`, `transfer` and `training` are
sections: their entries are `training.lr`, `set.encoder.channels`. All that a study can vary is one of these paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any

from ...errors import near, shown
from ...graph.source import Tree
from ...training.presets import PRESETS
from ...training.settings import Settings
from ...training.tuning.transfer import Transfer

FITS = ("ridge", "gradient", "kmer")
SECTIONS = ("set", "inputs", "head", "transfer", "training")
HEAD = "head.scalar"
# Said elsewhere in a cell: the seed is the cell's own, what trains stands in `transfer`.
_NOT_TRAINING = ("seed", "tune", "unfreeze", "reinit", "rates")
TRANSFER = tuple(f.name for f in fields(Transfer))
EACH, OF_EACH = "each", ("recipe", "seed", "fold")  # a pretrained model for each of the cells that start from it
DEFAULTS: dict[str, Any] = {"fit": "gradient", "rows": "all", "seed": 0, "kmer": 6}


@cache
def head_arguments() -> tuple[str, ...]:
    """The arguments of the head that a cell may say; the number of targets follows from the data."""
    from ...graph.registry import lookup

    return tuple(name for name in lookup(HEAD).annotations if name != "targets")


@cache
def training_keys() -> tuple[str, ...]:
    """What a cell may say in `training`: the settings that are not said elsewhere, or those of a preset."""
    return ("preset", *(f.name for f in fields(Settings) if f.name not in _NOT_TRAINING))


def _rows(value: Any) -> str | None:
    whole = type(value) is int and value >= 1
    if value == "all" or whole or (type(value) is float and 0 < value < 1):
        return None
    return "wanted all, a number of rows, or a fraction between 0 and 1"


def _fold(value: Any) -> str | None:
    names = value if isinstance(value, list) else [value]
    good = names and all(isinstance(name, str | int) and not isinstance(name, bool) for name in names)
    return None if good else "wanted a fold's name, or a list of them"


def _whole(low: int, high: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        return None if type(value) is int and low <= value <= high else f"wanted a whole number from {low} to {high:,}"

    return check


def _name(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "wanted a name"


def _fit(value: Any) -> str | None:
    return None if value in FITS else near(str(value), FITS)


def _recipe(value: Any) -> str | None:
    good = isinstance(value, dict) or (isinstance(value, str) and value)
    return None if good else "wanted a recipe's name, path or form"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "data": _name, "recipe": _recipe, "fit": _fit, "tap": _name, "rows": _rows, "fold": _fold, "valid_fold": _fold,
    "seed": _whole(0, 2**62), "kmer": _whole(1, 8),
}  # fmt: skip
PATHS = (*_CHECKS, *SECTIONS)


def wrong_path(path: str) -> str | None:
    """Why this is no path of a cell, or None."""
    first, dot, rest = path.partition(".")
    if first not in PATHS:
        return f"a cell has no {shown(path)}; {near(first, PATHS)}"
    if first not in SECTIONS:
        return f"{first!r} has nothing inside, found {shown(path)}" if dot else None
    if dot and not rest:
        return f"{shown(path)} names nothing in {first!r}"
    if dot and first in ("head", "training", "transfer"):
        known = {"head": head_arguments, "training": training_keys}.get(first, lambda: TRANSFER)()
        if rest not in known:
            return f"there is no {shown(rest)} in {first!r}; {near(rest, known)}"
    return None


def wrong_value(path: str, value: Any) -> str | None:
    """Why a value cannot stand at a path, or None. `None` is always fine: it takes back what was said."""
    if value is None:
        return None
    if path in _CHECKS:
        said = _CHECKS[path](value)
        return None if said is None else f"{path} is {shown(value)}; {said}"
    if path == "training.preset" and value not in PRESETS:
        return f"there is no preset {shown(value)}; {near(str(value), PRESETS)}"
    return None


def entries(path: str, tree: Tree) -> Iterator[tuple[str, Tree]]:
    """A path and its value as single paths: a section's mapping is taken apart."""
    if path in SECTIONS and tree.is_map:
        for key, child in tree.value.items():
            yield f"{path}.{key}", child
    else:
        yield path, tree


def clash(one: str, other: str) -> bool:
    """Whether two paths speak of the same thing."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
