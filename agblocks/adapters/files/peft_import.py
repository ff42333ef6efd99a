"""Adapters that peft saved, attached here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import AgblocksError, near
from ...graph.adapter_spec import AdapterSpec
from ..adapted import Adapted, adapt
from ..adapter import Adapter
from ..errors import AdapterFileError, BaseMismatch, UnsupportedModule
from ..methods.low_rank import Lora
from .finite import suited
from .peft_config import PREFIX, WEIGHTS, Config, dense, read_config
from .peft_modules import found_modules, write_back

#: ends of peft's keys, and our names for them
_LORA = {"lora_A.weight": "A", "lora_B.weight": "B", "lora_embedding_A": "A", "lora_embedding_B": "B",
         "lora_magnitude_vector": "m", "lora_magnitude_vector.weight": "m"}  # fmt: skip


def import_peft(model: nn.Module, folder: str | Path, *, name: str = "default") -> Adapted:
    """Attach what peft's `save_pretrained` wrote: LoRA, rsLoRA, DoRA or IA3, as specs of their own with exact globs.

    Its `modules_to_save` are written into the base, and train on, as what `adapt(..., train=)` opens.

    model: the model that peft was given, not the one it made of it; or an `Adapted`, beside what it has.
    Only safetensors are read; nothing of it is code. peft's files don't tell which weights they were made on.
    Errors: `AdapterFileError` for a file of another form, and for settings that have no counterpart, by name;
    `BaseMismatch` for modules and shapes that are not there. The model is then as it was.
    """
    where = Path(folder)
    config = read_config(where)
    base = model.bank.base if isinstance(model, Adapted) else model
    sites, rest = _sites(where, config)
    modules, opened = found_modules(where, base, config.modules, rest)
    for other, named in model.bank.names.items() if isinstance(model, Adapted) else ():
        if common := sorted(opened.keys() & set(named.train)):
            raise BaseMismatch(
                f"{where}: {common[0]!r} is trained with adapter {other!r} here; remove({other!r}) first"
            )
    names = {path for path, _ in base.named_modules(remove_duplicate=False)}
    if missing := [path for path in sites if path not in names]:
        raise BaseMismatch(
            f"{where}: {len(missing)} of its {len(sites)} modules are not in this model: {missing[0]!r}; "
            f"{near(missing[0], names)}"
        )
    first = {id(module): path for path, module in [*base.named_modules()]}
    values = {first[id(base.get_submodule(path))]: own for path, own in sites.items()}
    if len(values) < len(sites):
        raise BaseMismatch(f"{where}: two of its modules are one in this model")
    grouped: dict[tuple[Any, ...], list[str]] = {}
    said = dict(zip(values, sites, strict=True))
    for path in values:
        grouped.setdefault(_arguments(where, config, said[path], values[path]), []).append(path)
    try:
        specs = [AdapterSpec(kind, glob=paths, **dict(args)) for (kind, args), paths in grouped.items()]
    except AgblocksError as error:
        raise AdapterFileError(f"{where}: its settings have no counterpart:\n{error}") from None
    adapted = adapt(model, specs, name=name, train=modules)
    try:
        for adapter in adapted.bank.adapters(name):
            _fill(where, adapter, values[adapter.path])
    except BaseException:
        adapted.bank.remove(name)
        if adapted is not model:
            adapted.detach()
        raise
    write_back(base, opened)
    return adapted


def _sites(folder: Path, config: Config) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Adapters' tensors by module and by our names; and those of modules kept whole, by their names."""
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    known = _LORA if config.method == "LORA" else {"ia3_l": "l"}
    sites: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                end = next((end for end in known if key.endswith(f".{end}")), None)
                path = key.removeprefix(PREFIX).removesuffix(f".{end}")
                if end is None and config.modules and key.startswith(PREFIX):
                    rest[key.removeprefix(PREFIX)] = opened.get_tensor(key)
                    continue
                if end is None or not key.startswith(PREFIX) or not path:
                    ends = ", ".join(known)
                    raise AdapterFileError(f"{file}: {key!r} has no counterpart; there is {PREFIX}<module>.<{ends}>")
                sites.setdefault(path, {})[known[end]] = opened.get_tensor(key)
    except OSError as error:
        pickled = (folder / "adapter_model.bin").exists()
        hint = "; adapter_model.bin is a pickle, which may hold code and is not read" if pickled else ""
        raise AdapterFileError(f"{file}: cannot be read: {error.strerror or error}{hint}") from None
    except (SafetensorError, RuntimeError) as error:
        raise AdapterFileError(f"{file}: cut short, damaged, or no safetensors file: {error}") from None
    wanted = {"l"} if config.method == "IA3" else {"A", "B", "m"} if config.dora else {"A", "B"}
    for path, own in sites.items():
        if own.keys() != wanted:
            raise AdapterFileError(f"{file}: {path!r} has {', '.join(sorted(own))}; wanted {', '.join(sorted(wanted))}")
    if not sites:
        raise AdapterFileError(f"{file}: there is no adapter in it")
    return sites, rest


def _arguments(folder: Path, config: Config, path: str, own: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """The kind of a module's adapter and its arguments."""
    if config.method == "IA3":
        return "ia3_ff" if config.before(path) else "ia3", ()
    rank = config.rank_of(path)
    if own["A"].dim() < 2 or len(own["A"]) != rank:
        raise AdapterFileError(f"{folder}: {path!r} has A of {list(own['A'].shape)}, where its config says rank {rank}")
    args = {"rank": rank, "alpha": float(config.alpha_of(path)), "dropout": config.dropout, "rslora": config.rslora,
            "center": False}  # fmt: skip
    return "dora" if config.dora else "lora", tuple(args.items())


@torch.no_grad()
def _fill(folder: Path, adapter: Adapter, own: Mapping[str, Tensor]) -> None:
    """Put peft's tensors into an adapter."""
    for name, value in own.items():
        into: Tensor = getattr(adapter, name)
        if name == "A" and isinstance(adapter, Lora) and adapter.groups > 1:
            value = _in_groups(folder, adapter, value)
        given = value.flatten() if name in ("m", "l") else value.flatten(1) if name == "B" else value
        if given.shape != into.shape:
            raise BaseMismatch(
                f"{folder}: {adapter.path!r} has {name} of {list(value.shape)}, this model's wants {list(into.shape)}"
            )
        into.copy_(suited(folder, f"{adapter.path}.{name}", given, into))


def _in_groups(folder: Path, adapter: Lora, given: Tensor) -> Tensor:
    """A of a convolution in groups from peft's, which reads all inputs."""
    ranks, each = adapter.A.shape[0] // adapter.groups, adapter.A.shape[1]
    if given.shape[1] != each * adapter.groups:
        return given  # told as any other shape that is wrong
    parts = [given[g * ranks : (g + 1) * ranks, g * each : (g + 1) * each] for g in range(adapter.groups)]
    if not torch.equal(dense(own := torch.cat(parts), adapter.groups), given):
        raise UnsupportedModule(
            f"{folder}: on {adapter.path!r}, a convolution in {adapter.groups} groups, peft's A reads across groups, "
            "which has no counterpart here"
        )
    return own
