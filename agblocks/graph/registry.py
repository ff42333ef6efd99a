"""What stands behind the names that recipes use: blocks, heads and composites, checked when they register."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from ..errors import RegistrationError, near
from .block import Block, Head
from .plugins import import_plugins, import_room
from .reach import EVERYTHING, parse_chain
from .signature import Axis, Signature, parse_axes, parse_signature

ENTRY_POINTS = "agblocks.blocks"
ROOMS = ("blocks", "encoders", "towers", "decoders", "heads")
REQUIRED: Any = inspect.Parameter.empty

_entries: dict[str, Entry] = {}
_loaded = False


@dataclass(frozen=True, eq=False)
class Entry:
    """A registered name: what it builds, its signature, its dimensions and arguments, where it stands."""

    name: str
    kind: str  # "block", "head" or "composite"
    target: Any = field(repr=False)
    signature: Signature
    dims: tuple[str, ...]  # positional constructor parameters, bound by the wiring
    optional_dims: frozenset[str]
    annotations: Mapping[str, Any] = field(repr=False)  # of the arguments, in order
    defaults: Mapping[str, Any] = field(repr=False)  # REQUIRED where there is none
    reach: Mapping[str, str]  # chain by input port
    where: str  # file:line

    def __reduce__(self) -> tuple[Any, ...]:
        return lookup, (self.name,)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.target) or ""

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]


T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


def register(name: str, signature: str, *, reach: str | Mapping[str, str] = EVERYTHING) -> Callable[[T], T]:
    """Register a `Block` or `Head` under a name; see docs/design.md, 'A block'.

    `reach` is the chain of what an output position sees (`agblocks.graph.reach`), one for all tracks or one a port.
    Raises `RegistrationError` where signature, constructor, forward and chain do not agree.
    """
    where = _caller()

    def decorate(cls: T) -> T:
        if not issubclass(cls, Block):
            raise RegistrationError(f"{where}: {cls.__name__} registers as {name!r} but is not a Block")
        entry = _checked(name, "head" if issubclass(cls, Head) else "block", cls, signature, reach, where)
        cls.entry = entry
        _add(entry)
        return cls

    return decorate


def composite(name: str, signature: str) -> Callable[[F], F]:
    """Register a function from input edges and arguments to `Nodes`; see docs/design.md, 'A composite'."""
    where = _caller()

    def decorate(function: F) -> F:
        _add(_checked(name, "composite", function, signature, EVERYTHING, where))
        return function

    return decorate


def lookup(name: str) -> Entry:
    """The entry of a name. Raises KeyError with near names."""
    load()
    try:
        return _entries[name]
    except KeyError:
        raise KeyError(f"no block is registered as {name!r}; {near(name, _entries)}") from None


def entries() -> Mapping[str, Entry]:
    """Every registered name, built-in and third-party."""
    load()
    return MappingProxyType(_entries)


def load() -> None:
    """Import the package's own blocks and every plug-in, once. A broken plug-in warns and is left out."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    for room in ROOMS:
        import_room(room)
    import_plugins(ENTRY_POINTS, "blocks")


def _add(entry: Entry) -> None:
    before = _entries.get(entry.name)
    if before is not None and not _redefined(before.target, entry.target):
        raise RegistrationError(f"{entry.name!r} is registered twice: at {before.where} and at {entry.where}")
    _entries[entry.name] = entry


def _redefined(old: Any, new: Any) -> bool:
    """Whether the same definition ran again: a notebook cell, a reload."""
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)


def _caller() -> str:
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _checked(name: str, kind: str, target: Any, signature: str, reach: str | Mapping[str, str], where: str) -> Entry:
    def refuse(message: str) -> typing.NoReturn:
        raise RegistrationError(f"{where}: {name!r}: {message}")

    if not re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)+", name):
        refuse("a name has a family and a word, like 'conv.down'")
    try:
        ports = parse_signature(signature)
    except ValueError as error:
        refuse(str(error))
    if (kind == "composite") == bool(ports.outputs):
        refuse("a composite's outputs come from its nodes" if kind == "composite" else "there is no output")
    if kind != "composite" and any(port.pyramid for port in ports.inputs):
        refuse("only a composite can take a pyramid")

    constructor = target if kind == "composite" else target.__init__
    parameters = list(inspect.signature(constructor).parameters.values())[0 if kind == "composite" else 1 :]
    if constructor is Block.__init__:  # a block without a constructor of its own takes nothing
        parameters = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            refuse(f"no *args or **kwargs: {parameter.name!r} hides what a recipe may say")
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    hints = typing.get_type_hints(constructor, include_extras=True)
    for parameter in keyword:
        if parameter.name not in hints:
            refuse(f"argument {parameter.name!r} has no annotation")
    arguments = {p.name for p in keyword}

    taken = positional if kind == "composite" else list(inspect.signature(target.forward).parameters.values())[1:]
    wanted = [(port.name, port.optional) for port in ports.inputs]
    given = [(p.name, p.default is None) for p in taken]
    if wanted != given:
        refuse(
            f"{'its parameters' if kind == 'composite' else 'forward'} should be {_ports(wanted)}, "
            f"as in the signature, but {'they are' if kind == 'composite' else 'it takes'} {_ports(given)}"
        )

    symbols = [s for s in ports.symbols if s not in arguments]
    dims = () if kind == "composite" else tuple(p.name for p in positional)
    for dim in dims:
        if dim not in symbols:
            refuse(f"constructor parameter {dim!r} is no symbol of an input port; arguments are keyword-only")
    always = {axis.symbol for port in ports.inputs if not port.optional for axis in port.axes}
    for parameter in positional if dims else ():
        if parameter.name not in always and parameter.default is not None:
            refuse(
                f"constructor parameter {parameter.name!r} is bound by optional ports only: give it the default None"
            )
    known = {"B", *symbols, *arguments}
    axes: list[Axis] = [
        a for port in (*ports.inputs, *ports.outputs) for a in (*port.axes, *filter(None, [port.below]))
    ]
    chains = _chains(reach, ports)
    try:
        axes += [axis for chain in chains.values() for _, args in _steps(chain) for a in args for axis in parse_axes(a)]
    except ValueError as error:
        refuse(f"reach: {error}")
    for axis in axes:
        for unknown in sorted(set(axis.names) - known):
            refuse(f"{unknown!r} in {str(axis)!r} is neither a symbol of an input nor an argument")
    for port in chains:
        if port not in {p.name for p in ports.inputs}:
            refuse(f"reach names {port!r}, which is no input port")
    if kind == "head" and target.loss is Head.loss:
        refuse("a head has to define loss(outputs, target, mask=None)")
    return Entry(
        name=name,
        kind=kind,
        target=target,
        signature=ports,
        dims=dims,
        optional_dims=frozenset(p.name for p in positional if p.default is None) if dims else frozenset(),
        annotations=MappingProxyType({p.name: hints[p.name] for p in keyword}),
        defaults=MappingProxyType({p.name: p.default for p in keyword}),
        reach=MappingProxyType(chains),
        where=where,
    )


def _chains(reach: str | Mapping[str, str], ports: Signature) -> dict[str, str]:
    if isinstance(reach, str):
        return {p.name: reach for p in ports.inputs if len(p.axes) > 1}
    return dict(reach)


def _steps(chain: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return () if chain == EVERYTHING else parse_chain(chain)


def _ports(ports: list[tuple[str, bool]]) -> str:
    return f"({', '.join(name + '=None' * optional for name, optional in ports)})"
