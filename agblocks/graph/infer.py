"""One node's shapes: bind its input ports to edges, and evaluate its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .dims import Dim, number, symbol, text
from .reach import Field, follow, union
from .registry import Entry
from .rules import Condition, LengthRule, meet
from .signature import Axis, Port, Unbound


@dataclass(frozen=True)
class EdgeInfo:
    """What is known of an edge before anything is built."""

    axes: tuple[Dim, ...]
    integer: bool = False
    below: int | None = None  # whole numbers in [0, below)
    free: bool = False  # an input whose bound is what its readers take, not what is stated
    optional: bool = False  # an input that a call may leave out
    field: Field | None = None  # what a position sees of the input; None sees everything
    conditions: tuple[Condition, ...] = ()  # what the edge and all before it impose on the input's lengths
    digest: str = ""

    @property
    def shape(self) -> str:
        """`[B 1536 L/128]`: how the shape is read aloud."""
        return f"[{' '.join(map(text, self.axes))}]{' whole numbers' if self.integer else ''}"

    @property
    def exact(self) -> str:
        return f"[{' '.join(map(str, self.axes))}]"


@dataclass(frozen=True)
class Mismatch:
    """A port that does not fit its edge, or an output that cannot be. `port` is '' for the node as a whole."""

    port: str
    message: str


@dataclass
class Bound:
    """A node with its ports bound: values of the signature's names, what the wiring imposes, and what is wrong."""

    values: dict[str, Dim | None]
    imposed: list[Condition] = field(default_factory=list)
    wrong: list[Mismatch] = field(default_factory=list)

    def complain(self, port: str, message: str) -> None:
        self.wrong.append(Mismatch(port, message))


def bind(
    entry: Entry, args: Mapping[str, Any], wired: Mapping[str, EdgeInfo], names: Mapping[str, str], node: str
) -> Bound:
    """Bind an entry's symbols to the edges at its ports, and check every axis that is not a free symbol.

    `names` are the edges' names, for messages. Bare symbols bind first, over all ports; compound axes are checked then.
    """
    bound = Bound({"B": None, **{k: v for k, v in args.items() if v is None or type(v) is int}})
    symbols = {s for s in entry.signature.symbols if s not in entry.annotations} | {"B"}
    ports = [port for port in entry.signature.inputs if port.name in wired and not port.pyramid]
    fitting = []
    for port in ports:
        edge = wired[port.name]
        if len(port.axes) != len(edge.axes) or port.integer != edge.integer:
            bound.complain(
                port.name,
                f"{port.name!r} wants a {port.kind}{' of whole numbers' * (port.integer and len(port.axes) > 1)}"
                f" {port.shape}, but {names[port.name]!r} is {edge.shape}",
            )
            continue
        if edge.optional and not port.optional:
            bound.complain(
                port.name, f"{names[port.name]!r} may be left out of a call, but {entry.name!r} needs its {port.name!r}"
            )
        fitting.append(port)
        for axis, size in zip(port.axes, edge.axes, strict=True):
            if axis.symbol in symbols and bound.values.get(axis.symbol) is None:
                bound.values[axis.symbol] = size
    for port in fitting:
        _check(port, wired[port.name], names[port.name], bound, node)
    if entry.kind != "composite":
        _check_optional(fitting, wired, names, symbols - {"B"}, bound)
    for dim in entry.dims:
        value = bound.values.get(dim)
        if value is not None and number(value) is None and dim not in entry.optional_dims:
            port_name = next((p.name for p in fitting for a in p.axes if a.symbol == dim), "")
            bound.complain(
                port_name,
                f"{entry.name!r} is bound to one length and needs {dim!r} as a number, but "
                f"{names.get(port_name, '')!r} has {text(value)}: state the length of the recipe's input, 'B 4 256'",
            )
    return bound


def _check_optional(
    ports: list[Port], wired: Mapping[str, EdgeInfo], names: Mapping[str, str], symbols: set[str], bound: Bound
) -> None:
    """What may be left out decides no symbol alone: blocks are built, and shapes known, before it is there or not."""
    firm = {axis.symbol for port in ports if not wired[port.name].optional for axis in port.axes}
    for port in ports:
        free = [axis.symbol for axis in port.axes if axis.symbol in symbols and axis.symbol not in firm]
        if wired[port.name].optional and free:
            bound.complain(
                port.name,
                f"{names[port.name]!r} may be left out of a call, but here it alone would say what {free[0]!r} is",
            )


def _check(port: Port, edge: EdgeInfo, name: str, bound: Bound, node: str) -> None:
    for axis, dim in zip(port.axes, edge.axes, strict=True):
        reason = f"{node}.in.{port.name}"
        try:
            wanted = axis.evaluate(bound.values, bound.imposed)
            low = axis.lower_bound(bound.values, bound.imposed)
        except (ValueError, Unbound) as error:
            bound.complain(port.name, f"axis {str(axis)!r} of {port.name!r}: {_said(error)}")
            continue
        met = meet(wanted, dim, reason)
        if met is False:
            should, has = _apart(wanted, dim)
            bound.complain(port.name, f"axis {str(axis)!r} of {port.name!r} should be {should}, but {name!r} has {has}")
        elif isinstance(met, Condition):
            bound.imposed.append(met)
        if low is not None and (complaint := _at_least(dim, low, reason, bound)):
            bound.complain(port.name, f"axis {str(axis)!r} of {port.name!r} {complaint}")
    if port.below is not None and edge.below is not None and not edge.free:
        below = port.below.evaluate(bound.values, [])
        if isinstance(below, int) and edge.below > below:
            bound.complain(
                port.name, f"{port.name!r} wants whole numbers below {below}, but {name!r} goes to {edge.below - 1}"
            )


def dims_of(entry: Entry, bound: Bound) -> dict[str, int | None]:
    """The constructor's dimensions; an optional one is None where the wiring leaves it open."""
    values = {name: bound.values.get(name) for name in entry.dims}
    return {name: None if value is None else number(value) for name, value in values.items()}


def below_of(port: Port, bound: Bound) -> int | None:
    """The bound of a port's whole numbers under its arguments."""
    if port.below is None:
        return None
    try:
        value = port.below.evaluate(bound.values, [])
    except (ValueError, Unbound):
        return None
    return value if isinstance(value, int) else None


def outputs(entry: Entry, bound: Bound, wired: Mapping[str, EdgeInfo], node: str) -> dict[str, EdgeInfo]:
    """The output edges of a node whose ports are bound; what can't be is added to `bound.wrong`."""
    shapes: dict[str, tuple[Dim, ...]] = {}
    for port in entry.signature.outputs:
        try:
            axes = tuple(axis.evaluate(bound.values, bound.imposed) for axis in port.axes)
        except Unbound as error:
            bound.complain("", f"output {port.name!r} {port.shape} speaks of {error}, which no wired input binds")
            continue
        except ValueError as error:
            bound.complain("", f"output {port.name!r} {port.shape}: {_said(error)}")
            continue
        for axis, dim in zip(port.axes, axes, strict=True):
            if complaint := _at_least(dim, 1, f"{node}.{port.name}", bound):
                bound.complain("", f"axis {str(axis)!r} of output {port.name!r} {complaint}")
        shapes[port.name] = axes
    before = tuple(dict.fromkeys(c for edge in wired.values() for c in edge.conditions))
    imposed = tuple(c for c in dict.fromkeys(bound.imposed) if c not in before)
    conditions = before + imposed
    if imposed and not bound.wrong and LengthRule(conditions).contradictory:
        rule = LengthRule(before)
        bound.complain("", f"no input length fits: {rule}, and {'; '.join(map(str, imposed))}")
    made = {}
    for port in entry.signature.outputs:
        if port.name in shapes:
            made[port.name] = EdgeInfo(
                axes=shapes[port.name],
                integer=port.integer,
                below=below_of(port, bound),
                field=_field(entry, bound, wired),
                conditions=conditions,
            )
    return made


def _field(entry: Entry, bound: Bound, wired: Mapping[str, EdgeInfo]) -> Field | None:
    fields = []
    for port, chain in entry.reach.items():
        if port in wired:
            before = wired[port].field
            try:
                fields.append(None if before is None else follow(before, chain, bound.values))
            except (ValueError, Unbound):
                return None
    return union(fields)


def _at_least(dim: Dim, low: Dim, reason: str, bound: Bound) -> str | None:
    """Impose a lower bound where lengths decide it; say what is wrong where it never holds."""
    if (known := number(dim)) is not None and (least := number(low)) is not None:
        return None if known >= least else f"would be {known}, but has to be at least {least}"
    condition = Condition("at least", dim, low, reason)
    if not condition.holds(dict.fromkeys(condition.symbols, 1)):
        bound.imposed.append(condition)
    return None


def _apart(wanted: Dim, found: Dim) -> tuple[str, str]:
    """Two dimensions as they are read aloud, or exactly where that reads the same."""
    pair = text(wanted), text(found)
    return pair if pair[0] != pair[1] else (str(wanted), str(found))


def _said(error: Exception) -> str:
    return f"nothing binds {error.args[0]!r}" if isinstance(error, Unbound) else str(error)


def fits_remark(axes: tuple[Axis, ...], edge: EdgeInfo) -> bool:
    """Whether a recipe's `shape:` remark says what the edge is, roundings aside."""
    values = {name: symbol(name) for axis in axes for name in axis.names}
    said = [axis.evaluate(values, []) for axis in axes]
    return len(said) == len(edge.axes) and all(_reads_as(a, b) for a, b in zip(said, edge.axes, strict=True))


def _reads_as(said: Dim, dim: Dim) -> bool:
    if isinstance(said, int):
        return said == number(dim)
    if isinstance(dim, int):
        return False
    # A stated length is a symbol too, under a name of its own: L/128 may be said of it.
    names = [tuple(s.slopes.values()) if number(dim) is not None else s.ideal for s in (said, dim)]
    return names[0] == names[1]
