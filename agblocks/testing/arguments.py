"""Arguments of a block, drawn from the annotations that validate them: small ones, by construction.

A `pydantic.Field(examples=[...])` in an annotation is drawn from as it stands: that is how a block says which of its
values make small and sensible tests (`Annotated[int, Gt(0), Field(examples=[8, 16])]`).
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterable, Mapping
from itertools import count, islice
from typing import Any, Literal

import annotated_types as at
import typing_extensions
from hypothesis import strategies as st

from ..graph.registry import REQUIRED, Entry, entries

MANY = 6  # whole numbers looked at from the smallest on
DEEP = 3  # lists inside lists


def arguments(entry: Entry, fixed: Mapping[str, Any] | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Every argument of an entry, valid by its annotations. `fixed` are values or strategies by name."""
    fixed = fixed or {}
    for name in fixed:
        if name not in entry.annotations:
            raise ValueError(f"{entry.name!r} has no argument {name!r}")
    drawn = {}
    for name, annotation in entry.annotations.items():
        given = fixed.get(name, REQUIRED)
        if given is not REQUIRED:
            drawn[name] = given if isinstance(given, st.SearchStrategy) else st.just(given)
            continue
        strategy = of(annotation)
        default = entry.defaults[name]
        if type(default) in (bool, str, float, list, type(None)) or (type(default) is int and default <= 2 * MANY):
            strategy = st.one_of(st.just(default), strategy)
        drawn[name] = strategy
    return st.fixed_dictionaries(drawn)


def of(annotation: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Small values of an annotation. Raises TypeError for one that a recipe could not write."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return of(annotation.__value__, depth)
    if origin is typing.Annotated:
        return _bounded(parts[0], list(_flat(parts[1:])), depth)
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(of(part, depth) for part in sorted(parts, key=lambda p: p is not type(None))))
    if origin in (typing.Required, typing.NotRequired):
        return of(parts[0], depth)
    if annotation is None or annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if origin in (list, tuple, dict) or annotation in (int, float, str):
        return _bounded(annotation, [], depth)
    if typing_extensions.is_typeddict(annotation) or hasattr(annotation, "model_fields"):
        return _structure(annotation, depth)
    raise TypeError(f"agblocks.testing draws no values of {annotation!r}; give a strategy: arguments={{name: ...}}")


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for item in metadata:
        if isinstance(item, at.GroupedMetadata):
            yield from _flat(item)
        else:
            yield item
            yield from _flat(getattr(item, "metadata", ()))  # pydantic's FieldInfo


def _bounded(base: Any, metadata: list[Any], depth: int) -> st.SearchStrategy[Any]:
    examples = [example for item in metadata for example in getattr(item, "examples", None) or ()]
    if examples:
        return st.sampled_from(examples)
    origin, parts = typing.get_origin(base), typing.get_args(base)
    tests = [item.func for item in metadata if isinstance(item, at.Predicate)]
    low = max((item.min_length for item in metadata if isinstance(item, at.MinLen)), default=0)
    high = min((item.max_length for item in metadata if isinstance(item, at.MaxLen)), default=low + 2)
    if base is int:
        return st.sampled_from(_whole(metadata, tests))
    if base is float:
        return _real(metadata)
    if base is str:
        return st.text("abc", min_size=max(low, 1), max_size=max(high, 1))
    if origin is list:
        return st.lists(of(parts[0], depth + 1), min_size=low, max_size=min(high, low + 2))
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return st.lists(of(parts[0], depth + 1), min_size=low, max_size=min(high, low + 2)).map(tuple)
    if origin is dict:
        return st.dictionaries(of(parts[0], depth + 1), of(parts[1], depth + 1), max_size=2)
    return of(base, depth)


def _bounds(metadata: list[Any]) -> tuple[float, bool, float, bool]:
    low, open_low, high, open_high = -math.inf, False, math.inf, False
    for item in metadata:
        if isinstance(item, at.Gt | at.Ge):
            value = item.gt if isinstance(item, at.Gt) else item.ge
            if value >= low:  # type: ignore[operator]
                low, open_low = value, isinstance(item, at.Gt)  # type: ignore[assignment]
        if isinstance(item, at.Lt | at.Le):
            value = item.lt if isinstance(item, at.Lt) else item.le  # type: ignore[assignment]
            if value <= high:  # type: ignore[operator]
                high, open_high = value, isinstance(item, at.Lt)  # type: ignore[assignment]
    return low, open_low, high, open_high


def _whole(metadata: list[Any], tests: list[Any]) -> list[int]:
    low, open_low, high, open_high = _bounds(metadata)
    start = 0 if low == -math.inf else math.floor(low) + 1 if open_low else math.ceil(low)
    factors = [item.multiple_of for item in metadata if isinstance(item, at.MultipleOf)]
    fits = (
        n
        for n in islice(count(start), 4096)
        if (n < high or (n == high and not open_high))
        and all(n % f == 0 for f in factors)  # type: ignore[operator]
        and all(test(n) for test in tests)
    )
    found = list(islice(fits, MANY))
    if not found:
        raise TypeError("no whole number among the smallest fits its annotation")
    return found


def _real(metadata: list[Any]) -> st.SearchStrategy[float]:
    low, open_low, high, open_high = _bounds(metadata)
    wanted = (0.0, 0.5, 1.0, 0.1, 0.25, 2.0, 0.9, 8.0, 1e-3)
    fits = [
        x for x in wanted if (x > low or (x == low and not open_low)) and (x < high or (x == high and not open_high))
    ]
    if fits:
        return st.sampled_from(fits)
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_nan=False)


def _structure(annotation: Any, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """A TypedDict or pydantic model. One with `block` and `args` is a node of the recipe's choice: a stage."""
    if typing_extensions.is_typeddict(annotation):
        hints = typing_extensions.get_type_hints(annotation, include_extras=True)
        required = set(annotation.__required_keys__)
    else:
        fields = annotation.model_fields
        hints = {
            name: typing.Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            for name, field in fields.items()
        }
        required = {name for name, field in fields.items() if field.is_required()}
    if "block" in hints and "args" in hints and depth <= DEEP:
        return stages()
    parts = {name: of(hint, depth + 1) for name, hint in hints.items()}
    return st.fixed_dictionaries(
        {name: part for name, part in parts.items() if name in required},
        optional={name: part for name, part in parts.items() if name not in required},
    )


def stage_blocks() -> list[Entry]:
    """Registered blocks that can be a stage of an encoder: one track in, one track out."""
    found = []
    for entry in entries().values():
        inputs, outputs = entry.signature.inputs, entry.signature.outputs
        needed = [port for port in inputs if not port.optional]
        if entry.kind == "block" and len(needed) == len(outputs) == 1 and not needed[0].integer:
            axes = [len(port.axes) == 3 for port in (*needed, *outputs)]
            if all(axes) and all(axis.symbol for axis in needed[0].axes[1:]):
                found.append(entry)
    return found


@st.composite
def stages(draw: st.DrawFn) -> dict[str, Any]:
    """One stage of `encoder.stack`: a block and its arguments."""
    own = [entry for entry in stage_blocks() if entry.target.__module__.startswith("agblocks.")]
    entry = draw(st.sampled_from(own or stage_blocks()))
    made: dict[str, Any] = {"block": entry.name}
    if args := draw(arguments(entry)):
        made["args"] = args
    return made
