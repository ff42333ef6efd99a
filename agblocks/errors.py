"""Errors that say what was found, what was wanted, where, and what would fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text: file, one-based line and column, and that line's text for the caret."""

    file: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def caret(self) -> str:
        """The line with a caret under the column, shortened around it when the line is long."""
        start = max(0, self.column - 60) if len(self.text) > 110 else 0
        line = self.text[start : start + 110].rstrip()
        label = f"{self.line:6d} | "
        return f"{label}{line}\n{' ' * (len(label) - 2)}| {' ' * (self.column - 1 - start)}^"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a sentence, its place, the path in the recipe, and remarks below the caret."""

    message: str
    mark: Mark | None = None
    path: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        path = "".join(c if c.isprintable() else "?" for c in self.path)
        head = ": ".join(part for part in (str(self.mark or ""), path, self.message) if part)
        caret = [self.mark.caret()] if self.mark and self.mark.text else []
        return "\n".join([head, *caret, *(f"  {note}" for note in self.notes)])


class AgblocksError(ValueError):
    """Bad input, told in a message for people: what was found, what was wanted, where, and what would fit."""


class RecipeError(AgblocksError):
    """Everything that is wrong with a recipe, in the order of its lines. `problems` holds the pieces."""

    def __init__(self, problems: Iterable[Problem]):
        # From Python a recipe has no lines: then the order of discovery stands.
        unique = dict.fromkeys(problems)
        self.problems = tuple(
            sorted(unique, key=lambda p: (p.mark.file, p.mark.line, p.mark.column) if p.mark else ("", 0, 0))
        )
        super().__init__("\n\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


class RegistrationError(AgblocksError):
    """A block, composite or head whose signature, constructor and forward do not agree."""


class Misfit(AgblocksError):
    """Raised by a composite that cannot be expanded for the shapes it was given; the resolver locates it."""


class InputError(AgblocksError):
    """A model was called with inputs or output names that do not fit; the message names the rule."""


def near(name: str, options: Iterable[str], most: int = 3) -> str:
    """A remark that names the options most like `name`, or all of them when they are few."""
    known = sorted(set(options))
    found = difflib.get_close_matches(name[:100], known, n=most, cutoff=0.6)
    if found:
        return f"did you mean {' or '.join(found)}?"
    if not known:
        return "there is none to choose from"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"there is: {shown}"


def shown(value: object, most: int = 60) -> str:
    """A short `repr` for messages, safe for control characters and very long values."""
    try:
        text = ascii(value) if not isinstance(value, str) else repr(value)
    except ValueError:  # an integer past Python's limit for printing
        text = f"a {type(value).__name__} too large to print"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."
