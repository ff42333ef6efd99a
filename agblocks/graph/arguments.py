"""A block's arguments checked against its annotations by pydantic: strict, nothing extra, every problem located."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import near, shown
from .registry import REQUIRED, Entry
from .source import Tree

Complaint = tuple[tuple[str | int, ...], str]  # path within the arguments, what is wrong


@lru_cache(maxsize=512)
def model_of(entry: Entry) -> Any:
    """The pydantic model of an entry's arguments."""
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {
        name: (annotation, ... if entry.defaults[name] is REQUIRED else entry.defaults[name])
        for name, annotation in entry.annotations.items()
    }
    config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False, protected_namespaces=()
    )
    return create_model(entry.name, __config__=config, **fields)


def validate(entry: Entry, args: Mapping[str, Tree]) -> tuple[dict[str, Any], list[Complaint]]:
    """The arguments with defaults filled in, and what is wrong with them."""
    from pydantic import ValidationError

    plain = {name: tree.plain() for name, tree in args.items()}
    try:
        made = model_of(entry)(**plain)
    except ValidationError as error:
        return {}, [_complaint(found, entry) for found in error.errors(include_url=False, include_context=False)]
    return {name: _plain(getattr(made, name)) for name in entry.annotations}, []


def describe(annotation: Any) -> str:
    """An annotation as people read it: `whole number, > 0, <= 65536`."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(annotation).json_schema()
    return _words(schema)


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _complaint(found: Mapping[str, Any], entry: Entry) -> Complaint:
    path = tuple(step for step in found["loc"])
    name = str(path[0]) if path else ""
    if found["type"] == "missing" and len(path) == 1:
        return (), f"{entry.name!r} needs argument {name!r}: {describe(entry.annotations[name])}"
    if found["type"] == "extra_forbidden" and len(path) == 1:
        return path, f"{entry.name!r} has no argument {name!r}; {near(name, entry.annotations)}"
    wanted = describe(entry.annotations[name]) if name in entry.annotations else ""
    message = found["msg"][:1].lower() + found["msg"][1:]
    if found["type"] == "predicate_failed":  # its message is the predicate's name: 'Predicate odd failed'
        wanted = f"{wanted}, {found['msg'].split()[1].strip(chr(39))}"
    if wanted and len(path) == 1:
        return path, f"{shown(found['input'])} is not {wanted}"
    return path, f"{shown(found['input'])}: {message}"


def _words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(option) for option in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    names = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "null": "null",
        "object": "a mapping",
    }
    kind = schema.get("type", "a value")
    if kind == "array":
        sizes = [
            f"{word} {schema[key]}"
            for key, word in (("minItems", "at least"), ("maxItems", "at most"))
            if key in schema
        ]
        return f"a list of {' and '.join([*sizes, _words(schema.get('items', {}))])}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if key in schema
    ]
    return ", ".join([names.get(kind, kind), *bounds])
