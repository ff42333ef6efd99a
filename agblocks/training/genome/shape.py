"""From a resolved recipe to what the tiler asks of a model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm

from ...errors import near
from ...graph.borders import Border, borders, grid
from ...graph.dims import Length, number
from ...graph.resolved import Resolved
from .tiling import Shape, Span, TilingError

USUAL = 1 << 16  # bases of a window, where nothing asks for another
LONGEST = 1 << 28


@dataclass(frozen=True)
class Reads:
    """How a recipe reads windows: `shape` for the tiler; `exact` says whether cropped windows are one long window's.

    rule: which lengths it takes, in words.
    """

    outputs: tuple[str, ...]
    shape: Shape
    exact: bool
    rule: str

    def usual(self) -> int:
        """A window for recipes that don't see everything: 65,536 bases, or more where their borders are wide.

        Where the recipe crops to a number of bins, the shortest whose bins are all usable.
        Errors: `TilingError` for recipes that see everything: their predictions hang on the window.
        """
        shape = self.shape
        if not self.exact:
            raise TilingError(
                "the recipe sees the whole window (attention, or a crop of unknown place), so its predictions hang on "
                f"the window's length: say which, best the one it was trained on ({self.rule})"
            )
        if shape.fixed:
            every = range(0, LONGEST, shape.grid)
            at = bisect_left(every, True, lo=1, key=lambda n: self._whole(shape.admitted(n)))
            return shape.admitted(every[at] if at < len(every) else LONGEST)
        window = shape.admitted(USUAL)
        lost = max(s.stride * (s.start + s.count - s.end) + 2 * s.offset for s in shape.spans(window).values())
        return window if lost * 8 < window else shape.admitted(8 * lost)

    def _whole(self, window: int) -> bool:
        return all(span.start == 0 and span.end == span.count for span in self.shape.spans(window).values())


def reads(resolved: Resolved, outputs: Sequence[str], dna: str) -> Reads:
    """What the tiler asks, for these outputs of a recipe whose DNA is the input `dna`.

    Errors: `TilingError` for an output that is no track, or whose bins are no whole numbers of bases; for lengths that
    nobody can list.
    """
    outputs = tuple(outputs)
    axis = resolved.inputs[dna].axes[2]
    assert isinstance(axis, Length)
    stated = number(axis)
    symbol = "" if stated is not None else axis.symbols[0]
    rule = resolved.rule(outputs)
    example = stated or next(iter(rule.lengths(symbol)))
    period = lcm(*(condition.period for condition in rule.conditions if condition.kind != "at least"), 1)
    found = rule.residues(symbol) if symbol else None
    step = lcm(grid(resolved, outputs, {symbol: example}), found[0] if found else period)

    @lru_cache(maxsize=4096)
    def at(window: int) -> Mapping[str, Border]:
        made = borders(resolved, outputs, {symbol: window})
        return {name: _track(name, border, resolved) for name, border in made.items()}

    def spans(window: int) -> Mapping[str, Span]:
        return {
            name: Span(int(border.stride), int(border.offset), border.count, border.start, border.end)
            for name, border in at(window).items()
        }

    def admitted(length: int) -> int:
        if stated is not None:
            if length > stated:
                raise TilingError(f"the recipe states windows of {stated:,} bases, and {length:,} are more")
            return stated
        low = max(length, rule.lower_bound(symbol))
        for candidate in range(low, low + 2 * step + 1):
            if rule.admits({symbol: candidate}):
                return candidate
        raise TilingError(f"no length from {length:,} bases on fits: {rule}")

    same = stated is not None or any(not _grows(resolved.info(name).axes[2], symbol) for name in outputs)
    exact = all(border.exact for border in at(example).values())
    said = f"windows of {stated:,} bases" if stated is not None else str(rule)
    return Reads(outputs, Shape(spans, step, lru_cache(maxsize=4096)(admitted), same), exact, said)


def tracks(resolved: Resolved) -> tuple[str, ...]:
    """The heads that are tracks."""
    return tuple(name for name in resolved.heads if _is_track(resolved, name))


def _is_track(resolved: Resolved, name: str) -> bool:
    info = resolved.info(name)
    return len(info.axes) == 3 and isinstance(info.axes[1], int) and not info.integer


def check_outputs(resolved: Resolved, outputs: Sequence[str]) -> tuple[str, ...]:
    """These outputs, or all heads that are tracks. Errors: `TilingError` for what is unknown or no track."""
    known = tracks(resolved)
    for name in outputs:
        if name not in resolved.outputs:
            raise TilingError(f"there is no output {name!r}; {near(name, resolved.outputs)}")
        if not _is_track(resolved, name):
            raise TilingError(f"output {name!r} is {resolved.info(name).shape}, no track along the sequence; "
                              f"heads that are: {', '.join(known) or 'none'}")  # fmt: skip
    if not outputs and not known:
        heads = ", ".join(f"{name} {resolved.info(name).shape}" for name in resolved.heads)
        raise TilingError(f"no head of {resolved.name!r} is a track [B tracks L]: it has {heads or 'no heads'}")
    return tuple(outputs) or known


def _track(name: str, border: Border | None, resolved: Resolved) -> Border:
    if border is None:
        raise TilingError(f"output {name!r} {resolved.info(name).shape}: nobody knows where its positions lie")
    if border.stride.denominator != 1 or border.offset.denominator != 1:
        raise TilingError(
            f"output {name!r} has {1 / border.stride} positions a base, from base {border.offset} on; "
            "wanted bins of whole bases"
        )
    return border


def _grows(axis: object, symbol: str) -> bool:
    return isinstance(axis, Length) and bool(axis.slopes.get(symbol))
