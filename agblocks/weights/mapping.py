"""One source's names against ours: a table of nodes, each with its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import WeightsError
from .pattern import Pattern
from .transform import AS_IS, Transform

Leaves = Mapping[str, Any]  # ours -> theirs | (theirs, axes) | (theirs, Leaves)

LINEAR: Leaves = {"weight": "weight", "bias": "bias"}
BATCH_NORM: Leaves = {name: name for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


@dataclass(frozen=True)
class Node:
    """Tensors of one node of ours, or of a row of them.

    ours: the node's path in the shipped recipe (`encoder.stage{i+2}`). block: what it must be, by registered name (one
    or several): another block in its place has other parameters, and nothing of the source goes there. theirs: the
    module of the source. tensors: ours by name inside the node -> theirs inside the module; a tuple adds how axes go
    (`"o i u -> o u i"`) or, for a module, the table of its tensors. last: what `last` is where the source has none.
    optional: modules of ours that the block has only where an optional input is wired. assumed: what is not known for
    certain of these.
    """

    ours: str
    block: str | tuple[str, ...]
    theirs: str
    tensors: Leaves
    last: int = 0
    optional: tuple[str, ...] = ()
    assumed: str = ""


@dataclass(frozen=True)
class Rule:
    """One row of the table, written out: a tensor of ours is one of theirs, its axes moved."""

    node: Pattern
    blocks: tuple[str, ...]
    part: Pattern  # what has to be built for it: the node, or an optional module of it
    ours: Pattern
    theirs: Pattern
    transform: Transform
    last: int
    assumed: str


@dataclass(frozen=True)
class Want:
    """What a tensor of ours is in the source."""

    key: str
    transform: Transform
    optional: bool
    assumed: str = ""


@dataclass(frozen=True)
class Map:
    """A source's names against those of a shipped recipe.

    name: the format's. table: node by node. optional: last parts of our names that sources may lack; the model keeps
    what it has. aliases: families of keys that repeat others, as (prefix that repeats, prefix it stands for).
    assumed: what is not known for certain of the source.
    """

    name: str
    table: tuple[Node, ...]
    optional: tuple[str, ...] = ("num_batches_tracked",)
    aliases: tuple[tuple[str, str], ...] = ()
    assumed: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(rule for node in self.table for rule in _rules(node)))
        object.__setattr__(self, "_any", re.compile("|".join(f"(?:{rule.theirs.regex})" for rule in self.rules)))

    def plain(self, key: str) -> str:
        """The key that a repeating one stands for; else itself."""
        for repeats, stands in self.aliases:
            if key.startswith(repeats):
                return stands + key[len(repeats) :]
        return key

    def knows(self, key: str) -> bool:
        """Whether the table has a row for such a key."""
        return self._any.fullmatch(self.plain(key)) is not None  # type: ignore[attr-defined]

    def bind(self, keys: Iterable[str], prefix: str = "") -> Bound:
        """The map for one source's keys, all of which may begin with a trainer's prefix."""
        return Bound(self, keys, prefix)


class Bound:
    """A map for the keys of one source: which are there, under which of their names.

    actual: the plain key -> as the source has it. repeats: keys that say the same as another. foreign: keys without the
    prefix that the others have.
    """

    def __init__(self, mapping: Map, keys: Iterable[str], prefix: str = ""):
        self.map = mapping
        self.actual: dict[str, str] = {}
        self.repeats: list[str] = []
        self.foreign = [key for key in keys if not key.startswith(prefix)]
        plain = {key: mapping.plain(key[len(prefix) :]) for key in keys if key.startswith(prefix)}
        for key in sorted(plain, key=lambda key: plain[key] != key[len(prefix) :]):  # plain names first: they win
            if self.actual.setdefault(plain[key], key) != key:
                self.repeats.append(key)
        self._last = {
            rule: self._greatest(rule) for rule in mapping.rules if "last" in rule.ours.text + rule.theirs.text
        }

    @property
    def tops(self) -> set[str]:
        """The first parts of our nodes' names."""
        return {rule.node.text.partition(".")[0] for rule in self.map.rules}

    def _greatest(self, rule: Rule) -> int:
        """One number for all that stands in a row, or a single key of a layer more would move the others."""
        start = rule.theirs.text.partition("{")[0]
        found: dict[int, str] = {}  # the greatest number by each of the row's rules -> a key that has it
        for other in self.map.rules:
            if other.theirs.text.partition("{")[0] == start:
                numbers = {n: key for key in self.actual if (n := other.theirs.number(key)) is not None}
                if numbers:
                    found.setdefault(max(numbers), numbers[max(numbers)])
        if len(found) > 1:
            few, most = min(found), max(found)
            raise WeightsError(
                f"as {self.map.name}, the row {start}* has no clear end, by which ours are counted: it has "
                f"{self.actual[found[most]]}, but nothing like {self.actual[found[few]]} beyond {few}"
            )
        return next(iter(found), rule.last)

    def last(self, rule: Rule) -> int | None:
        """The greatest number at the rule's place in the source."""
        return self._last.get(rule)

    def wanted(self, tensor: str, node: str, block: str) -> Want | str | None:
        """What a tensor of ours is in the source; the block it would be for, where ours is another; None if nothing.

        `tensor` and `node` are names in the shipped recipe, `block` is what the node is in the model.
        """
        other = None
        for rule in self.map.rules:
            if rule.node.match(node, self.last(rule)) is None:
                continue
            values = rule.ours.match(tensor, self.last(rule)) if block in rule.blocks else None
            if values is not None:
                key = rule.theirs.fill(values, self.last(rule))
                if key is not None:
                    optional = tensor.rpartition(".")[2] in self.map.optional
                    return Want(key, rule.transform, optional, rule.assumed)
            elif block not in rule.blocks and self._has(rule, node):
                other = " or ".join(rule.blocks)
        return other

    def _has(self, rule: Rule, node: str) -> bool:
        values = rule.node.match(node, self.last(rule))
        return values is not None and rule.theirs.fill(values, self.last(rule)) in self.actual

    def places(self, key: str) -> list[tuple[str, str, str]]:
        """Where the source's key goes: (node, part of it that has to be built, tensor) of ours.

        What the key doesn't say is left as `{r}`.
        """
        found = []
        for rule in self.map.rules:
            values = rule.theirs.match(self.map.plain(key))
            if values is not None:
                names = [pattern.fill(values, self.last(rule)) for pattern in (rule.node, rule.part, rule.ours)]
                if None not in names:
                    node, part, tensor = map(str, names)
                    found.append((node, part, tensor))
        return found

    def same_block(self, node: str, block: str) -> bool:
        """Whether the table has this block at a node (of the shipped recipe)."""
        rules = self.map.rules
        return any(block in rule.blocks and rule.node.match(node, self.last(rule)) is not None for rule in rules)


def _rules(node: Node) -> list[Rule]:
    blocks = (node.block,) if isinstance(node.block, str) else node.block
    return [
        Rule(
            Pattern(node.ours),
            blocks,
            Pattern(f"{node.ours}.{part}" if (part := ours.partition(".")[0]) in node.optional else node.ours),
            Pattern(f"{node.ours}.{ours}"),
            Pattern(_joined(node.theirs, theirs)),
            transform,
            node.last,
            node.assumed,
        )
        for ours, theirs, transform in _spread(node.tensors)
    ]


def _spread(leaves: Leaves, ours: str = "", theirs: str = "") -> list[tuple[str, str, Transform]]:
    found = []
    for name, what in leaves.items():
        other, rest = (what, None) if isinstance(what, str) else what
        if isinstance(rest, Mapping):
            found += _spread(rest, f"{ours}{name}.", _joined(theirs, other))
        else:
            found.append((ours + name, _joined(theirs, other), Transform(rest) if rest else AS_IS))
    return found


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
