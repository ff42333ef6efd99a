"""What stands behind the kinds of adapters that recipes name; the classes register in `agblocks.adapters`."""

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
from .plugins import import_plugins, import_room
from .registry import REQUIRED

ENTRY_POINTS = "agblocks.adapters"
TARGET_FIELDS = ("role", "glob", "regex", "type", "layers", "stages", "exclude", "expect")

_kinds: dict[str, Kind] = {}
_loaded = False


@dataclass(frozen=True, eq=False)
class Kind:
    """A registered kind of adapter: its class, its arguments, what it aims at unless told, where it stands."""

    name: str
    target: Any = field(repr=False)  # the class
    aim: Mapping[str, tuple[str, ...]]  # default target fields
    annotations: Mapping[str, Any] = field(repr=False)
    defaults: Mapping[str, Any] = field(repr=False)  # REQUIRED where there is none
    where: str

    def __reduce__(self) -> tuple[Any, ...]:
        return lookup, (self.name,)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.target) or ""

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]


T = TypeVar("T", bound=type)


def adapter(name: str, **aim: str | tuple[str, ...]) -> Callable[[T], T]:
    """Register an `Adapter` class as a kind; `aim` are the target fields that hold where a spec names none.

    The class's constructor takes `place` and keyword-only arguments, annotated as a block's are. Raises
    `RegistrationError` for a constructor of another form, or a name that is taken.
    """
    frame = sys._getframe(1)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"

    def refuse(message: str) -> typing.NoReturn:
        raise RegistrationError(f"{where}: adapter {name!r}: {message}")

    def decorate(cls: T) -> T:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            refuse("a kind is named in small letters, digits and underscores")
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
        keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        if [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] != ["place"]:
            refuse("its constructor takes 'place' and keyword-only arguments")
        hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
        for parameter in keyword:
            if parameter.name not in hints:
                refuse(f"argument {parameter.name!r} has no annotation")
            if parameter.name in ("adapter", "name", *TARGET_FIELDS):
                refuse(f"an argument cannot be called {parameter.name!r}: specs say where an adapter sits by it")
        if unknown := [key for key in aim if key not in TARGET_FIELDS]:
            refuse(f"{unknown[0]!r} is no target field; {near(unknown[0], TARGET_FIELDS)}")
        before = _kinds.get(name)
        if before is not None and (before.target.__module__, before.target.__qualname__) != (
            cls.__module__, cls.__qualname__
        ):  # fmt: skip
            refuse(f"it is registered already, at {before.where}")
        _kinds[name] = kind = Kind(
            name=name,
            target=cls,
            aim=MappingProxyType({k: (v,) if isinstance(v, str) else tuple(v) for k, v in aim.items()}),
            annotations=MappingProxyType({p.name: hints[p.name] for p in keyword}),
            defaults=MappingProxyType({p.name: p.default for p in keyword}),
            where=where,
        )
        cls.kind = kind  # type: ignore[attr-defined]
        return cls

    return decorate


def lookup(name: str) -> Kind:
    """The kind of a name. Raises KeyError with near names."""
    load()
    try:
        return _kinds[name]
    except KeyError:
        raise KeyError(f"no adapter is registered as {name!r}; {near(name, _kinds)}") from None


def kinds() -> Mapping[str, Kind]:
    """Every registered kind, built-in and third-party."""
    load()
    return MappingProxyType(_kinds)


def load() -> None:
    """Import the package's own kinds and every plug-in, once. A broken plug-in warns and is left out."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    import_room("adapters.methods")
    import_plugins(ENTRY_POINTS, "adapters")


__all__ = ["REQUIRED", "TARGET_FIELDS", "Kind", "adapter", "kinds", "load", "lookup"]
