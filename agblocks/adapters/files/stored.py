"""What is checked of an adapter file once its base suits it: specs, places, names and shapes of tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...errors import AgblocksError
from ...graph.adapter_spec import AdapterSpec
from ...layers import RMSBatchNorm
from ..adapter import Adapter
from ..bank import Named
from ..errors import AdapterError, AdapterFileError, BaseMismatch
from ..making import make
from ..place import Place
from ..places import places
from .fingerprint import dtype_name, is_quantised, kept
from .record import Reader, Record

if TYPE_CHECKING:
    from ..adapted import Adapted

Made = tuple[Sequence[tuple[str, str, Adapter]], Mapping[str, nn.Module]]


def keys_of(made: Made | tuple[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of adapters and of what they share, by their keys in a file."""
    for path, _, adapter in made[0]:
        for key, value in adapter.tensors():
            yield f"sites/{path}/{adapter.kind.name}/{key}", value
    for name, part in made[1].items():
        for key, value in part.state_dict().items():
            yield f"shared/{name.partition(':')[2]}/{key}", value


def moving_statistics(adapted: Adapted, named: Named) -> Iterator[str]:
    """Names of statistics that follow the batches while these train: the rule of `layers.rest_norms`."""
    for path, module in adapted.base.named_modules():
        if isinstance(module, (_NormBase, RMSBatchNorm)):
            prefix = f"{path}." if path else ""
            own = {prefix + key for key, _ in module.named_parameters(recurse=False)}
            if adapted.norms == "track" or (own & {*named.train} if own else named.train):
                yield from (prefix + key for key in kept(module))


def named_of(path: str | Path, record: Record) -> Named:
    """The specs of a record, read as any others, and what belongs to them."""
    specs = []
    for said in record.specs:
        try:
            specs.append(AdapterSpec.from_dict(said))
        except AgblocksError as error:
            raise AdapterFileError(f"{path}: a spec that this agblocks ({version()}) does not read; it was written by "
                                   f"{record.agblocks[:40]}:\n{error}") from None  # fmt: skip
    return Named(
        tuple(specs), tuple(map(tuple, record.sites)), tuple(record.train), record.weight, record.trains, record.licence
    )


def refuse_inconsistent(path: str | Path, record: Record) -> None:
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


def refuse_overwriting(model: Adapted, path: str | Path, record: Record) -> None:
    """What other adapters of the model have trained of the base would be lost."""
    for other, named in model.bank.names.items():
        theirs = {*named.train, *moving_statistics(model, named)}
        if common := sorted(theirs & {*record.train, *record.statistics}):
            raise BaseMismatch(
                f"{path}: it holds {common[0]!r}, trained with adapter {other!r} here, which would be overwritten; "
                f"remove({other!r}) first"
            )


def places_of(path: str | Path, base: nn.Module, record: Record) -> dict[str, Place]:
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


def built(path: str | Path, name: str, named: Named, known: Mapping[str, Place]) -> Made:
    """Its adapters with values still to come; nothing is attached."""
    found = [{site: known[site].module for site in sites} for sites in named.sites]
    try:
        return make(name, named.specs, found, known, seed=0)
    except (AdapterError, RuntimeError, TypeError) as error:
        raise AdapterFileError(f"{path}: its adapters cannot be made: {error}") from None


def targets_of(base: nn.Module, made: Made, record: Record) -> dict[str, Tensor]:
    """What each tensor of a file is for, by its key: an adapter's tensor, or one of the base."""
    state = base.state_dict()
    return dict(keys_of(made)) | {f"extra/{name}": state[name] for name in (*record.train, *record.statistics)}


def refuse_other_tensors(opened: Reader, base: nn.Module, made: Made, allow: Collection[str]) -> None:
    """Every tensor is there, no other, each of its shape and type; nothing has been read or made yet."""
    wanted = targets_of(base, made, opened.record)
    problems = [f"{key!r} is missing" for key in wanted if key not in opened.shapes]
    problems += [f"{key!r} is unknown" for key in opened.shapes if key not in wanted]
    for key, value in wanted.items():
        dtype, shape = opened.shapes.get(key, (dtype_name(value), tuple(value.shape)))
        if shape != tuple(value.shape):
            problems.append(f"{key!r} is {list(shape)}, wanted {list(value.shape)}")
        elif dtype != dtype_name(value) and "weights" not in allow:
            problems.append(f"{key!r} is {dtype}, wanted {dtype_name(value)}")
        elif is_quantised(value):
            problems.append(f"{key!r} belongs where a packed weight is; put dense weights back first")
    if problems:
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise AdapterFileError(
            f"{opened.path}: its tensors are not those of its specs on this model:\n  "
            + "\n  ".join(problems[:10]) + more
        )  # fmt: skip


def version() -> str:
    """That of agblocks."""
    from ... import __version__

    return __version__
