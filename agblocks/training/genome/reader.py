"""Models that read windows: codes in, every output's bins out, as measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.sequence import Ambiguous, Codes, one_hot_codes
from ...errors import near
from ...graph.resolved import Resolved
from ...layers import RealTracks
from ..errors import RunError
from ..run import Model, Run, weights_sum
from ..settings import Precision
from ..wiring import FLAG, Wiring, model_inputs
from .agreement import Values
from .shape import check_outputs

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Output:
    """Tracks of one output: their names, their columns there, and the columns where the other strand has them."""

    names: tuple[str, ...]
    columns: tuple[int, ...]
    turned: tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """Models whose predictions are averaged, and what they need besides DNA.

    outputs: which tracks, by output. measured: from what the models give to the measurements' units. window: the
    length that they were trained on, 0 where nobody knows.
    """

    models: tuple[Model, ...]
    wiring: Wiring
    outputs: Mapping[str, Output]
    device: torch.device
    precision: Precision = "32-true"
    ambiguous: Ambiguous = "zeros"
    window: int = 0
    measured: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = field(default=lambda made: made)

    @property
    def resolved(self) -> Resolved:
        resolved: Resolved = self.models[0].resolved
        return resolved

    def __call__(self, codes: Codes, turned: bool = False) -> dict[str, Values]:
        """Predictions for windows of one length; `turned` says that these are of the other strand.

        Shapes: (batch, length) uint8 -> output -> (batch, tracks, bins), in the order of the window shown.
        """
        sums: dict[str, Tensor] = {}
        kind = next((p.dtype for p in self.models[0].parameters() if p.is_floating_point()), torch.float32)
        dna = one_hot_codes(codes, ambiguous=self.ambiguous, dtype=kind).to(self.device)
        loaded = {"dna": dna, FLAG: torch.full((len(dna),), int(turned), dtype=torch.int64, device=self.device)}
        inputs = self.wiring.inputs(loaded)
        half = HALF.get(self.precision)
        with torch.inference_mode(), torch.autocast(self.device.type, half) if half else nullcontext():
            for model in self.models:
                for name, value in self.measured(model(**inputs, outputs=list(self.outputs))).items():
                    if name in self.outputs:
                        sums[name] = sums[name] + value.float() if name in sums else value.float()
        found = {}
        for name, output in self.outputs.items():
            columns = list(output.turned if turned else output.columns)
            value = sums[name] if columns == list(range(sums[name].shape[1])) else sums[name][:, columns]
            found[name] = (value / len(self.models) if len(self.models) > 1 else value).cpu().numpy()
        return found

    def fingerprint(self) -> str:
        """A checksum of what the models compute: recipe and weights."""
        sums = [weights_sum(model.state_dict()) for model in self.models]
        return "-".join([self.resolved.digest, *sums])


def reader(
    model: Model | Run,
    *,
    outputs: Sequence[str] = (),
    tracks: Mapping[str, Sequence[int | str]] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    pairs: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    inputs: Mapping[str, int] | None = None,
    device: str | None = None,
    precision: Precision = "32-true",
    ambiguous: Ambiguous | None = None,
) -> Reader:
    """A model, or a run with its members and what it knows of its tracks, ready to read windows.

    The arguments are those of `predict_genome`. Errors: `RunError` for names, numbers and pairs that don't fit.
    """
    run = model if isinstance(model, Run) else None
    models: tuple[Model, ...] = run.models if run is not None else (model,)  # type: ignore[assignment]
    resolved: Resolved = models[0].resolved
    wiring = run.wiring if run is not None and not inputs else _wiring(resolved, run, dict(inputs or {}))
    known: Any = run.wiring if run is not None and run.wiring.on_tracks else None
    chosen = check_outputs(resolved, tuple(outputs) or (tuple(known.of) if known else ()))
    if known and (odd := [name for name in chosen if name not in known.of]):
        raise RunError(f"the run has learnt no tracks at {odd[0]!r}; {near(odd[0], known.of)}")
    for what, given in (("tracks", tracks), ("names", names), ("pairs", pairs)):
        if odd := [name for name in given or () if name not in chosen]:
            raise RunError(f"{what}: {odd[0]!r} is no output that is asked for; {near(odd[0], chosen)}")
    made = {}
    for name in chosen:
        width = int(resolved.info(name).axes[1])  # type: ignore[arg-type]
        said = tuple((names or {}).get(name, known.of[name].names if known else ()))
        swap = list(known.of[name].swap) if known else list(range(width))
        width = len(swap)
        real = list(range(width)) if known else _real(models[0], name, wiring, width)
        if not real and not outputs:
            continue
        made[name] = _output(name, width, said, real, swap, (tracks or {}).get(name), (pairs or {}).get(name, ()))
    if device is None:
        device = "cuda" if torch.cuda.is_available() and (run is None or run.settings.device != "cpu") else "cpu"
    try:
        where = torch.device(device)
        moved = tuple(m.to(where).eval() for m in models)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    letters: Ambiguous = ambiguous or (run.settings.ambiguous if run is not None else "zeros")
    if not known:
        return Reader(moved, wiring, made, where, precision, letters)

    def measured(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: known.of[name].measured(value) for name, value in given.items()}

    return Reader(moved, wiring, made, where, precision, letters, known.window, measured)


def _wiring(resolved: Resolved, run: Run | None, inputs: dict[str, int]) -> Wiring:
    given = {**(dict(run.wiring.constants) if run is not None else {}), **inputs}
    dna, flag, constants = model_inputs(resolved, given)
    return Wiring(dna, flag, constants, ())


def _output(
    name: str, width: int, names: tuple[str, ...], real: list[int], swap: list[int],
    wanted: Sequence[int | str] | None, pairs: Sequence[tuple[int, int]],
) -> Output:  # fmt: skip
    if names and (len(names) != width or len(set(names)) < width):
        raise RunError(f"names: {name!r} has {width} tracks, but {len(set(names))} different names are given")
    all_names = names or tuple(str(i) for i in range(width))
    for one, other in pairs:
        if not (0 <= one < width and 0 <= other < width) or swap[one] not in (one, other):
            raise RunError(f"pairs: {name!r} has tracks 0 to {width - 1}, each in one pair; found {one}:{other}")
        swap[one], swap[other] = other, one
    columns = real
    if not real:
        raise RunError(f"output {name!r} has no tracks for this organism; leave it out")
    if wanted is not None:
        if odd := [w for w in wanted if w not in all_names and not (type(w) is int and 0 <= w < width)]:
            raise RunError(f"tracks: {name!r} has no track {odd[0]!r}; {near(str(odd[0]), all_names)}")
        columns = [all_names.index(w) if isinstance(w, str) else w for w in wanted]
    if not columns or len(set(columns)) < len(columns):
        raise RunError(f"tracks: of {name!r} are asked for {columns}; wanted at least one, each once")
    shown = tuple(all_names[i] for i in columns) if names or width > 1 else ("",)
    return Output(shown, tuple(columns), tuple(swap[i] for i in columns))


def _real(model: Model, name: str, wiring: Wiring, width: int) -> list[int]:
    """The tracks that the organism has, maybe none; others only fill up the head's width."""
    node = next((n for n in model.resolved.nodes.values() if model.resolved.edge(name) in n.outputs), None)
    held = getattr(model.get_submodule(node.name), "real", None) if node is not None else None
    if node is None or not isinstance(held, RealTracks):
        return list(range(width))
    organism = dict(wiring.constants).get(node.inputs.get("organism", ""))
    if organism is None:
        return list(range(width))
    there = held(torch.tensor([organism], device=held.there.device))[0]
    found: list[int] = np.flatnonzero(there.cpu().numpy()).tolist()
    return found
