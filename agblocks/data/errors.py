"""The one error that bad data raises, and how its text is put together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ..errors import AgblocksError

LISTED = 1000


class DataError(AgblocksError):
    """Data that cannot be used, said so that it can be mended.

    The message says what was found, what was wanted, where (file, row, column), and what would fit.
    `problems` holds every single problem as its own line; the message prints the first 1,000 of them.

    Use when: anything read from a file, a table or a user's argument does not fit. Programming errors stay
    ordinary `TypeError`s.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        lines = [message, *(f"  {p}" for p in self.problems[:LISTED])]
        if len(self.problems) > LISTED:
            lines.append(f"  ... and {len(self.problems) - LISTED:,} more (all of them in `error.problems`)")
        super().__init__("\n".join(lines))


def near(name: str, names: Sequence[str]) -> str:
    """A hint for a name that does not exist: close matches first, else the names there are.

    Use when: a message has to end with "what would fit". Case is ignored in the comparison.
    """
    if not names:
        return "there are none"
    folded: dict[str, str] = {}
    for other in names:
        folded.setdefault(other.casefold(), other)
    close = [folded[m] for m in difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.7)]
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(repr(n) for n in names[:20])
    return f"there are {shown}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`3 rows`, `1 row`: a number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
