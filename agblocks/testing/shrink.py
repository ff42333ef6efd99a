"""Making a counter-example smaller: one argument, dimension, length or port at a time, while it still breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..graph.registry import REQUIRED, Entry
from .arguments import of
from .case import AnyCase, GraphCase
from .fit import fitted
from .solve import SIZES, dims_of, subsets

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
    entry = case.entry
    now: dict[str, int | None] = dict(case.values.items())
    for ports in subsets(entry):
        if set(ports) < set(case.shapes):
            yield from fitted(case, case.args, ports, now)
    for name in case.args:
        for value in _simpler(entry, name, case.args[name]):
            args = {k: v for k, v in case.args.items() if k != name}
            yield from fitted(case, args if value is REQUIRED else {**args, name: value}, tuple(case.shapes), now)
    for name in dims_of(entry, tuple(case.shapes)):
        for size in SIZES:
            if size < (now[name] or 0):
                yield from fitted(case, case.args, tuple(case.shapes), {**now, name: size})
    solution = case.solution()
    for name in ("B", *solution.symbols):
        for size in (1, 2) if name == "B" else solution.lengths(name):
            if size < (now[name] or 0):
                yield from fitted(case, case.args, tuple(case.shapes), {**now, name: size})


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
