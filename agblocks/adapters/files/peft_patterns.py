"""Patterns of modules' names in peft's configs, matched in a time that their length bounds.

They are regular expressions, and from a stranger, who can write one that `re` would try for years. Read here is what
names need: letters, `\\.` and other escaped signs, `.`, `\\d`, a few with `*` or `+`, `^`, `$`, alternatives, in
brackets or without. Of each part all the places where it may end are found at once, so nothing is tried twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ..errors import AdapterFileError

LONGEST = 100_000  # characters of all patterns of a config
DEEPEST = 8  # brackets inside brackets
REPEATS = 10  # of `*` and `+` in a pattern
_PIECE = re.compile(r"(\\d|\\[^\w\s]|[\w\- /]|\.)([*+]?)|[\^$|)]|\((?:\?:)?")


class Part(NamedTuple):
    """Letters that stand there, or one of a class, perhaps repeated: `\\d`, `.`; or an end of the name: `^`, `$`."""

    letters: str
    of: str = ""
    repeat: str = ""


Choice: TypeAlias = "list[list[Part | Choice]]"  # alternatives, the parts of each


class Pattern:
    """A pattern of names. Raises `AdapterFileError`, naming the file, for one of another form."""

    def __init__(self, file: Path, text: str):
        self._choice = _parsed(file, text)

    def whole(self, name: str) -> bool:
        """Whether it matches a name from the first letter to the last."""
        return len(name) in _ends(self._choice, name, {0})

    def end(self, name: str) -> bool:
        """Whether it matches a name, or an end of it that follows a dot: peft's rule for ranks and alphas."""
        starts = {0, *(i + 1 for i, letter in enumerate(name) if letter == ".")}
        return len(name) in _ends(self._choice, name, starts)


def _parsed(file: Path, text: str) -> Choice:
    levels: list[Choice] = [[[]]]  # the alternatives so far of each bracket that is open
    place = repeats = 0
    while place < len(text):
        piece = _PIECE.match(text, place)
        said = "" if piece is None else piece[0]
        repeats += bool(piece and piece[2])
        if (
            piece is None
            or repeats > REPEATS
            or (said == ")" and len(levels) == 1)
            or (said[0] == "(" and len(levels) > DEEPEST)
        ):
            raise _other(file, text, place)
        place = piece.end()
        parts = levels[-1][-1]
        if said[0] == "(":
            levels.append([[]])
        elif said == "|":
            levels[-1].append([])
        elif said == ")":
            inside = levels.pop()
            levels[-1][-1].append(inside)
        elif said in ("^", "$") or piece[1] in (".", "\\d") or piece[2]:
            letter = "" if piece[1] in (None, ".", "\\d") else piece[1][-1]
            parts.append(Part(letter, "" if letter else said[: 2 if said[0] == "\\" else 1], piece[2] or ""))
        elif parts and isinstance(parts[-1], Part) and not parts[-1].of and not parts[-1].repeat:
            parts[-1] = Part(parts[-1].letters + piece[1][-1])
        else:
            parts.append(Part(piece[1][-1]))
    if len(levels) > 1:
        raise _other(file, text, place)
    return levels[0]


def _ends(choice: Choice, name: str, starts: set[int]) -> set[int]:
    """Where alternatives may end that begin at any of these places."""
    found: set[int] = set()
    for parts in choice:
        here = starts
        for part in parts:
            if not here:
                break
            here = _ends(part, name, here) if isinstance(part, list) else _step(part, name, here)
        found |= here
    return found


def _step(part: Part, name: str, here: set[int]) -> set[int]:
    if part.of in ("^", "$"):
        return here & {0 if part.of == "^" else len(name)}
    if not part.repeat and not part.of:
        return {i + len(part.letters) for i in here if name.startswith(part.letters, i)}

    def fits(i: int) -> bool:
        there = name[i : i + 1]
        return there.isdecimal() if part.of == "\\d" else there != "" and (part.of == "." or there == part.letters)

    found = {i + 1 for i in here if fits(i)}
    edge = found if part.repeat else set()
    while edge := {i + 1 for i in edge if fits(i)} - found:
        found |= edge
    return found | here if part.repeat == "*" else found


def _other(file: Path, text: str, place: int) -> AdapterFileError:
    found = f"{text[place : place + 10]!r}" if place < len(text) else "its end"
    return AdapterFileError(
        f"{file}: the pattern {text[:60]!r} has {found} at {place}, where names, '\\.', '\\d', '.', a few '*' and '+', "
        "'^', '$' and alternatives in brackets are read"
    )
