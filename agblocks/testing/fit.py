"""A case with something changed, and its lengths moved to where they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import AgblocksError
from .case import Case
from .solve import dims_of, refusal, solve


def fitted(
    case: Case, args: Mapping[str, Any], ports: tuple[str, ...], values: Mapping[str, int | None]
) -> Iterator[Case]:
    """The case with these things changed and its lengths moved to where they fit, if it can be built."""
    entry = case.entry
    full = {**{k: v for k, v in entry.defaults.items() if k not in args}, **args}
    dims = {name: size for name in dims_of(entry, ports) if (size := values.get(name)) is not None}
    solution = solve(entry, full, ports, dims)
    if solution is None:
        return
    try:
        sizes = {s: solution.lengths(s, values.get(s) or 1, 1)[0] for s in solution.symbols}
        made = Case(case.block, args, solution.shapes({**sizes, "B": values["B"] or 1}), case.seed)
        if refusal(solution) is None and made.expected():
            yield made
    except (AgblocksError, ValueError):
        return
