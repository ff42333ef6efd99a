"""Adapters as files of their own: saved without the base, and attached to it again once everything is checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapted import Adapted
from ..bank import AdapterBank
from ..composition import Composition, Stack
from ..errors import AdapterError, AdapterFileError
from ..guard import notice_hooks, refuse_sharded
from .composition_data import composition_data, composition_of
from .fingerprint import dtype_name, is_quantised, whole
from .finite import refuse_not_finite, suited
from .record import Reader, write
from .stored import (  # fmt: skip
    built,
    keys_of,
    moving_statistics,
    named_of,
    places_of,
    refuse_inconsistent,
    refuse_other_tensors,
    refuse_overwriting,
    targets_of,
    version,
)
from .suiting import Allowed, describe, refuse_other_base


def save(adapted: Adapted, path: str | Path, name: str = "default", *, licence: str = "", note: str = "") -> Path:
    """Write the adapters of one name to a safetensors file, whole or not at all; returns the file.

    In it: their parameters; what `train` opened of the base (heads, norms), and the statistics of norms that followed
    the batches; which modules they sit on, and what tells the base they were made on (see docs/adapters_files.md).
    licence, note: texts to keep with it. A fusion belongs to several names and is not in the file.
    Errors: `MergedStateError`; `AdapterFileError` for values that are not finite, or a file that cannot be written.
    """
    bank = adapted.bank
    bank._unmerged("save")
    named = bank._known(name)
    statistics = sorted(moving_statistics(adapted, named))
    made = [(adapter.path, "", adapter) for adapter in bank.adapters(name)]
    shared = {key: part for key, part in bank.shared.items() if key.partition(":")[0] == name}
    state = bank.base.state_dict()
    if packed := [key for key in named.train if is_quantised(state[key])]:
        raise AdapterFileError(
            f"{packed[0]!r} trained with {name!r} and is in NF4 by now, which a file cannot hold; put the dense weight "
            "back first (`dequantize_()` of what `quantize` returned)"
        )
    tensors = {key: _copy(value) for key, value in keys_of((made, shared))}
    tensors.update({f"extra/{key}": _copy(state[key]) for key in (*named.train, *statistics)})
    for key, value in tensors.items():
        if value.is_meta:
            raise AdapterFileError(f"{key!r} is on the meta device: there is nothing to save")
        refuse_not_finite(path, key, value)
    composition_of(path, composition := composition_data(bank.active, name), name)
    content = {
        "name": name,
        "specs": [spec.to_dict() for spec in named.specs],
        "sites": [list(paths) for paths in named.sites],
        **describe(bank, named, {*named.train, *statistics}),
        "train": list(named.train),
        "statistics": statistics,
        "weight": named.weight,
        "trains": named.trains,
        "composition": composition,
        "norms": adapted.norms,
        "dtypes": sorted({dtype_name(value) for value in tensors.values()}),
        "licence": licence or named.licence,
        "note": note,
        "torch": torch.__version__,
        "agblocks": version(),
    }
    return write(path, tensors, content)


def load(model: nn.Module, path: str | Path, *, name: str | None = None, allow: Collection[Allowed] = ()) -> Adapted:
    """Attach the adapters of a file to a model, or to an `Adapted` beside what it has, as they were when saved.

    Everything is checked before anything is attached: the file against its checksums; the modules, their classes and
    shapes; the recipe, up to the adapted nodes; the weights they stand on; the name, type and shape of every tensor.
    name: another name than it was saved under.
    allow: "weights" takes another fingerprint (other values, or another type); "recipe" takes other digests of edges
        or, for a model without a recipe, other tensors around the adapted modules.
    What `train` opened is written into the base, as training it would. Adapters that are there act on, before these.
    Errors: `AdapterFileError`, `BaseMismatch`, and those of attaching; the model is then as it was.
    """
    if unknown := {*([allow] if isinstance(allow, str) else allow)} - {"weights", "recipe"}:
        raise AdapterError(f"allow takes 'weights' and 'recipe', not {sorted(unknown)[0]!r}")
    bank = model.bank if isinstance(model, Adapted) else AdapterBank(model)
    refuse_sharded(bank.base)
    with Reader(path) as opened:
        record = opened.record
        name = record.name if name is None else name
        bank._free(name)
        named = named_of(path, record)
        refuse_inconsistent(path, record)
        refuse_other_base(path, bank.base, record, allow)
        if isinstance(model, Adapted):
            refuse_overwriting(model, path, record)
        own = composition_of(path, record.composition, name)
        known = places_of(path, bank.base, record)
        wanted = built(path, name, named, {p: replace(k, on=torch.device("meta")) for p, k in known.items()})
        refuse_other_tensors(opened, bank.base, wanted, allow)
        made, shared = built(path, name, named, known)
        targets = targets_of(bank.base, (made, shared), record)
        tensors = {key: suited(path, key, value, targets[key]) for key, value in opened.read().items()}
    _fill(path, made, shared, tensors)
    notice_hooks(bank.base, "refuse")
    adapted = model if isinstance(model, Adapted) else Adapted(model, bank)
    if adapted is not model:
        bank.norms = record.norms
    try:
        bank._put(name, named, made, shared, known)
        before = bank._parts()[:-1]
        bank._set(own if isinstance(own, Composition) and not before else Stack(*before, own))
        bank._freeze()
    except BaseException:
        if name in bank.names:
            bank.remove(name)
        if adapted is not model:
            bank.detach()
        raise
    state = bank.base.state_dict()
    with torch.no_grad():
        for key in (*record.train, *record.statistics):
            state[key].copy_(tensors[f"extra/{key}"])
    if adapted is not model:
        adapted.training = model.training
        if model.training:
            adapted.train()
    return adapted


def _copy(value: Tensor) -> Tensor:
    value = whole(value.detach())
    return value if value.is_meta else value.cpu().contiguous().clone()


def _fill(path: str | Path, made: Any, shared: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Put values into adapters."""
    parts = [(f"sites/{site}/{adapter.kind.name}/", adapter) for site, _, adapter in made]
    parts += [(f"shared/{name.partition(':')[2]}/", part) for name, part in shared.items()]
    try:
        for prefix, part in parts:
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            part.load_state_dict(own)
    except (RuntimeError, ValueError) as error:  # of a kind's own checks
        raise AdapterFileError(f"{path}: its tensors cannot be used: {error}") from None
