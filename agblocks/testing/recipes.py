"""Whole random recipes that resolve: grown node by node, each node wired where it fits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from ..errors import RecipeError
from ..graph.dims import text
from ..graph.registry import Entry, entries
from ..graph.resolve import Resolved, resolve
from ..graph.signature import Port
from .arguments import arguments

TRIES = 12  # wirings tried for one node
LENGTHS = ("L", "64", "L", "128")
FAMILIES = ("encoder", "tower", "decoder")


@st.composite
def recipes(draw: st.DrawFn, pool: Iterable[str] | None = None, most: int = 3) -> dict[str, Any]:
    """A recipe out of registered blocks: an encoder, up to `most` further nodes, heads, taps, remarks and `keep`.

    `pool` are the names to draw from (default: everything that agblocks itself registers).
    """
    known = _pool(pool)
    length = draw(st.sampled_from(LENGTHS))
    inputs = {"dna": f"B 4 {length}", "organism": "B"}
    if draw(st.booleans()):
        inputs["positions?"] = f"B 4 {draw(st.sampled_from((1, 2, 3)))} < {length}"
    grown = Growth({"recipe": 1, "inputs": inputs})
    families = [[e for e in known if e.name.startswith(f"{family}.")] for family in FAMILIES]
    rest = [e for e in known if e.kind != "head"]
    assume(rest)
    later = [family or rest for family in (*families[1:], rest)]
    for number in range(draw(st.integers(1, 1 + most))):
        choice = families[0] or rest if number == 0 else later[draw(st.integers(0, len(later) - 1))]
        grown.add(draw, f"n{number}", draw(st.sampled_from(choice)))
    heads = [e for e in known if e.kind == "head"]
    for number in range(draw(st.integers(1, 2)) if heads else 0):
        grown.add(draw, f"h{number}", draw(st.sampled_from(heads)))
    return grown.finished(draw)


def _pool(names: Iterable[str] | None) -> list[Entry]:
    found = entries()
    if names is not None:
        return [found[name] for name in names]
    return [e for e in found.values() if e.target.__module__.startswith("agblocks.")]


class Growth:
    """A recipe that resolves at every step."""

    def __init__(self, recipe: dict[str, Any]):
        self.recipe = {**recipe, "nodes": {}, "heads": {}}
        self.resolved: Resolved | None = None

    def add(self, draw: Any, name: str, entry: Entry) -> None:
        """Add a node, wired to edges drawn from those that fit; leave it out where none does."""
        args: dict[str, Any] = draw(arguments(entry))
        section = "heads" if entry.kind == "head" else "nodes"
        choices: list[list[str | None]] = []
        for port in entry.signature.inputs:
            fits: list[str | None] = list(self.edges(port))
            if not fits and not port.optional:
                return
            first = draw(st.integers(0, len(fits) - 1)) if fits else 0
            order: list[str | None] = [*fits[first:], *fits[:first]]
            if port.optional:
                order = [*order, None] if draw(st.booleans()) else [None, *order]
            choices.append(order)
        for wiring in itertools.islice(itertools.product(*choices), TRIES):
            ports = zip(entry.signature.inputs, wiring, strict=True)
            node: dict[str, Any] = {"block": entry.name, "in": {p.name: edge for p, edge in ports if edge is not None}}
            if args:
                node["args"] = args
            tried = {**self.recipe, section: {**self.recipe[section], name: node}}
            try:
                resolved = resolve({**tried, "keep": ["*"]})
            except RecipeError:
                continue
            if _modest(resolved):
                self.recipe, self.resolved = tried, resolved
                return

    def edges(self, port: Port) -> list[str]:
        """The edges of the kind a port takes, the latest first."""
        if port.pyramid:
            return list(reversed(self.recipe["nodes"]))
        if self.resolved is None:
            known = {"dna": (3, False), "organism": (1, True)}
        else:
            known = {name: (len(i.axes), i.integer) for name, i in self.resolved.edges.items()}
            known |= {"dna": (3, False), "organism": (1, True)}
        fits = [name for name, kind in known.items() if kind == (len(port.axes), port.integer)]
        return fits[::-1][:8]

    def finished(self, draw: Any) -> dict[str, Any]:
        """The recipe with remarks on shapes, weights and what to keep; it resolves."""
        assume(self.resolved is not None)
        assert self.resolved is not None
        made = {key: dict(part) if isinstance(part, dict) else part for key, part in self.recipe.items()}
        for section in ("nodes", "heads"):
            for name, node in made[section].items():
                made[section][name] = node = dict(node)
                if name in self.resolved.outputs and draw(st.booleans()):
                    node["shape"] = " ".join(map(text, self.resolved.info(name).axes))
                if section == "heads" and draw(st.booleans()):
                    node["weight"] = draw(st.sampled_from((0.5, 2, 1.0)))
        outputs = [name for name in self.resolved.outputs if name not in made["heads"]]
        if not made["heads"]:
            made["keep"] = [draw(st.sampled_from(outputs))]
        elif outputs and draw(st.booleans()):
            several = st.lists(st.sampled_from(outputs), min_size=1, max_size=2, unique=True)
            made["keep"] = list(draw(several))
        made = {key: part for key, part in made.items() if part != {}}
        resolve(made)
        return made


def _modest(resolved: Resolved) -> bool:
    """Whether the shortest admitted input is short enough for a test."""
    try:
        return next(resolved.rule(resolved.keep).lengths("L")) <= 2048 and len(resolved.nodes) <= 60
    except (StopIteration, OverflowError):
        return False


def wider(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with nothing dropped."""
    return {**recipe, "keep": ["*"]}
