"""Features of sequences at several taps of one model: one forward pass feeds them all, and each row runs once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data import Construct, DataError, one_hot_codes
from ...data.sequence import Ambiguous, Codes
from ...errors import near
from ...graph.model import GraphModel
from ...training import RunError
from ...training.wiring import Wiring, model_inputs
from ..errors import WorkError
from .key import document, fingerprints, row_keys, space
from .pool import check_pool, pooled
from .store import Keeps, Memory
from .tap import Features, Tap
from .usable import changed
from .variants import Assembled, Variant, Variants

BATCH = 64
FLUSH = 64 << 20  # bytes of one tap that wait in memory
_Shown = tuple[Codes, bool, list[bytes]]  # rows of one length under one variant: codes, strand, keys
STORED = {torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64}


def extract(
    model: GraphModel,
    taps: Mapping[str, Tap],
    sequences: Sequence[str],
    construct: Construct | None = None,
    store: Keeps | None = None,
    *,
    variants: Variants | None = None,
    inputs: Mapping[str, int] | None = None,
    ambiguous: Ambiguous = "zeros",
    dtype: torch.dtype | None = torch.float32,
    autocast: torch.dtype | None = None,
    batch_size: int = BATCH,
) -> dict[str, Features]:
    """Features of sequences at taps of a model in evaluation, from the store where they are there.

    A row that lacks at several taps runs through the model once. The model is left in the mode it was in, and is run
    where it lies, without gradients.
    taps: name -> `Tap`; the features come back under these names. construct: from a table's sequence to the model's
        input. store: `Store`, or by default the memory of this process.
    variants: shifts and strands that each sequence is shown by, features of each; by default in place alone.
    inputs: values of whole-number inputs that the taps depend on (`organism`); one at a port `reverse` gets the strand.
    dtype: in which features are kept: float32, bfloat16, float16; None for that in which they were computed.
    autocast: float16 or bfloat16 for mixed precision.
    Errors: `WorkError` for a tap that does not fit its pool, a model whose hooks or adapters would make features of
        something else than its weights, values that `dtype` cannot hold or that are not finite, a store without room;
        `InputError` for an edge that there is not; `DataError` for sequences that don't fit the construct or the model.
    Use when: many heads, folds or stages are to be tried on a model that stays as it is.
    """
    construct, variants = construct or Construct(), variants or Variants()
    store = Memory() if store is None else store
    if not taps or not len(sequences):
        raise WorkError(f"{len(taps)} taps of {len(sequences)} sequences: there is nothing to extract")
    work = _Work(model, taps, construct, store, inputs, ambiguous, dtype, autocast)
    rows = Assembled.of(sequences, construct)
    rows.check(variants)
    work.check_lengths(rows)
    keys: dict[Variant, list[bytes]] = {}
    shown: list[_Shown] = []
    for variant in variants.each:
        found: list[bytes] = [b""] * len(sequences)
        for length in rows.codes:
            codes = rows.shown(length, variant, variants)
            own = np.flatnonzero(rows.place[:, 0] == length)
            shown.append((codes, variant.turned, row_keys(codes, variant.turned)))
            for row, key in zip(own.tolist(), shown[-1][2], strict=True):
                found[row] = key
        keys[variant] = found
    work.fill(shown, batch_size)
    return {name: Features(tap, work.spaces[name], keys, store) for name, tap in taps.items()}


class _Work:
    """One model with its taps, their keys, and what is still to be written."""

    def __init__(
        self, model: GraphModel, taps: Mapping[str, Tap], construct: Construct, store: Keeps,
        inputs: Mapping[str, int] | None, ambiguous: Ambiguous, dtype: torch.dtype | None,
        autocast: torch.dtype | None,
    ):  # fmt: skip
        self.model, self.taps, self.store, self.ambiguous = model, taps, store, ambiguous
        self.dtype, self.autocast = dtype, autocast
        resolved = model.resolved
        if dtype is not None and dtype not in STORED:
            raise WorkError(f"features are kept as float32, bfloat16 or float16, not {dtype}")
        for tap in taps.values():
            check_pool(tap.pool, tap.edge, resolved.info(tap.edge))
        edges = [tap.edge for tap in taps.values()]
        if reason := changed(model, edges):
            raise WorkError(f"features of {resolved.name!r} can't be kept: {reason}")
        self.edges = {name: resolved.edge(tap.edge) for name, tap in taps.items()}
        read = {edge for node in resolved.needed(edges) for edge in node.inputs.values()} & set(resolved.inputs)
        self.wiring = _wired(model, read, inputs)
        prints = fingerprints(model, edges)
        kind = next((p.dtype for p in model.parameters()), torch.float32)
        self.kind = kind
        self.documents = {
            name: document(
                prints[tap.edge], pool=tap.way, stored=_name(dtype or "as computed"),
                computed=_name(kind) + (f", autocast {_name(autocast)}" if autocast else ""), construct=construct,
                ambiguous=ambiguous, constants=self._constants(tap.edge),
            )
            for name, tap in taps.items()
        }  # fmt: skip
        self.spaces = {name: space(described) for name, described in self.documents.items()}
        self._waiting: dict[str, list[tuple[list[bytes], Tensor]]] = {}
        self._held: dict[str, int] = {}

    def check_lengths(self, rows: Assembled) -> None:
        """Errors: `DataError` naming lengths that the model does not take up to these taps."""
        rule = self.model.resolved.rule(self.edges.values())
        axis = self.model.resolved.inputs[self.wiring.dna].axes[2]
        wrong = []
        for length, codes in rows.codes.items():
            values = {} if isinstance(axis, int) or not axis.symbols else {axis.symbols[0]: length}
            fixed = None if values else int(str(axis))
            if length != fixed if fixed is not None else not rule.admits(values):
                wrong.append(f"{len(codes):,} sequences of {length:,} bases")
        if wrong:
            wanted = f"{axis} bases" if not getattr(axis, "symbols", ()) else f"a length where {rule}"
            raise DataError(f"sequences, as the construct assembles them, don't fit the taps: wanted {wanted}", wrong)

    def fill(self, shown: Sequence[_Shown], batch_size: int) -> None:
        """Compute what is missing, and put it into the store."""
        jobs = list(self._jobs(shown))
        self.store.room(sum(self._size(name, c.shape[1]) * len(c) for c, _, _, names in jobs for name in names))
        with _evaluation(self.model), torch.inference_mode():
            for codes, turned, keys, names in jobs:
                for start in range(0, len(codes), batch_size):
                    part = slice(start, start + batch_size)
                    self._run(codes[part], turned[part], keys[part], names)
        for name in self.taps:
            self._flush(name)

    def _jobs(self, shown: Sequence[_Shown]) -> Iterator[tuple[Codes, NDArray[np.bool_], list[bytes], tuple[str, ...]]]:
        """What is to be run: rows of one length that lack the same taps, each once."""
        by_length: dict[int, dict[bytes, tuple[Codes, bool]]] = {}
        for codes, turned, keys_of in shown:
            held = by_length.setdefault(codes.shape[1], {})
            for key, row in zip(keys_of, codes, strict=True):
                held.setdefault(key, (row, turned))
        for held in by_length.values():
            keys = list(held)
            lacks: dict[int, list[str]] = {}
            for name, where in self._first_of_each_space().items():
                for place in self.store.missing(where, keys):
                    lacks.setdefault(place, []).append(name)
            groups: dict[tuple[str, ...], list[int]] = {}
            for place in sorted(lacks):
                groups.setdefault(tuple(lacks[place]), []).append(place)
            for names, places in groups.items():
                own = [keys[place] for place in places]
                codes = np.stack([held[key][0] for key in own])
                yield codes, np.array([held[key][1] for key in own], dtype=np.bool_), own, names

    def _first_of_each_space(self) -> dict[str, str]:
        """Taps by name, but of those that are the same thing one."""
        return {name: where for where, name in {where: name for name, where in reversed(self.spaces.items())}.items()}

    def _run(self, codes: Codes, turned: NDArray[np.bool_], keys: list[bytes], names: tuple[str, ...]) -> None:
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        loaded = {"dna": one_hot_codes(codes, dtype=self.kind, ambiguous=self.ambiguous).to(device)}
        if self.wiring.reverse is not None:
            loaded["reverse"] = torch.from_numpy(turned.astype(np.int64)).to(device)
        mixed = torch.autocast(device.type, self.autocast) if self.autocast is not None else nullcontext()
        with mixed:
            edges = list(dict.fromkeys(self.edges[name] for name in names))
            made = self.model(**self.wiring.inputs(loaded), outputs=edges)
        for name in names:
            tap = self.taps[name]
            values = pooled(made[self.edges[name]], tap.pool, tap.window)
            self._keep(name, keys, self._cast(name, values).cpu())

    def _cast(self, name: str, values: Tensor) -> Tensor:
        cast = values if self.dtype is None or not values.is_floating_point() else values.to(self.dtype)
        if cast.is_floating_point() and not bool(torch.isfinite(cast).all()):
            edge = self.taps[name].edge
            if bool(torch.isfinite(values).all()):
                most = float(values.abs().max())
                raise WorkError(f"tap {edge!r}: values up to {most:.3g} don't fit {_name(cast.dtype)}; keep it wider")
            raise WorkError(f"tap {edge!r}: the model gives values that are not finite")
        return cast

    def _keep(self, name: str, keys: list[bytes], values: Tensor) -> None:
        waiting = self._waiting.setdefault(name, [])
        if waiting and waiting[0][1].shape[1:] != values.shape[1:]:
            self._flush(name)
            waiting = self._waiting.setdefault(name, [])
        waiting.append((keys, values))
        self._held[name] = self._held.get(name, 0) + values.nbytes
        if self._held[name] >= FLUSH:
            self._flush(name)

    def _flush(self, name: str) -> None:
        waiting = self._waiting.pop(name, [])
        self._held.pop(name, None)
        if waiting:
            keys = [key for part, _ in waiting for key in part]
            values = torch.cat([values for _, values in waiting])
            self.store.put(self.spaces[name], self.documents[name], keys, values)

    def _constants(self, edge: str) -> dict[str, int]:
        read = {e for node in self.model.resolved.needed([edge]) for e in node.inputs.values()}
        return {name: value for name, value in self.wiring.constants if name in read}

    def _size(self, name: str, length: int) -> int:
        """Bytes of one row, by the tap's shape."""
        resolved = self.model.resolved
        axis = resolved.inputs[self.wiring.dna].axes[2]
        values = {"B": 1, **({} if isinstance(axis, int) else dict.fromkeys(axis.symbols, length))}
        sizes = [a if isinstance(a, int) else int(a.at(values)) for a in resolved.edges[self.edges[name]].axes[1:]]
        pool = self.taps[name].pool
        if pool == "flatten" and len(sizes) == 2:
            sizes[1] = min(sizes[1], self.taps[name].window or sizes[1])
        elif pool != "none" and len(sizes) == 2:
            sizes = [sizes[0] * (2 if pool == "mean_max" else 1)]
        return int(np.prod(sizes)) * (self.dtype or self.kind).itemsize + 24


def _wired(model: GraphModel, read: set[str], inputs: Mapping[str, int] | None) -> Wiring:
    """The model's inputs that the taps read, and where they come from."""
    resolved, given = model.resolved, dict(inputs or {})
    if strange := sorted(set(given) - set(resolved.inputs)):
        raise WorkError(f"there is no input {strange[0]!r}; {near(strange[0], resolved.inputs)}")
    above = replace(resolved, inputs={name: info for name, info in resolved.inputs.items() if name in read})
    try:
        dna, reverse, constants = model_inputs(above, {name: value for name, value in given.items() if name in read})
    except RunError as error:
        raise WorkError(str(error)) from None
    return Wiring(dna, reverse, constants, ())


@contextmanager
def _evaluation(model: GraphModel) -> Iterator[None]:
    """The model in evaluation, every module's own mode given back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
