"""Learning rates of parts of a model, as data: what each is multiplied with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import shown
from ..errors import RunError
from .terms import Terms, as_terms

Rates = tuple[tuple[Terms, float], ...]
_WANTED = "wanted what=factor, like encoder.**=0.01,head=1"


def as_rates(said: str | Mapping[str, Any] | Iterable[Any]) -> Rates:
    """Rates from text, `encoder=0.01,head=2`, from a mapping, or from pairs; in the order of their texts.

    Errors: `RunError` for another form, and where two entries are of the same terms.
    """
    parts: Iterable[Any]
    if isinstance(said, str):
        parts = [_parsed(part) for part in said.split(",") if said]
    else:
        parts = said.items() if isinstance(said, Mapping) else said
        if not isinstance(parts, Iterable):
            raise RunError(f"rates: {shown(said)}; {_WANTED}")
    found: dict[Terms, float] = {}
    for pair in parts:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RunError(f"rates: {shown(pair)}; {_WANTED}")
        terms, factor = as_terms(pair[0], "rates"), pair[1]
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor <= 1e6:
            raise RunError(f"rates: {'+'.join(terms)}: {shown(factor)}; wanted a factor of the learning rate above 0")
        if terms in found:
            raise RunError(f"rates: {'+'.join(terms)} is said twice")
        found[terms] = float(factor)
    return tuple(sorted(found.items()))


def rates_text(rates: Rates) -> str:
    """The command line's form; `as_rates` gives them back."""
    return ",".join(f"{'+'.join(terms)}={factor!r}" for terms, factor in rates)


def _parsed(part: str) -> tuple[str, float]:
    terms, equals, factor = (piece.strip() for piece in part.rpartition("="))
    try:
        if equals:
            return terms, float(factor)
    except ValueError:
        pass
    raise RunError(f"rates: {shown(part)}; {_WANTED}")
