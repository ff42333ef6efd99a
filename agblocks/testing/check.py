"""`check_block`: every contract on one block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..graph.block import Block
from ..graph.registry import Entry, entries, lookup
from .contract import CounterExample
from .contracts import CONTRACTS, named


def check_block(
    block: str | type[Block] | Callable[..., Any],
    *,
    arguments: Mapping[str, Any] | None = None,
    contracts: Iterable[str] | None = None,
    examples: int | None = None,
    slow: bool = False,
) -> None:
    """Try every contract on a registered block, head or composite.

    Raises one AssertionError that lists each broken contract with the smallest counter-example found and the line that
    shows it again. `arguments` fixes arguments, to values or hypothesis strategies. `contracts` are names out of
    `CONTRACTS` (default: all but the slow ones); a contract that needs a broken one is left out. A class may say
    `excused = {"contract": "why"}`, and `graph_breaks = "why"` where only parts of it compile.
    """
    entry = entry_of(block)
    wanted = [named(name) for name in contracts] if contracts is not None else None
    broken: list[CounterExample] = []
    failed: set[str] = set()
    for contract in wanted if wanted is not None else [c for c in CONTRACTS if slow or not c.slow]:
        if contract.applies(entry) is not None:
            continue
        if failed.intersection(contract.needs):
            failed.add(contract.name)
            continue
        try:
            contract(entry, arguments=arguments, examples=examples)
        except CounterExample as found:
            broken.append(found)
            failed.add(contract.name)
    if broken:
        left = sorted(failed - {found.contract.name for found in broken})
        note = [f"not tried, as they need the above: {', '.join(left)}"] if left else []
        raise BlockBroken(broken, "\n\n".join([*(found.told() for found in broken), *note]))


class BlockBroken(AssertionError):
    """The contracts a block breaks, each with its counter-example in `found`."""

    def __init__(self, found: list[CounterExample], text: str):
        self.found = tuple(found)
        super().__init__(text)


def entry_of(block: str | type[Block] | Callable[..., Any]) -> Entry:
    """The entry of a name, a class or a composite's function. Raises ValueError for what is not registered."""
    if isinstance(block, str):
        return lookup(block)
    for entry in entries().values():
        if entry.target is block:
            return entry
    raise ValueError(f"{getattr(block, '__name__', block)!r} is not registered: put @register(name, signature) on it")
