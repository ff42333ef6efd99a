"""The fields of an adapter as one line for the command line, `role=attn.q+attn.v,rank=8`, and back.

An entry is plain text, or JSON: a text in double quotes, a list, a mapping. Plain is written wherever it reads back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import AgblocksError, Mark, shown
from .adapter_kinds import TARGET_FIELDS
from .source import from_override

PATTERNS = ("role", "glob", "regex", "type", "exclude")
_NAME = re.compile(r"([^=,]*)(=?)")
_PLAIN = re.compile(r"[^,+]*")


def read_fields(text: str) -> dict[str, Any]:
    """The fields that a text says; several entries joined by `+` are a list. Raises `AgblocksError`."""
    fields: dict[str, Any] = {}
    at = 0
    while at < len(text):
        match = _NAME.match(text, at)
        assert match is not None
        name, at = match[1].strip(), match.end()
        if name or match[2]:
            if not match[2] or name in fields:
                problem = "is said twice" if match[2] else "should be name=value"
                raise AgblocksError(f"{shown(name)} {problem}, as in lora:role=attn.q,rank=8")
            fields[name], at = _value(name, text, at)
        at += 1  # the comma
    return fields


def write_fields(fields: Mapping[str, Any]) -> str:
    """Fields as a text that `read_fields` and a spec read as the same."""
    return ",".join(f"{name}={_written(name, value)}" for name, value in fields.items())


def _value(name: str, text: str, at: int) -> tuple[Any, int]:
    """A field's value from a position on, and where it ends: its only entry, or a list of them."""
    entries = []
    while True:
        entry, at = _entry(name, text, at)
        entries.append(entry)
        if text[at : at + 1] != "+":
            break
        at += 1
    if at < len(text) and text[at] != ",":
        raise AgblocksError(f"{name}: after {shown(entries[-1])} comes ',' or '+', not {shown(text[at:])}")
    return (entries if len(entries) > 1 else entries[0]), at


def _entry(name: str, text: str, at: int) -> tuple[Any, int]:
    first = text[at : at + 1]
    if first and first in ('"' if name in PATTERNS else '"[{'):  # a regex may begin with a bracket
        try:
            return json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if first == '"':
                raise AgblocksError(
                    f"{name}: {shown(text[at:])} is no text in quotes as JSON has it: {error}"
                ) from None
    match = _PLAIN.match(text, at)
    assert match is not None
    plain = match[0].strip()
    # a slice that is open to the right, "-4:", is no mapping, and a glob, "**.head", no alias
    if name in PATTERNS or (name in ("layers", "stages") and ":" in plain) or plain[-1:] == ":" or plain[:1] == "*":
        return plain, match.end()
    return from_override(plain, Mark(text, 1, 1)).plain(), match.end()


def _written(name: str, value: Any) -> str:
    entries = value if isinstance(value, list) else [value]
    joined = len(entries) > 1 and not any(isinstance(entry, (list, dict)) for entry in entries)
    if joined or name in TARGET_FIELDS:
        return "+".join(_one(name, entry) for entry in entries)
    return _one(name, value)


def _one(name: str, value: Any) -> str:
    """An entry, plain if it reads back as itself."""
    said = json.dumps(value)
    if not isinstance(value, str):
        return said.replace("e+", "e") if isinstance(value, float) else said
    try:
        found, end = _value(name, value, 0)
    except AgblocksError:
        return said
    return value if type(found) is str and found == value and end == len(value) else said


__all__ = ["PATTERNS", "read_fields", "write_fields"]
