"""Hypothesis strategies: arguments for a block, shapes that fit its signature, tensors, and whole recipes.

    @given(strategies.cases(lookup("conv.down")))
    def test(case): ...

Everything is valid by construction and small; nothing is drawn to be thrown away, except where a constructor refuses
its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import assume, reject
from hypothesis import strategies as st
from torch import Tensor

from ..errors import RecipeError
from ..graph.registry import Entry, entries
from .arguments import arguments
from .case import AnyCase, Case, GraphCase
from .mutations import mutations
from .recipes import recipes
from .solve import Solution, dims_of, near_sizes, refusal, solve, subsets

__all__ = ["arguments", "cases", "inputs", "mutations", "recipes", "wirings"]

refusals: dict[str, str] = {}  # the last words of a constructor, by block
SMALL = (1, 2, 3, 4, 6, 8)


def wirings(entry: Entry, args: Mapping[str, Any]) -> st.SearchStrategy[dict[str, tuple[int, ...]]]:
    """Shapes for the ports of a block or head that fit its signature; optional ports are there or not."""
    return _wirings(entry, args)


@st.composite
def _wirings(draw: st.DrawFn, entry: Entry, args: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    solution = draw(_solutions(entry, args))
    values = {"B": draw(st.sampled_from((2, 3)))}
    for name in solution.symbols:
        values[name] = draw(st.sampled_from(solution.lengths(name)))
    assume(solution.rule.admits(values))
    return solution.shapes(values)


@st.composite
def _solutions(draw: st.DrawFn, entry: Entry, args: Mapping[str, Any]) -> Solution:
    for ports in draw(st.permutations(list(subsets(entry)))):
        first = {name: draw(st.sampled_from(SMALL)) for name in dims_of(entry, ports)}
        for dims in near_sizes(first):
            solution = solve(entry, args, ports, dims)
            if solution is None:
                continue
            said = refusal(solution)
            if said is None:
                return solution
            refusals[entry.name] = said
            if not dims:
                break
    reject()


def inputs(entry: Entry, args: Mapping[str, Any] | None = None) -> st.SearchStrategy[dict[str, Tensor | None]]:
    """Tensors for the ports of a block: what its forward takes, in order."""
    return cases(entry, args).map(lambda case: case.inputs())


def cases(entry: Entry, fixed: Mapping[str, Any] | None = None) -> st.SearchStrategy[AnyCase]:
    """An entry with arguments, shapes and a seed. `fixed` are arguments, values or strategies."""
    if entry.kind == "composite":
        return _graph_cases(entry, fixed)
    return _cases(entry, fixed)


@st.composite
def _cases(draw: st.DrawFn, entry: Entry, fixed: Mapping[str, Any] | None) -> Case:
    args = draw(arguments(entry, fixed))
    shapes = draw(_wirings(entry, args))
    told = {k: v for k, v in args.items() if v != entry.defaults[k] or type(v) is not type(entry.defaults[k])}
    return Case(entry.name, told, shapes, draw(st.integers(0, 3)))


@st.composite
def _graph_cases(draw: st.DrawFn, entry: Entry, fixed: Mapping[str, Any] | None) -> GraphCase:
    args = draw(arguments(entry, fixed))
    width = draw(st.sampled_from(SMALL))
    encoder = draw(small_encoders()) if any(port.pyramid for port in entry.signature.inputs) else None
    for channels in (width, 8, 4, 16, 12, 32, 64):
        case = GraphCase(around(entry, args, channels, encoder), {}, 2, 0)
        try:
            admitted = case.admitted()
        except RecipeError as error:
            refusals[entry.name] = str(error)
            continue
        if admitted and max(admitted[0].values(), default=0) <= 4096:
            lengths = draw(st.sampled_from(admitted))
            return GraphCase(case.recipe, lengths, 2, draw(st.integers(0, 3)))
    reject()


def around(entry: Entry, args: Mapping[str, Any], channels: int, encoder: Mapping[str, Any] | None) -> dict[str, Any]:
    """A recipe of one composite, its tracks from the inputs or, where it takes a pyramid, from an encoder."""
    made: dict[str, Any] = {"recipe": 1, "inputs": {}, "nodes": {}, "keep": ["node", "node.*"]}
    wiring = {}
    if encoder is not None:
        made["inputs"]["dna"] = "B 4 L"
        made["nodes"]["encoder"] = {"in": "dna", **encoder}
    for port in entry.signature.inputs:
        if port.optional and not port.pyramid:
            continue
        track = len(port.axes) == 3 and not port.integer
        if encoder is not None and (port.pyramid or track):
            wiring[port.name] = "encoder"
            continue
        axes = []
        for index, axis in enumerate(port.axes):
            text = str(axis).partition(">=")[0]
            known = args.get(text, text)
            text = str(known) if isinstance(known, int) else text
            axes.append(text if text == "B" or text.isdigit() or (index > 1 and text.isidentifier()) else str(channels))
        made["inputs"][port.name] = " ".join(axes)
        wiring[port.name] = port.name
    node: dict[str, Any] = {"block": entry.name, "in": wiring}
    if args:
        node["args"] = dict(args)
    made["nodes"]["node"] = node
    return made


@st.composite
def small_encoders(draw: st.DrawFn) -> dict[str, Any]:
    """A registered composite that takes DNA and shows stages, with small arguments."""
    found = [
        entry
        for entry in entries().values()
        if entry.kind == "composite"
        and [str(port).partition(": ")[2] for port in entry.signature.inputs if not port.optional] == ["B 4 L"]
    ]
    assume(found)
    entry = draw(st.sampled_from(found))
    args = draw(arguments(entry))
    return {"block": entry.name, **({"args": args} if args else {})}
