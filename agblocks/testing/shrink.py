"""Making a counter-example smaller: one argument, dimension, length or port at a time, while it still breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import AgblocksError
from ..graph.registry import REQUIRED, Entry
from .arguments import of
from .case import AnyCase, Case, GraphCase
from .solve import SIZES, dims_of, refusal, solve, subsets

STEPS = 120  # cases tried


def smallest(
    case: AnyCase, broken: Callable[[AnyCase], Exception | None], error: Exception
) -> tuple[AnyCase, Exception]:
    """The smallest case found that still breaks in the same way, and how."""
    tried = {repr(case)}
    again = True
    while again:
        again = False
        for other in smaller(case):
            if repr(other) in tried or len(tried) > STEPS:
                continue
            tried.add(repr(other))
            found = broken(other)
            if type(found) is type(error):
                assert found is not None
                case, error, again = other, found, True
                break
    return case, error


def smaller(case: AnyCase) -> Iterator[AnyCase]:
    """Cases that are simpler in one thing, the boldest first."""
    if case.seed:
        yield replace(case, seed=0)
    if isinstance(case, GraphCase):
        for values in case.admitted():
            if sum(values.values()) < sum(case.lengths.values()):
                yield replace(case, lengths=values)
        return
    entry, values = case.entry, case.values
    for ports in subsets(entry):
        if set(ports) < set(case.shapes):
            yield from _fitted(case, case.args, ports, values)
    for name in case.args:
        for value in _simpler(entry, name, case.args[name]):
            args = {k: v for k, v in case.args.items() if k != name}
            yield from _fitted(case, args if value is REQUIRED else {**args, name: value}, tuple(case.shapes), values)
    for name in dims_of(entry, tuple(case.shapes)):
        for size in SIZES:
            if size < (values[name] or 0):
                yield from _fitted(case, case.args, tuple(case.shapes), {**values, name: size})
    solution = case.solution()
    for name in ("B", *solution.symbols):
        for size in (1, 2) if name == "B" else solution.lengths(name):
            if size < (values[name] or 0):
                yield from _fitted(case, case.args, tuple(case.shapes), {**values, name: size})


def _simpler(entry: Entry, name: str, value: Any) -> Iterator[Any]:
    """Simpler values of an argument; REQUIRED stands for leaving it out."""
    default = entry.defaults[name]
    if default is not REQUIRED and (type(default) is not int or (type(value) is int and default <= value)):
        yield REQUIRED
    if type(value) is int:
        options = getattr(of(entry.annotations[name]), "elements", ())
        yield from (v for v in options if type(v) is int and v < value)
    if isinstance(value, list):
        yield from (value[:i] + value[i + 1 :] for i in range(len(value)))


def _fitted(
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
