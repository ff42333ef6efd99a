"""Adapters as files of their own: saved without the base, and attached to it again once everything is checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import AgblocksError
from ..graph.adapter_spec import AdapterSpec
from ..layers import RMSBatchNorm
from . import composition
from .adapted import Adapted
from .adapter import Adapter
from .bank import AdapterBank, Named
from .composition import Composition, Stack
from .errors import AdapterError, AdapterFileError, BaseMismatch, CompositionError
from .fingerprint import dtype_name, kept, whole
from .guard import notice_hooks, refuse_sharded
from .making import make
from .place import Place
from .places import places
from .record import Reader, Record, write
from .suiting import Allowed, describe, refuse_other_base

Made = tuple[Sequence[tuple[str, str, Adapter]], Mapping[str, nn.Module]]


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
    tensors = {key: _copy(value) for key, value in _keys((made, shared))}
    tensors.update({f"extra/{key}": _copy(state[key]) for key in (*named.train, *statistics)})
    for key, value in tensors.items():
        if value.is_meta:
            raise AdapterFileError(f"{key!r} is on the meta device: there is nothing to save")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise AdapterFileError(f"{key!r} holds values that are not finite; not saved")
    content = {
        "name": name,
        "specs": [spec.to_dict() for spec in named.specs],
        "sites": [list(paths) for paths in named.sites],
        **describe(bank, named, {*named.train, *statistics}),
        "train": list(named.train),
        "statistics": statistics,
        "weight": named.weight,
        "trains": named.trains,
        "composition": _composition(bank.active, name),
        "norms": adapted.norms,
        "dtypes": sorted({dtype_name(value) for value in tensors.values()}),
        "licence": licence or named.licence,
        "note": note,
        "torch": torch.__version__,
        "agblocks": _version(),
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
        named = _named(path, record)
        _refuse_inconsistent(path, record)
        refuse_other_base(path, bank.base, record, allow)
        if isinstance(model, Adapted):
            _refuse_overwriting(model, path, record)
        own = _from_data(path, record.composition, name)
        known = _places(path, bank.base, record)
        wanted = _built(path, name, named, {p: replace(k, on=torch.device("meta")) for p, k in known.items()})
        _refuse_other_tensors(opened, bank.base, wanted, allow)
        made, shared = _built(path, name, named, known)
        tensors = opened.read()
    _fill(path, made, shared, tensors)
    notice_hooks(bank.base, "refuse")
    adapted = model if isinstance(model, Adapted) else Adapted(model, bank, record.norms)
    try:
        bank._put(name, named, made, shared, known)
        before = bank._parts_of_active()[:-1]
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


def _keys(made: Made | tuple[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of adapters and of what they share, by their keys in a file."""
    for path, _, adapter in made[0]:
        for key, value in adapter.tensors():
            yield f"sites/{path}/{adapter.kind.name}/{key}", value
    for name, part in made[1].items():
        for key, value in part.state_dict().items():
            yield f"shared/{name.partition(':')[2]}/{key}", value


def _copy(value: Tensor) -> Tensor:
    value = whole(value.detach())
    return value if value.is_meta else value.cpu().contiguous().clone()


def moving_statistics(adapted: Adapted, named: Named) -> Iterator[str]:
    """Names of statistics that follow the batches while these train: the rule of `layers.rest_norms`."""
    for path, module in adapted.base.named_modules():
        if isinstance(module, (_NormBase, RMSBatchNorm)):
            prefix = f"{path}." if path else ""
            own = {prefix + key for key, _ in module.named_parameters(recurse=False)}
            if adapted.norms == "track" or (own & {*named.train} if own else named.train):
                yield from (prefix + key for key in kept(module))


def _named(path: str | Path, record: Record) -> Named:
    specs = []
    for said in record.specs:
        try:
            specs.append(AdapterSpec.from_dict(said))
        except AgblocksError as error:
            raise AdapterFileError(f"{path}: a spec that this agblocks ({_version()}) does not read; it was written by "
                                   f"{record.agblocks[:40]}:\n{error}") from None  # fmt: skip
    return Named(
        tuple(specs), tuple(map(tuple, record.sites)), tuple(record.train), record.weight, record.trains, record.licence
    )


def _refuse_inconsistent(path: str | Path, record: Record) -> None:
    """What a record says in two places has to agree."""
    sites = {site for each in record.sites for site in each}
    extra = [*record.train, *record.statistics]
    if (
        len(record.sites) != len(record.specs)
        or sites != set(record.modules)
        or len(set(extra)) < len(extra)
        or any(len(set(each)) < len(each) for each in record.sites)
    ):
        raise AdapterFileError(f"{path}: damaged metadata: specs, sites and modules do not belong together")


def _refuse_overwriting(model: Adapted, path: str | Path, record: Record) -> None:
    """What other adapters of the model have trained of the base would be lost."""
    for other, named in model.bank.names.items():
        theirs = {*named.train, *moving_statistics(model, named)}
        if common := sorted(theirs & {*record.train, *record.statistics}):
            raise BaseMismatch(
                f"{path}: it holds {common[0]!r}, trained with adapter {other!r} here, which would be overwritten; "
                f"remove({other!r}) first"
            )


def _places(path: str | Path, base: nn.Module, record: Record) -> dict[str, Place]:
    """Where its adapters sit; what a probe once told of widths is in the file."""
    found = {}
    for site, place in places(base, {site: base.get_submodule(site) for site in record.modules}).items():
        inputs, outputs, axis = record.modules[site].place
        if place.outputs is not None and (place.inputs, place.outputs, place.axis) != (inputs, outputs, axis):
            raise BaseMismatch(
                f"{path}: {site!r} reads {place.inputs} and gives {place.outputs} channels at axis {place.axis}, "
                f"it was made on one with {inputs} and {outputs} at {axis}"
            )
        found[site] = replace(place, inputs=inputs, outputs=outputs, axis=axis)
    return found


def _built(path: str | Path, name: str, named: Named, known: Mapping[str, Place]) -> Made:
    """Its adapters with values still to come; nothing is attached."""
    found = [{site: known[site].module for site in sites} for sites in named.sites]
    try:
        return make(name, named.specs, found, known, seed=0)
    except (AdapterError, RuntimeError, TypeError) as error:
        raise AdapterFileError(f"{path}: its adapters cannot be made: {error}") from None


def _refuse_other_tensors(opened: Reader, base: nn.Module, made: Made, allow: Collection[str]) -> None:
    """Every tensor is there, no other, each of its shape and type; nothing has been read or made yet."""
    record, state = opened.record, base.state_dict()
    wanted = dict(_keys(made)) | {f"extra/{name}": state[name] for name in (*record.train, *record.statistics)}
    problems = [f"{key!r} is missing" for key in wanted if key not in opened.shapes]
    problems += [f"{key!r} is unknown" for key in opened.shapes if key not in wanted]
    for key, value in wanted.items():
        dtype, shape = opened.shapes.get(key, (dtype_name(value), tuple(value.shape)))
        if shape != tuple(value.shape):
            problems.append(f"{key!r} is {list(shape)}, wanted {list(value.shape)}")
        elif dtype != dtype_name(value) and "weights" not in allow:
            problems.append(f"{key!r} is {dtype}, wanted {dtype_name(value)}")
    if problems:
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise AdapterFileError(
            f"{opened.path}: its tensors are not those of its specs on this model:\n  "
            + "\n  ".join(problems[:10]) + more
        )  # fmt: skip


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


# Compositions of one name alone: what stands for the name is "."


def _composition(active: Composition | None, name: str) -> dict[str, Any] | None:
    if active is None or set(active.names()) != {name}:
        return None
    try:
        return _as_data(active)
    except KeyError:  # a fusion, whose parameters are elsewhere
        return None


_OPTIONS = {"Stack": (), "Average": ("weights", "normalize"), "BatchSplit": ("sizes",), "Split": ("fractions",),
            "Parallel": ()}  # fmt: skip


def _as_data(part: str | Composition) -> Any:
    if isinstance(part, str):
        return "."
    kind = type(part).__name__
    options = {key: getattr(part, key) for key in _OPTIONS[kind]}
    return {"kind": kind, "parts": [_as_data(p) for p in part.parts],
            "options": {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}  # fmt: skip


def _from_data(path: str | Path, data: Any, name: str) -> str | Composition:
    if data is None or data == ".":
        return name
    try:
        kind, options = data["kind"], data["options"]
        if set(options) != set(_OPTIONS[kind]):
            raise KeyError(f"options {sorted(options)}")
        parts = [_from_data(path, part, name) for part in data["parts"]]
        made: Composition = getattr(composition, kind)(*parts, **options)
        return made
    except (KeyError, TypeError, ValueError, CompositionError) as error:
        raise AdapterFileError(f"{path}: damaged metadata: composition: {error}") from None


def _version() -> str:
    from .. import __version__

    return __version__
