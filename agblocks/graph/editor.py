"""JSON Schema of recipes, for editors: keys, registered names and the arguments of each block."""

from __future__ import annotations

from typing import Any

from . import adapter_kinds
from .arguments import model_of
from .registry import Entry, entries
from .schema import HEAD_KEYS, RECIPE_KEYS, VERSION


def json_schema() -> dict[str, Any]:
    """The schema of a recipe file over everything that is registered now."""
    definitions: dict[str, Any] = {}
    node_blocks: list[str] = []
    head_blocks: list[str] = []
    for name, entry in entries().items():
        definitions[name] = _entry_schema(entry, definitions)
        (head_blocks if entry.kind == "head" else node_blocks).append(name)
    text = {"type": "string"}
    wiring = {"anyOf": [text, {"type": "object", "additionalProperties": text, "minProperties": 1}]}
    common: dict[str, Any] = {"in": wiring, "shape": text, "args": {"type": "object"}}
    recipe = {**common, "recipe": {"anyOf": [text, {"$ref": "#"}]}}
    assert {*recipe, "block", "weight"} == set(HEAD_KEYS)

    def node(blocks: list[str], extra: dict[str, Any], required: list[str]) -> dict[str, Any]:
        closed = {"type": "object", "additionalProperties": False}
        options = [
            {
                **closed,
                "properties": {**common, **extra, **definitions[b]["properties"]},
                "required": [*required, *definitions[b]["required"]],
                "description": definitions[b]["description"],
            }
            for b in blocks
        ]
        options.append({**closed, "properties": {**recipe, **extra}, "required": [*required, "recipe"]})
        return {"anyOf": options}

    weight = {"weight": {"type": "number"}}
    anything = [*node_blocks, *head_blocks]
    named = {"type": "object"}
    axis = r"([A-Z]\w*|[1-9]\d*)"
    properties = {
        "recipe": {"const": VERSION},
        "name": text,
        "base": {**text, "description": "a shipped recipe's name, or a path beside this file"},
        "inputs": {
            **named,
            "additionalProperties": {**text, "pattern": rf"^B( {axis})*( < {axis})?$"},
        },
        "nodes": {**named, "additionalProperties": node(anything, {}, ["in"])},
        "heads": {**named, "additionalProperties": node(head_blocks, weight, ["in"])},
        "remove": {"anyOf": [text, {"type": "array", "items": text}]},
        "replace": {**named, "additionalProperties": node(anything, weight, [])},
        "set": {**named, "description": "node.argument, node.in or node.in.port: value"},
        "keep": {"anyOf": [text, {"type": "array", "items": text}]},
        "cut": {
            "anyOf": [text, {"type": "array", "items": text}],
            "description": "edges that are inputs of the model, by their names, instead of being computed",
        },
        "adapters": {
            "type": "array",
            "items": {"anyOf": [_adapter_schema(kind, definitions) for kind in adapter_kinds.kinds().values()]},
            "description": "what agblocks.adapt attaches; the list of a base is replaced as a whole",
        },
    }
    assert set(properties) == set(RECIPE_KEYS)
    shared = {name: d for name, d in definitions.items() if name.startswith("$")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "agblocks recipe",
        "type": "object",
        "properties": properties,
        "required": ["recipe"],
        "additionalProperties": False,
        "$defs": {name[1:]: d for name, d in shared.items()},
    }


def _adapter_schema(kind: adapter_kinds.Kind, definitions: dict[str, Any]) -> dict[str, Any]:
    arguments = _arguments(kind, definitions)
    texts = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    whole = {"type": "integer"}
    fields: dict[str, Any] = {key: {"anyOf": [{"type": "string"}, texts]} for key in adapter_kinds.TARGET_FIELDS}
    slices = {"type": "string", "pattern": r"^(-?\d+)?:(-?\d+)?$"}
    numbers = {"anyOf": [whole, {"type": "array", "items": whole, "minItems": 1}, slices]}
    fields |= {"layers": numbers, "stages": numbers, "expect": {"type": "integer", "minimum": 1}}
    aimed = {} if kind.aim else {"anyOf": [{"required": [name]} for name in ("role", "glob", "regex", "type")]}
    return {
        "type": "object",
        "properties": {"adapter": {"const": kind.name}, **fields, **arguments["properties"]},
        "required": ["adapter", *arguments.get("required", [])],
        "additionalProperties": False,
        "description": kind.summary,
        **aimed,
    }


def _arguments(entry: Entry | adapter_kinds.Kind, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of what pydantic checks; what it defines by itself goes to `definitions`."""
    arguments: dict[str, Any] = model_of(entry).model_json_schema()
    for name, definition in arguments.pop("$defs", {}).items():
        definitions[f"${name}"] = definition
    arguments.pop("title", None)
    return arguments


def _entry_schema(entry: Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    arguments = _arguments(entry, definitions)
    arguments["additionalProperties"] = False
    needed = ["args"] if arguments.get("required") else []
    return {
        "properties": {"block": {"const": entry.name}, "args": arguments},
        "required": ["block", *needed],
        "description": f"{entry.signature}\n{entry.summary}",
    }
