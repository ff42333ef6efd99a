"""Shapes that fit a signature, by construction: the graph's own solver with every port an open symbol."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import AgblocksError
from ..graph.dims import Dim, Length, symbol
from ..graph.infer import Bound, EdgeInfo, bind, outputs
from ..graph.reach import Field
from ..graph.registry import Entry
from ..graph.rules import LengthRule
from ..graph.signature import Unbound

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Solution:
    """Which ports are wired, the numbers of the constructor's dimensions, and the rule of what stays open."""

    entry: Entry
    args: Mapping[str, Any]
    ports: tuple[str, ...]
    dims: Mapping[str, int]
    axes: Mapping[str, tuple[Dim, ...]]  # by port
    rule: LengthRule

    @property
    def symbols(self) -> tuple[str, ...]:
        """The open symbols of the input ports, `B` aside."""
        found = [s for axes in self.axes.values() for dim in axes if isinstance(dim, Length) for s in dim.symbols]
        return tuple(s for s in dict.fromkeys(found) if s != "B")

    def channels(self, name: str) -> bool:
        """Whether a symbol stands for channels, or else for a length."""
        return any(axes[1] == symbol(name) for axes in self.axes.values() if len(axes) == 3) and not any(
            axes[2] == symbol(name) for axes in self.axes.values() if len(axes) == 3
        )

    def lengths(self, name: str, low: int = 1, most: int = 8) -> list[int]:
        """The smallest values from `low` on that a symbol may have."""
        admitted = itertools.dropwhile(lambda n: n < low, self.rule.lengths(name))
        return list(itertools.islice(admitted, most))

    def shapes(self, values: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The ports' shapes under these values of the symbols and `B`."""
        return {
            port: tuple(d if isinstance(d, int) else int(d.at(values)) for d in axes)
            for port, axes in self.axes.items()
        }


def subsets(entry: Entry) -> Iterator[tuple[str, ...]]:
    """The sets of ports that may be wired: required ones, then with optional ones too."""
    ports = entry.signature.inputs
    optional = [p.name for p in ports if p.optional]
    for size in range(len(optional) + 1):
        for chosen in itertools.combinations(optional, size):
            yield tuple(p.name for p in ports if not p.optional or p.name in chosen)


def solve(entry: Entry, args: Mapping[str, Any], ports: tuple[str, ...], dims: Mapping[str, int]) -> Solution | None:
    """What of the ports' shapes is open once the dimensions are numbers; None where these numbers do not fit."""
    names = [s for s in entry.signature.symbols if s not in entry.annotations]
    values: dict[str, Any] = {k: v for k, v in args.items() if v is None or type(v) is int}
    values |= {name: dims.get(name, symbol(name)) for name in (*names, "B")}
    wired, axes = {}, {}
    for port in entry.signature.inputs:
        if port.name not in ports:
            continue
        try:
            axes[port.name] = tuple(axis.evaluate(values, []) for axis in port.axes)
        except (ValueError, Unbound):
            return None
        wired[port.name] = EdgeInfo(axes[port.name], integer=port.integer, field=Field())
    found = Bound({})
    try:
        found = bind(entry, args, wired, {port: port for port in ports}, "node")
        if not found.wrong:
            made = outputs(entry, found, wired, "node")
            conditions = next(iter(made.values())).conditions if made else ()
            if not found.wrong and made:
                return Solution(
                    entry, args, ports, {d: dims[d] for d in entry.dims if d in dims}, axes, LengthRule(conditions)
                )
    except ValueError:
        pass
    return None


def dims_of(entry: Entry, ports: tuple[str, ...]) -> tuple[str, ...]:
    """The constructor's dimensions that these ports bind."""
    bound = {axis.symbol for port in entry.signature.inputs if port.name in ports for axis in port.axes if axis.symbol}
    return tuple(dim for dim in entry.dims if dim in bound)


def near_sizes(first: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Numbers for the dimensions: those asked for, then all alike."""
    yield dict(first)
    for size in SIZES[2:]:
        yield dict.fromkeys(first, size)


def refusal(solution: Solution) -> str | None:
    """Why `check` or the constructor refuses these arguments, or None. Errors other than ValueError are raised."""
    entry = solution.entry
    try:
        entry.target.check(**{name: solution.dims.get(name) for name in entry.dims}, **solution.args)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            entry.target(**solution.dims, **solution.args)
    except (AgblocksError, ValueError) as error:
        return str(error)
    return None
