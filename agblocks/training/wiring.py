"""Which column of a table trains which head, and what stands at each input of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..data import Construct, DataError, Table
from ..errors import near
from ..graph.dims import Length, number
from ..graph.resolve import Resolved
from .errors import RunError

DNA, FLAG = "dna", "reverse"  # names in the loader's batches


@dataclass(frozen=True)
class Target:
    """One column of measurements: its name, the head and the column there, and its scaling in training.

    measured = predicted * deviation + mean.
    """

    name: str
    head: str
    column: int
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class Wiring:
    """The model's inputs: the one for DNA, the one for the strand flag if any, constants for the others."""

    dna: str
    reverse: str | None
    constants: tuple[tuple[str, int], ...]
    targets: tuple[Target, ...]

    @property
    def on_tracks(self) -> bool:
        """Whether it is of windows of a genome (`tracks.TrackWiring`) rather than of measured sequences."""
        return False

    def check(self, resolved: Resolved) -> None:
        """Whether it is of this recipe; says more for windows of a genome."""

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        """For each head the names of its targets, in the order of its columns."""
        found: dict[str, list[Target]] = {}
        for target in self.targets:
            found.setdefault(target.head, []).append(target)
        return {head: tuple(t.name for t in sorted(ts, key=lambda t: t.column)) for head, ts in found.items()}

    def scaled(self, values: ArrayLike) -> Wiring:
        """The same with each target's mean and deviation over these rows. Shapes: values (rows, targets)."""
        measured = np.asarray(values, np.float64)
        targets = []
        for target, column in zip(self.targets, measured.T, strict=True):
            there = column[~np.isnan(column)]
            if len(there) < 2 or np.ptp(there) == 0:
                found = f"{len(there)} of them" if len(there) < 2 else f"all of them {there[0]:.6g}"
                raise RunError(f"target {target.name!r} has no spread in the training rows ({found}): nothing to learn")
            targets.append(replace(target, mean=float(there.mean()), deviation=float(there.std())))
        return replace(self, targets=tuple(targets))

    def scale(self, values: ArrayLike) -> NDArray[np.float32]:
        """Measurements as they are trained on. Shapes: (rows, targets in the wiring's order) -> the same."""
        means, deviations = np.array([(t.mean, t.deviation) for t in self.targets]).T
        return ((np.asarray(values, np.float64) - means) / deviations).astype(np.float32)

    def inputs(self, loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's inputs from a loader's: the recipe's names, and constants as (batch,) int64."""
        dna = loaded[DNA]
        found = {self.dna: dna}
        if self.reverse is not None:
            found[self.reverse] = loaded[FLAG]
        for name, value in self.constants:
            found[name] = torch.full((len(dna),), value, dtype=torch.int64, device=dna.device)
        return found

    def outputs(self, made: Mapping[str, Tensor]) -> NDArray[np.float64]:
        """Predictions in the measurements' units, columns in the order of the targets.

        Shapes: head -> (batch, columns) -> (batch, targets).
        """
        values = {head: made[head].detach().double().cpu().numpy() for head in self.heads}
        return np.stack([values[t.head][:, t.column] * t.deviation + t.mean for t in self.targets], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "constants": dict(self.constants), "targets": [asdict(t) for t in self.targets]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wiring:
        """What `to_dict` wrote. Raises TypeError, KeyError or ValueError for anything else."""
        targets = []
        for entry in values["targets"]:
            target = Target(**entry)
            if not (isinstance(target.name, str) and isinstance(target.head, str) and type(target.column) is int):
                raise TypeError(f"target {entry!r}")
            if not np.isfinite([target.mean, target.deviation]).all():
                raise ValueError(f"scaling of target {target.name!r} is {target.mean}, {target.deviation}")
            targets.append(target)
        constants = tuple((str(name), int(value)) for name, value in values["constants"].items())
        if set(values) != {"dna", "reverse", "constants", "targets"}:
            raise KeyError(f"keys {sorted(values)}")
        return cls(values["dna"], values["reverse"], constants, tuple(targets))


def wire(
    resolved: Resolved,
    targets: Sequence[str],
    heads: Mapping[str, Sequence[str]] | None = None,
    inputs: Mapping[str, int] | None = None,
) -> Wiring:
    """Wire a table's targets to a model's heads, and name its inputs.

    heads: head -> names of its targets. Without it, one head takes all targets; several take those of their name.
    inputs: values of whole-number inputs (`organism`); the one at a port called `reverse` gets the strand that is
        shown, unless a value is given.
    Errors: `RunError` for heads that are no vector, widths that differ from the number of targets, inputs without a
    value, all with what would fit.
    """
    if len(set(targets)) < len(targets) or not targets:
        raise RunError(f"targets {list(targets)}: wanted at least one, each named once")
    assigned = _assigned(resolved, targets, heads)
    found = [Target(name, head, i) for head, names in assigned.items() for i, name in enumerate(names)]
    found.sort(key=lambda t: list(targets).index(t.name))
    dna, reverse, constants = model_inputs(resolved, dict(inputs or {}))
    return Wiring(dna, reverse, constants, tuple(found))


def check_fits(resolved: Resolved, wiring: Wiring, table: Table, rows: ArrayLike, construct: Construct) -> None:
    """Whether the model takes the lengths that the construct makes of these rows.

    Errors: `DataError` listing every row that does not fit, with the model's rule.
    Use when: before training or predicting, so that no batch fails on the way.
    """
    index = np.asarray(rows, np.int64).tolist()
    lengths = [len(construct.assemble(table.sequences[row])) for row in index]
    axis = resolved.inputs[wiring.dna].axes[2]
    rule = resolved.rule(wiring.heads)
    fixed = number(axis)
    symbol = axis.symbols[0] if isinstance(axis, Length) and fixed is None else None

    def fits(length: int) -> bool:
        return length == fixed if symbol is None else rule.admits({symbol: length})

    bad = {length for length in set(lengths) if not fits(length)}
    if bad:
        wanted = f"{fixed} bases" if symbol is None else f"a length where {rule}"
        problems = [
            f"{table.where(row)}: {length} bases" for row, length in zip(index, lengths, strict=True) if length in bad
        ]
        raise DataError(
            f"{len(problems)} of {len(lengths)} sequences, as the construct assembles them, don't fit the model "
            f"{resolved.name!r}: it wants {wanted}; a construct with a stated length and padding would make them fit",
            problems,
        )


def _assigned(
    resolved: Resolved, targets: Sequence[str], heads: Mapping[str, Sequence[str]] | None
) -> dict[str, list[str]]:
    known = list(resolved.heads)
    if heads is not None:
        assigned = {head: list(names) for head, names in heads.items()}
        for head in assigned:
            if head not in resolved.heads:
                raise RunError(f"there is no head {head!r}; {near(head, known)}")
        named = [name for names in assigned.values() for name in names]
        if sorted(named) != sorted(targets):
            raise RunError(f"heads learn {named}, but the targets are {list(targets)}; each wants one head")
    elif len(known) == 1:
        assigned = {known[0]: list(targets)}
    elif set(targets) <= set(known):
        assigned = {name: [name] for name in targets}
    else:
        raise RunError(
            f"the model has the heads {', '.join(known)} and the targets are {', '.join(targets)}: say which target "
            f"each head learns, like {known[0]}={targets[0]}"
        )
    for head, names in assigned.items():
        _check_width(resolved, head, names)
    return assigned


def _check_width(resolved: Resolved, head: str, names: Sequence[str]) -> None:
    info = resolved.info(head)
    if len(info.axes) != 2 or number(info.axes[1]) is None:
        raise RunError(f"head {head!r} gives {info.shape}; measured sequences train heads that give [B targets]")
    if (width := number(info.axes[1])) != len(names):
        entry = resolved.nodes[head].entry
        sizes = [n for n in entry.signature.outputs[0].axes[1].names if n in entry.annotations]
        hint = f"; set {head}.{sizes[0]}={len(names)}" if len(sizes) == 1 else ""
        raise RunError(f"head {head!r} gives {width} values, but has {len(names)} targets: {', '.join(names)}{hint}")


def model_inputs(resolved: Resolved, given: dict[str, int]) -> tuple[str, str | None, tuple[tuple[str, int], ...]]:
    """The input for DNA, the one for the strand that is shown, and the values of the others; as `wire`."""
    dna = [n for n, info in resolved.inputs.items() if len(info.axes) == 3 and info.axes[1] == 4 and not info.integer]
    if len(dna) != 1:
        inputs = ", ".join(f"{n} {i.shape}" for n, i in resolved.inputs.items())
        raise RunError(f"the model should have one input [B 4 L] for DNA, but has {inputs}")
    flags = {n.inputs[FLAG] for n in resolved.nodes.values() if FLAG in n.inputs} & set(resolved.inputs) - set(given)
    for name in given:
        if name not in resolved.inputs or name == dna[0]:
            others = [n for n in resolved.inputs if n != dna[0]]
            raise RunError(f"there is no whole-number input {name!r}; {near(name, others)}")
    for name, info in resolved.inputs.items():
        if name == dna[0] or name in flags or (info.optional and name not in given):
            continue
        if len(info.axes) != 1:
            raise RunError(f"input {name!r} is {info.shape}: a table of sequences has nothing for it")
        below = f" to {info.below - 1}" if info.below else ""
        if name not in given:
            raise RunError(f"input {name!r} needs a value (a whole number from 0{below}), like {name}=0")
        if type(given[name]) is not int or given[name] < 0 or (info.below and given[name] >= info.below):
            raise RunError(f"input {name!r} is {given[name]!r}, wanted a whole number from 0{below}")
    return dna[0], next(iter(flags), None), tuple(sorted(given.items()))
