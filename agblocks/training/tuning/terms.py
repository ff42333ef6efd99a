"""Terms that name parts of a model, as text: of what trains, is frozen, is drawn anew, or has a rate of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import shown
from ..errors import RunError

FULL, HEAD, NOT = "full", "head", "not:"
FORMS = "full, head, last:2, from:encoder.stage4, to:encoder.stage3, not:TERM, or patterns of names like encoder.stage6"
_NAME = r"\w+(\.\w+)*"
_PATTERN = r"[\w*?\[\]!-]+(\.[\w*?\[\]!-]+)*"
_TERM = re.compile(
    rf"full|(not:)?(head|last:[1-9]\d{{0,5}}|from:{_NAME}|to:{_NAME}|(?!full$){_PATTERN})", re.ASCII
)  # fmt: skip

Terms = tuple[str, ...]


def as_terms(said: str | Iterable[str], where: str = "tune") -> Terms:
    """Terms from text, `last:2+decoder`, or from a list of them. Errors: `RunError` that says where, and what fits."""
    if not isinstance(said, str) and (not isinstance(said, Iterable) or isinstance(said, dict)):
        raise RunError(f"{where}: {shown(said)}; wanted {FORMS}")
    terms = tuple(said.split("+")) if isinstance(said, str) else tuple(said)
    for term in terms:
        if not isinstance(term, str) or not _TERM.fullmatch(term):
            raise RunError(f"{where}: {shown(term)}; wanted {FORMS}")
    if not terms or len(set(terms)) < len(terms) or (FULL in terms and len(terms) > 1):
        raise RunError(f"{where}: {'+'.join(terms)!r}; wanted different terms, and full by itself")
    return terms
