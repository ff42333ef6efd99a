"""Which positions of a window's tracks hang on where the window ends, and where on the window each position lies.

A window cut out of a longer sequence has neighbours that its model does not see: convolutions pad there, so positions
near the cut come out otherwise than in the longer sequence. The chains that blocks declare (`reach`) say how near, and
this follows them through the recipe in whole positions, which says it of padded inner tracks too, cropped ones and
pools whose grid the window cuts. Plain arithmetic over a resolved recipe; nothing is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, lcm

from .dims import Dim, Length
from .infer import EdgeInfo
from .reach import EVERYTHING, steps
from .resolved import Resolved, ResolvedNode
from .signature import Unbound


@dataclass(frozen=True)
class Border:
    """A track of a window. Position i stands for the bases from `offset + stride * i` on, `stride` of them.

    count: positions. start, end: positions from `start` up to `end` are as in any longer sequence around the window;
    where the window's left end is also the sequence's, those before are too, and likewise on the right.
    exact: False where some block sees everything (or knows where in the window it is), so that nothing is promised;
    `start` and `end` are then the whole track.
    """

    stride: Fraction
    offset: Fraction
    count: int
    start: int
    end: int
    exact: bool = True


def borders(resolved: Resolved, edges: Iterable[str], lengths: Mapping[str, int]) -> dict[str, Border | None]:
    """The borders of these edges (under any of their names) where the inputs have these lengths; None is no track.

    `lengths` gives the inputs' open symbols: {"L": 2048}. Raises ValueError where two tracks that meet in a node have
    come to different strides, which no length rule allows.
    """
    known: dict[str, Border | None] = {}
    for name, info in resolved.inputs.items():
        count = _count(info, lengths)
        known[name] = None if count is None else Border(Fraction(1), Fraction(0), count, 0, count)
    for node in resolved.needed(edges):
        wired = {port: known[edge] for port, edge in node.inputs.items()}
        found = _through(node, wired)
        for edge in node.outputs:
            info = resolved.edges[edge]
            count = _count(info, lengths)
            known[edge] = None if found is None or count is None else _as(found, info.axes[2], count)
    return {edge: known[resolved.edge(edge)] for edge in edges}


def grid(resolved: Resolved, edges: Iterable[str], lengths: Mapping[str, int]) -> int:
    """The least number of bases by which a window can be moved so that every pool's grid stays where it was."""
    inner = [edge for node in resolved.needed(edges) for edge in node.outputs]
    found = [border.stride for border in borders(resolved, inner, lengths).values() if border is not None]
    return lcm(1, *(stride.numerator for stride in found))  # a whole multiple of n/d is a multiple of n


def _through(node: ResolvedNode, wired: Mapping[str, Border | None]) -> tuple[Border, bool] | None:
    """What a node makes of its tracks, and whether its stride is known; the count is still that of the first track."""
    tracks = {port: border for port, border in wired.items() if border is not None}
    if not tracks:
        return None
    first = next(iter(tracks.values()))
    made = [_follow(border, node.entry.reach.get(port, EVERYTHING), node) for port, border in tracks.items()]
    known = [border for border in made if border is not None]
    if len(known) < len(made):
        return replace(first, exact=False), False
    if len({border.stride for border in known}) > 1:
        raise ValueError(f"node {node.name!r} joins tracks of strides {', '.join(str(b.stride) for b in known)}")
    met = replace(
        known[0],
        start=max(border.start for border in known),
        end=min(border.end for border in known),
        exact=all(border.exact for border in known) and not _sees_more(node, tracks),
    )
    return met, True


def _follow(border: Border, chain: str, node: ResolvedNode) -> Border | None:
    """Behind a chain, the count aside; None sees everything."""
    if chain == EVERYTHING:
        return None
    stride, offset, start, end = border.stride, border.offset, border.start, border.end
    try:
        words = steps(chain, {**node.args, **node.dims})
    except (ValueError, Unbound):
        return None
    for word, numbers in words:
        by = numbers[0]
        if word == "conv":
            dilation = numbers[1] if len(numbers) > 1 else 1
            start, end = start + dilation * ((by - 1) // 2), end - dilation * (by // 2)
        elif word == "pool":
            step = numbers[1] if len(numbers) > 1 else by
            stride, start, end = stride * step, ceil(Fraction(start, step)), (end - by) // step + 1
        elif word == "up":
            stride, start, end = stride / by, start * by, end * by
        else:
            crop = by if word == "shift" else (border.count - by) // 2  # `center` stands first in its chain
            offset, start, end = offset + stride * crop, max(start - crop, 0), end - crop
    return Border(stride, offset, border.count, start, end, border.exact)


def _sees_more(node: ResolvedNode, tracks: Mapping[str, Border]) -> bool:
    """Whether a block reads a pair map or a vector too, or is bound to a length and so may tell positions apart."""
    ports = [port for port in node.entry.signature.inputs if port.name in node.inputs and len(port.axes) > 1]
    bound = (port.axes[2].symbol for port in ports if len(port.axes) == 3)
    return any(port.name not in tracks for port in ports) or any(
        {**node.dims, **node.args}.get(name or "") for name in bound
    )


def _as(found: tuple[Border, bool], axis: Dim, count: int) -> Border | None:
    """The border as an edge with this axis and so many positions; None where nobody knows where they lie."""
    border, known = found
    if border.exact:
        start = min(border.start, count)
        return replace(border, count=count, start=start, end=max(min(border.end, count), start))
    if not known and (slope := _slope(axis)):
        border = replace(border, stride=1 / slope)
    elif not known and count != border.count:
        return None
    return replace(border, count=count, start=0, end=count)


def _slope(dim: Dim) -> Fraction | None:
    slopes = {} if isinstance(dim, int) else dim.slopes
    return next(iter(slopes.values())) if len(slopes) == 1 else None


def _count(info: EdgeInfo, lengths: Mapping[str, int]) -> int | None:
    """Positions of a track; None for what is none."""
    if len(info.axes) != 3 or info.integer or not isinstance(info.axes[1], int):
        return None
    dim = info.axes[2]
    return floor(dim.at(lengths)) if isinstance(dim, Length) else dim
