"""Which tracks train which head of a model, at which resolution and scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from math import ceil, inf
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...data.tracks import Sight, Track, swapped
from ...errors import near
from ...graph.borders import Border, borders
from ...graph.dims import Length, number
from ...graph.resolved import Resolved
from ..errors import RunError
from ..wiring import Target, Wiring, model_inputs
from .heads import HeadTracks

ORGANISM = "organism"


@dataclass(frozen=True)
class TrackWiring(Wiring):
    """A wiring for windows of a genome. `targets` name every track of every head, `<head>/<track>`.

    window: bases of the windows that it was made for.
    """

    layouts: tuple[HeadTracks, ...] = ()
    window: int = 0

    @property
    def on_tracks(self) -> bool:
        return True

    @cached_property
    def of(self) -> Mapping[str, HeadTracks]:
        """What each head learns, by its name."""
        return {layout.head: layout for layout in self.layouts}

    def trained(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every head's targets as its loss takes them."""
        return {head: self.of[head].trained(values) for head, values in targets.items()}

    def measured(self, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every head's outputs (or trained targets) as measured; what is no head's is left out."""
        return {head: layout.measured(made[head]) for head, layout in self.of.items()}

    def turned(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every head's measured values as the other strand has them."""
        return {head: self.of[head].turned(value) for head, value in values.items()}

    def with_means(self, means: ArrayLike, standardise: bool = True) -> TrackWiring:
        """The same with units from the tracks' means (`GenomeTracks.means`). Shapes: means (tracks,).

        standardise: whether heads without a scale of their own learn targets divided by the unit.
        """
        found = [float(mean) for mean in torch.as_tensor(means).tolist()]
        made = []
        for layout in self.layouts:
            unit = [
                found[track] * (layout.resolution if aggregation == "sum" else 1)
                for track, aggregation in zip(layout.tracks, layout.aggregation, strict=True)
            ]
            made.append(replace(layout, unit=tuple(unit), divided=standardise))
        return replace(self, layouts=tuple(made))

    def ready(self, model: Any) -> None:
        """Set `track_means` of heads that scale targets themselves, for this wiring's organism."""
        organism = dict(self.constants).get(ORGANISM, 0)
        for layout in self.layouts:
            if layout.own:
                head = model.get_submodule(layout.head)
                unit = torch.tensor(layout.unit, dtype=head.track_means.dtype) / layout.resolution
                with torch.no_grad():
                    head.track_means[organism, : len(unit)] = unit

    def sight(self, resolved: Resolved, shift: int = 0) -> Sight:
        """What a window shows and what is asked there, for splits: the reach of the head that sees most."""
        reach: int | None = 0
        for layout in self.layouts:
            field = resolved.info(layout.head).field
            if field is None or reach is None:
                reach = None
            else:
                right = field.high - layout.offset - (layout.resolution - 1)
                reach = max(reach, ceil(layout.offset - field.low), ceil(right))
        first = min(layout.offset for layout in self.layouts)
        last = max(layout.offset + layout.bins * layout.resolution for layout in self.layouts)
        return Sight(first, last, reach, shift)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        layouts = [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(e).items()} for e in self.layouts]
        for layout in layouts:
            if layout["divided"]:  # it came later: runs that were started before say nothing of it
                del layout["divided"]
        return {**{k: v for k, v in super().to_dict().items() if k != "layouts"}, "layouts": layouts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrackWiring:
        """What `to_dict` wrote. Raises TypeError, KeyError or ValueError for anything else."""
        plain = Wiring.from_dict({k: v for k, v in values.items() if k not in ("layouts", "window")})
        names = {f.name for f in fields(HeadTracks)}
        layouts = []
        for entry in values["layouts"]:
            if set(entry) | {"divided"} != names:
                raise KeyError(f"keys {sorted(entry)}")
            kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            layout = HeadTracks(**kept)
            if not all(0 < unit < inf for unit in layout.unit) or len(layout.unit) != len(layout.names):
                raise ValueError(f"units {layout.unit} of head {layout.head!r}")
            layouts.append(layout)
        made = cls(plain.dna, plain.reverse, plain.constants, plain.targets, tuple(layouts), int(values["window"]))
        if made.targets != _targets(made.layouts):
            raise ValueError("targets are not the tracks of the heads")
        return made

    def check_strands(self) -> None:
        """Whether the bins of a turned window are those of the window. Errors: `RunError` where they are others."""
        for layout in self.layouts:
            left, covered = layout.offset, layout.bins * layout.resolution
            if (right := self.window - left - covered) != left:
                raise RunError(
                    f"head {layout.head!r}: its bins begin {left} bases behind the window's start and end {right} "
                    "before its end, so the other strand has others; strands='one', or a window that it covers evenly"
                )

    def check(self, resolved: Resolved) -> None:
        """Whether it is of this recipe. Errors: `RunError`."""
        there = _borders(resolved, self.dna, self.window)
        for layout in self.layouts:
            border = there.get(layout.head)
            found = None if border is None else (border.stride, border.offset, border.count)
            if found != (layout.resolution, layout.offset, layout.bins):
                raise RunError(f"head {layout.head!r} does not give bins of {layout.resolution} bp as they were learnt")


def wire_tracks(
    resolved: Resolved,
    tracks: Sequence[Track],
    window: int,
    heads: Mapping[str, Sequence[str]] | None = None,
    inputs: Mapping[str, int] | None = None,
) -> TrackWiring:
    """Wire tracks to the heads of a model, each at its own resolution; units come later (`with_means`).

    heads: head -> names of its tracks. Without it every head learns all tracks, but for those whose `resolutions` name
        others.
    inputs: values of whole-number inputs; `organism` by default the tracks'.
    Errors: `RunError` for a window that the model does not take, heads that give no track, widths that differ from the
    number of tracks, tracks that no head learns, tracks of another organism.
    """
    given = _organism(resolved, tracks, dict(inputs or {}))
    dna, _, constants = model_inputs(resolved, given)
    _check_window(resolved, dna, window)
    there = _borders(resolved, dna, window)
    if heads is not None and (odd := [head for head in heads if head not in resolved.heads]):
        raise RunError(f"there is no head {odd[0]!r}; {near(odd[0], resolved.heads)}")
    if heads is not None and (left := [head for head in resolved.heads if head not in heads]):
        raise RunError(f"head {left[0]!r} would learn nothing; name its tracks, or remove it from the recipe")
    names = [track.name for track in tracks]
    layouts = []
    for head in resolved.heads:
        border = there[head]
        if border is None:
            shape = resolved.info(head).shape
            raise RunError(f"head {head!r} gives {shape}, no track along the sequence; remove it from the recipe")
        resolution = _whole(border, head)
        if border.offset + border.count * resolution > window:
            raise RunError(
                f"head {head!r}: {border.count} bins of {resolution} bp pass a window of {window:,} bases; wanted "
                f"a multiple of {resolution}"
            )
        if heads is not None:
            if odd := [name for name in heads[head] if name not in names]:
                raise RunError(f"head {head!r}: there is no track {odd[0]!r}; {near(odd[0], names)}")
            chosen = [names.index(name) for name in heads[head]]
        else:
            chosen = [i for i, t in enumerate(tracks) if not t.resolutions or resolution in t.resolutions]
        layouts.append(_layout(resolved, head, border, resolution, chosen, tracks, dict(constants)))
    if idle := [name for i, name in enumerate(names) if not any(i in layout.tracks for layout in layouts)]:
        bins = ", ".join(f"{layout.head} {layout.resolution} bp" for layout in layouts)
        raise RunError(f"no head learns {', '.join(idle)}; the heads have bins of {bins}")
    return TrackWiring(dna, None, constants, _targets(layouts), tuple(layouts), window)


def _layout(
    resolved: Resolved,
    head: str,
    border: Border,
    resolution: int,
    chosen: Sequence[int],
    tracks: Sequence[Track],
    constants: Mapping[str, int],
) -> HeadTracks:
    node, width = resolved.nodes[head], number(resolved.info(head).axes[1])
    assert width is not None
    own = "track_means" in getattr(node.entry.target, "__annotations__", {})
    real = node.args.get("real")
    wanted = real[constants.get(ORGANISM, 0)] if own and real is not None else width
    if len(chosen) != wanted:
        what = f"{head}.real" if own and real is not None else f"{head}.tracks"
        raise RunError(
            f"head {head!r} has {wanted} tracks{' of this organism' if wanted != width else ''}, but would learn "
            f"{len(chosen)}: {', '.join(tracks[i].name for i in chosen) or 'none'}; set {what}={len(chosen)}"
        )
    if own and node.args.get("resolution", resolution) != resolution:
        said = node.args["resolution"]
        would = f"set {head}.resolution={resolution}"
        raise RunError(f"head {head!r} says resolution {said}, but its bins are of {resolution} bp; {would}")
    mine = [tracks[i] for i in chosen]
    if own and (squashed := [track.name for track in mine if track.squash != "none"]):
        raise RunError(
            f"head {head!r} has a scale of its own, so {squashed[0]!r} is not squashed; set {head}.squash=true"
        )
    return HeadTracks(
        head, tuple(t.name for t in mine), tuple(chosen), resolution, int(border.offset), border.count, width,
        swapped(mine), tuple(t.aggregation for t in mine), tuple(t.squash for t in mine), own,
        (1.0,) * len(mine),
    )  # fmt: skip


def _targets(layouts: Sequence[HeadTracks]) -> tuple[Target, ...]:
    return tuple(Target(f"{e.head}/{name}", e.head, i) for e in layouts for i, name in enumerate(e.names))


def _borders(resolved: Resolved, dna: str, window: int) -> dict[str, Border | None]:
    axis = resolved.inputs[dna].axes[2]
    symbols = axis.symbols if isinstance(axis, Length) else ()
    return borders(resolved, resolved.heads, dict.fromkeys(symbols, window))


def _whole(border: Border, head: str) -> int:
    if border.stride.denominator != 1 or border.offset.denominator != 1:
        raise RunError(f"head {head!r} has {border.stride} bases a bin, from {border.offset} on; wanted whole numbers")
    return int(border.stride)


def _check_window(resolved: Resolved, dna: str, window: int) -> None:
    axis = resolved.inputs[dna].axes[2]
    fixed = number(axis)
    if fixed is not None and window != fixed:
        raise RunError(f"the model {resolved.name!r} takes {fixed} bases, the windows have {window:,}")
    if fixed is None and isinstance(axis, Length):
        rule = resolved.rule()
        if not rule.admits({axis.symbols[0]: window}):
            raise RunError(f"windows of {window:,} bases don't fit {resolved.name!r}: it wants a length where {rule}")


def _organism(resolved: Resolved, tracks: Sequence[Track], given: dict[str, int]) -> dict[str, int]:
    found = sorted({track.organism for track in tracks})
    if ORGANISM not in resolved.inputs:
        return given
    wanted = given.setdefault(ORGANISM, found[0])
    if odd := [track for track in tracks if track.organism != wanted]:
        raise RunError(f"track {odd[0].name!r} is of organism {odd[0].organism}, trained is {wanted}; one at a time")
    return given
