"""A composition of one name alone as data, for its file: what stands for the name is "."."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import composition
from .composition import Composition
from .errors import AdapterFileError, CompositionError


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
    try:
        kind, options = data["kind"], data["options"]
        if set(options) != set(_OPTIONS[kind]):
            raise KeyError(f"options {sorted(options)}")
        parts = [composition_of(path, part, name) for part in data["parts"]]
        made: Composition = getattr(composition, kind)(*parts, **options)
        return made
    except (KeyError, TypeError, ValueError, CompositionError) as error:
        raise AdapterFileError(f"{path}: damaged metadata: composition: {error}") from None
