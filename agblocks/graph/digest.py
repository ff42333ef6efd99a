"""Digests: what an edge computes, by block, arguments and the digests of what it reads. Names don't enter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .dims import Dim, Length


def of_input(name: str, axes: tuple[Dim, ...]) -> str:
    """An input's digest: its name and channels. Lengths don't enter: a model of one stated length shares its stages."""
    kinds = [axis if isinstance(axis, int) and i == 1 else "*" for i, axis in enumerate(axes)]
    return _hash("input", name, kinds)


def of_node(block: str, args: Mapping[str, Any], dims: Mapping[str, Any], inputs: Mapping[str, str], port: str) -> str:
    """The digest of one output port of a node; `inputs` are the digests at its ports."""
    return _hash("node", block, dict(args), dict(dims), dict(inputs), port)


def of_recipe(heads: Iterable[str]) -> str:
    """A recipe's digest is that of its heads."""
    return _hash("recipe", sorted(heads))


def _hash(*parts: Any) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_canonical)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Length):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a digest")
