"""Which tensor of the source goes to which of the model: decided by names, shapes and types before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from ..errors import near
from ..graph.model import GraphModel
from .errors import WeightsError
from .mapping import Bound, Want
from .own import OwnBound
from .report import Report
from .source import Source
from .transform import Transform


@dataclass(frozen=True)
class Copy:
    """One tensor to load."""

    ours: str
    key: str
    transform: Transform


@dataclass(frozen=True)
class Names:
    """How the model's nodes are called, against the recipe that the map is written for.

    nodes: the map's name -> the model's, for a node or a whole composite.
    """

    nodes: Mapping[str, str]

    def standard(self, name: str) -> str | None:
        """The map's name for a name of the model; None where that name is another node's by `nodes`."""
        best = max((m for m in self.nodes.items() if under(name, m[1])), key=lambda m: len(m[1]), default=None)
        if best is not None:
            return best[0] + name[len(best[1]) :]
        return None if any(under(name, standard) for standard in self.nodes) else name

    def ours(self, name: str) -> str | None:
        """The model's name for one of the map's; None where `nodes` gives that name to something else."""
        best = max((m for m in self.nodes.items() if under(name, m[0])), key=lambda m: len(m[0]), default=None)
        if best is not None:
            return best[1] + name[len(best[0]) :]
        return None if any(under(name, ours) for ours in self.nodes.values()) else name


def under(name: str, start: str) -> bool:
    """Whether a dotted name is another, or lies inside it."""
    return name == start or name.startswith(f"{start}.")


def selected(tensor: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern fits a tensor's name, or a node, composite or module that it lies in."""
    parts = tensor.split(".")
    heads = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(head, pattern) for pattern in patterns for head in heads)


def match(
    model: GraphModel, source: Source, bound: Bound | OwnBound, into: tuple[str, ...] = (), names: Names | None = None
) -> tuple[list[Copy], Report]:
    """What to copy, and the report as far as names and shapes tell it. Raises WeightsError for patterns and names that
    fit nothing.
    """
    names = names or Names({})
    state = model.state_dict()
    nodes = {name: node.entry.name for name, node in model.resolved.nodes.items()}
    for pattern in into:
        if not any(selected(tensor, (pattern,)) for tensor in state):
            parts = near(pattern, _parts(state))
            raise WeightsError(f"into {pattern!r} fits no part of the model with weights; {parts}")
    report = Report(source.label, bound.map.name, source.revision, assumed=bound.map.assumed)
    copies: list[Copy] = []
    known: set[str] = set()  # of the names that `nodes` gives
    claimed: dict[str, bool] = {}  # theirs -> whether it was asked for
    for tensor, value in state.items():
        node = owner(tensor, nodes)
        standard, place = names.standard(tensor), names.standard(node)
        want = bound.wanted(standard, place, nodes[node]) if node and standard and place else None
        known.update(here for here in names.nodes.values() if want is not None and under(tensor, here))
        asked = not into or selected(tensor, into)
        if isinstance(want, Want):
            claimed[want.key] = claimed.get(want.key, False) or asked
        if not asked:
            continue
        if isinstance(want, str):
            report.other_block[node] = f"{nodes[node]} here, {want} in the source"
        if not isinstance(want, Want):
            report.left.append(tensor)
        elif want.key not in bound.actual:
            if want.optional:
                report.absent.append(tensor)
            else:
                report.missing[tensor] = want.key
        elif said := _misfit(source, bound.actual[want.key], want.transform, value):
            report.wrong_shape[tensor] = said
        else:
            copies.append(Copy(tensor, bound.actual[want.key], want.transform))
            report.loaded[tensor] = bound.actual[want.key]
            if want.assumed and want.assumed not in report.assumed:
                report.assumed += (want.assumed,)
            report.numbers += value.numel()
            kinds = _short(source.entries[bound.actual[want.key]].dtype), _short(value.dtype)
            if kinds[0] != kinds[1]:
                report.converted[kinds] = report.converted.get(kinds, 0) + 1
    for standard, here in names.nodes.items():
        if here not in known:
            known_there = standard.partition(".")[0] in bound.tops
            why = "its blocks are others" if known_there else near(standard, bound.tops)
            raise WeightsError(
                f"nodes: {source.label}, as {bound.map.name}, has nothing for {here!r} as {standard!r}; {why}"
            )
    _rest(report, source, bound, claimed, nodes, list(state), names, into)
    report.repeats = bound.repeats
    return copies, report


def _rest(
    report: Report,
    source: Source,
    bound: Bound | OwnBound,
    claimed: Mapping[str, bool],
    nodes: Mapping[str, str],
    tensors: Sequence[str],
    names: Names,
    into: tuple[str, ...],
) -> None:
    """Sort the keys that no tensor of the model takes."""
    loaded = {key.rpartition(".")[0] for key in report.loaded.values()}
    for plain, key in bound.actual.items():
        if plain in claimed:
            if not claimed[plain]:
                report.elsewhere.append(key)
        elif places := bound.places(plain):
            here = [[names.ours(name) or "" for name in place] for place in places]
            built = [
                ours for (node, *_), (ours, part, tensor) in zip(places, here, strict=True)
                if ours in nodes and bound.same_block(node, nodes[ours]) and (not into or selected(tensor, into))
                and (part == ours or any(under(name, part) for name in tensors))
            ]  # fmt: skip
            if built:
                report.unexpected.append(key)
            else:
                (report.elsewhere if into else report.cut).append(key)
        elif into and key.rpartition(".")[0] not in loaded:
            report.elsewhere.append(key)
        else:
            report.unexpected.append(key)
    others = [*bound.foreign, *(f"{name} (no tensor)" for name in source.others)]
    (report.elsewhere if into else report.unexpected).extend(others)


def _misfit(source: Source, key: str, transform: Transform, value: Tensor) -> str:
    entry = source.entries[key]
    shape = transform.shape(entry.shape)
    if shape != tuple(value.shape):
        turned = f" ({transform.said})" if transform.said else ""
        return f"{key} is {list(entry.shape)}{turned}, the model has {list(value.shape)}"
    if entry.dtype.is_floating_point != value.dtype.is_floating_point:
        return f"{key} is {entry.dtype}, the model has {value.dtype}"
    return ""


def owner(tensor: str, nodes: Mapping[str, str]) -> str:
    """The node that a tensor lies in; empty if in none."""
    parts = tensor.split(".")
    return next((head for n in range(len(parts), 0, -1) if (head := ".".join(parts[:n])) in nodes), "")


def _parts(state: Mapping[str, Tensor]) -> list[str]:
    return sorted({".".join(name.split(".")[:n]) for name in state for n in (1, 2)})


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
