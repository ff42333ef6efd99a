"""What a contract is, and how a counter-example to one is found and told."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, Unsatisfiable

from ..graph.registry import Entry
from . import profiles
from .case import AnyCase
from .shrink import smallest

MODULES = 40  # in what is compiled: compiling takes as long as there are modules
KINDS = ("block", "head", "composite")


class Broken(AssertionError):
    """A contract does not hold for a case; the message says how."""


class NotHere(Exception):
    """A contract has nothing to say about a case."""


@dataclass(frozen=True)
class Contract:
    """A promise every block keeps. `check(case)` raises `Broken` where one does not."""

    name: str
    says: str
    check: Callable[[Any], None]
    kinds: tuple[str, ...] = KINDS
    needs: tuple[str, ...] = ()  # contracts without which this one means nothing
    once: bool = False  # costly: one typical case instead of many
    slow: bool = False
    times: int = 1  # how many times as many examples as usual: for a quick one

    def __call__(
        self, entry: Entry, *, arguments: Mapping[str, Any] | None = None, examples: int | None = None
    ) -> None:
        """Look for a counter-example; raises `CounterExample` with the smallest one found."""
        found = counter_example(self, entry, arguments, examples)
        if found is not None:
            raise found

    def applies(self, entry: Entry) -> str | None:
        """Why the contract is not asked of an entry, or None."""
        if entry.kind not in self.kinds:
            return f"it is for a {' or '.join(self.kinds)}"
        excused: str | None = getattr(entry.target, "excused", {}).get(self.name)
        return excused


class CounterExample(AssertionError):
    """A contract, the smallest case that breaks it, and the line that shows it again."""

    def __init__(self, entry: Entry, contract: Contract, case: AnyCase | None, reason: str):
        self.entry, self.contract, self.case, self.reason = entry, contract, case, reason
        super().__init__(self.told())

    def told(self) -> str:
        """The counter-example for people."""
        lines = [f"{self.entry.name!r} breaks {self.contract.name!r} ({self.contract.says})", f"  {self.reason}"]
        if self.case is not None:
            name = type(self.case).__name__
            lines += ["  to see it again:", f"    from agblocks.testing import {name}"]
            lines += [f"    {self.case!r}.check({self.contract.name!r})"]
        return "\n".join(lines)


def counter_example(
    contract: Contract, entry: Entry, arguments: Mapping[str, Any] | None = None, examples: int | None = None
) -> CounterExample | None:
    """The smallest case found that breaks a contract, or None."""
    from .strategies import cases

    strategy = cases(entry, arguments)
    many = (examples or profiles.examples()) * contract.times
    if contract.once:
        return _few(contract, entry, strategy, 3 if profiles.night() else 1)
    if entry.kind == "composite":
        many = max(1, many // 3)
    broken: list[tuple[AnyCase, Exception]] = []

    @settings(profiles.sparing(many), phases=[Phase.generate])
    @given(strategy)
    def look(case: AnyCase) -> None:
        if error := _error(contract, case):
            broken.append((case, error))
            raise error

    try:
        look()
    except Unsatisfiable:
        return _unbuilt(contract, entry)
    except Exception as error:
        if broken:
            return _smallest(contract, entry, *broken[0])
        if isinstance(error, HypothesisException):
            return CounterExample(entry, contract, None, f"no case could be drawn: {error}")
        raise
    return None


def _smallest(contract: Contract, entry: Entry, case: AnyCase, error: Exception) -> CounterExample:
    case, error = smallest(case, lambda other: _error(contract, other), error)
    return CounterExample(entry, contract, case, reason(error))


def sample(strategy: st.SearchStrategy[AnyCase], many: int = 8) -> list[AnyCase]:
    """Some cases, the same at every call, from small to large."""
    found: list[AnyCase] = []

    @settings(profiles.sparing(many), phases=[Phase.generate], derandomize=True)
    @given(strategy)
    def collect(case: AnyCase) -> None:
        found.append(case)

    collect()
    return sorted(found, key=_size)


def _few(contract: Contract, entry: Entry, strategy: st.SearchStrategy[AnyCase], many: int) -> CounterExample | None:
    try:
        found = sample(strategy)
    except Unsatisfiable:
        return _unbuilt(contract, entry)
    modest = [case for case in found if _size(case)[0] <= MODULES] or found[:1]
    for index in range(many):
        typical = modest[max(0, len(modest) * 2 // 3 - index)]
        if error := _error(contract, typical):
            for case in found[:2]:  # the smallest
                if smaller := _error(contract, case):
                    return CounterExample(entry, contract, case, reason(smaller))
            return CounterExample(entry, contract, typical, reason(error))
    return None


def _error(contract: Contract, case: AnyCase) -> Exception | None:
    try:
        contract.check(case)
    except NotHere:
        return None
    except Exception as error:
        return error
    return None


def reason(error: Exception) -> str:
    """What went wrong: a broken contract's own words, or an exception with the place it came from."""
    if isinstance(error, Broken):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/agblocks/testing/" not in f.filename]
    own = [f for f in frames if "/site-packages/" not in f.filename] or frames
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    text = str(error).strip().split("\n\n")[0]
    return f"{type(error).__name__}: {text[:600]}{place}"


def _size(case: AnyCase) -> tuple[int, int]:
    modules = sum(1 for _ in case.build(device="meta").modules())
    return modules, sum(value.numel() for value in case.inputs().values() if value is not None)


def _unbuilt(contract: Contract, entry: Entry) -> CounterExample:
    from .strategies import refusals

    said = refusals.get(entry.name)
    why = f"the last refusal was: {said}" if said else "its signature admits no small shapes"
    return CounterExample(entry, contract, None, f"no small case could be drawn; {why}; give arguments={{...}}")
