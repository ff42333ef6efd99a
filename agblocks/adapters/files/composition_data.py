"""A composition of one name alone as data, for its file: what stands for the name is "."."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import composition
from ..composition import Composition
from ..errors import AdapterFileError, CompositionError
from .record import LARGEST_WEIGHT as LARGEST
from .record import canonical

LONGEST = 100_000  # characters of a composition as JSON
MOST = 1_000  # parts beside each other


def composition_data(active: Composition | None, name: str) -> dict[str, Any] | None:
    """What is active as data, if it is of this name alone and no fusion."""
    if active is None or set(active.names()) != {name}:
        return None
    try:
        return _as_data(active)
    except KeyError:  # a fusion, whose parameters are elsewhere
        return None


_OPTIONS = {"Stack": (), "Average": ("weights", "normalize"), "BatchSplit": ("sizes",), "Split": ("fractions",),
            "Parallel": ()}  # fmt: skip


def _as_data(part: str | Composition) -> Any:
    if isinstance(part, str):
        return "."
    kind = type(part).__name__
    options = {key: getattr(part, key) for key in _OPTIONS[kind]}
    return {"kind": kind, "parts": [_as_data(p) for p in part.parts],
            "options": {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}  # fmt: skip


def composition_of(path: str | Path, data: Any, name: str) -> str | Composition:
    """The composition that data stand for. Raises `AdapterFileError` for other data."""
    if data is None or data == ".":
        return name
    if (length := len(canonical(data))) > LONGEST:
        raise AdapterFileError(f"{path}: a composition of {length:,} characters, {LONGEST:,} are kept in files")
    return _composition(path, data, name)


def _composition(path: str | Path, data: Any, name: str) -> str | Composition:
    if data == ".":
        return name
    try:
        kind, parts, options = data["kind"], data["parts"], data["options"]
        if set(options) != set(_OPTIONS[kind]):
            raise KeyError(f"options {sorted(options)}")
        if not isinstance(parts, list) or len(parts) > MOST:
            raise ValueError(f"parts are a list of at most {MOST:,}")
        if not isinstance(options.get("normalize", True), bool):
            raise ValueError("normalize is true or false")
        for option in ("weights", "fractions"):
            if not all(-LARGEST <= number <= LARGEST for number in options.get(option) or ()):
                raise ValueError(f"{option} are numbers of at most {LARGEST:,.0f}")
        made: Composition = getattr(composition, kind)(*(_composition(path, part, name) for part in parts), **options)
        return made
    except (KeyError, TypeError, ValueError, CompositionError) as error:
        raise AdapterFileError(f"{path}: no composition that is kept in files: {error}") from None
