"""LoRA, DoRA and IA3 in the layout of Hugging Face's peft: a folder of `adapter_model.safetensors` and its config.

peft itself is not needed. Its names: `base_model.model.<module>.lora_A.weight`. Its convolutions are dense in A
whatever their groups, dilate nothing and pad with zeros; its rank and alpha are per config, with patterns of names for
those that differ. What cannot be said in it is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapted import Adapted
from ..adapter import Adapter
from ..errors import AdapterFileError, UnsupportedModule
from ..methods.low_rank import Dora, Lora
from ..methods.scaling import Ia3, Ia3FeedForward
from .fingerprint import whole
from .finite import refuse_not_finite
from .peft_config import CONFIG, PREFIX, WEIGHTS, dense
from .peft_import import import_peft
from .peft_modules import tensors_of, whole_modules
from .record import write_whole
from .stored import moving_statistics

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def export_peft(adapted: Adapted, folder: str | Path, name: str = "default") -> Path:
    """Write the adapters of one name so that peft's `PeftModel.from_pretrained(base, folder)` loads them.

    `lora`, `locon` and `dora` on linear maps, embeddings and plain convolutions (DoRA not on embeddings), or `ia3` and
    `ia3_ff` on linear maps; PiSSA becomes a LoRA of twice the rank. LoRA+ (`lr_ratio`) is training's, not the file's.
    Whole modules that `train` opened, like a head, become peft's `modules_to_save`.
    Returns: the folder. Costs: memory for the adapters twice.
    Errors: `UnsupportedModule`, naming what peft's layout has no word for; `MergedStateError`; `AdapterFileError`.
    """
    from safetensors.torch import save

    bank = adapted.bank
    bank._unmerged("export")
    named = bank._known(name)
    adapters = [_checked(bank.base, adapter) for adapter in bank.adapters(name)]
    if not adapters:
        raise UnsupportedModule(f"{name!r} cannot be written in peft's layout: there is no adapter in it")
    _refuse_mixtures(name, adapters)
    modules = whole_modules(name, bank.base, named.train, [adapter.path for adapter in adapters])
    opened = tensors_of(bank.base, modules)
    if others := sorted(set(moving_statistics(adapted, named)) - set(opened)):
        raise UnsupportedModule(f"{name!r} cannot be written in peft's layout: statistics like {others[0]!r} moved")
    tensors = {f"{PREFIX}{key}": whole(value).cpu().contiguous().clone() for key, value in opened.items()}
    for adapter in adapters:
        module = bank.base.get_submodule(adapter.path)
        for key, value in _tensors(adapter, module):
            tensors[f"{PREFIX}{adapter.path}.{key}"] = whole(value.detach()).cpu().contiguous().clone()
    args = {path: spec.args for spec, paths in zip(named.specs, named.sites, strict=True) for path in paths}
    if isinstance(adapters[0], Lora):
        config = _lora_config(name, [a for a in adapters if isinstance(a, Lora)], args, named.weight)
    else:
        config = _ia3_config(name, adapters, named.weight)
    config["modules_to_save"] = modules or None
    for key, value in tensors.items():
        refuse_not_finite(folder, key, value)
    to = Path(folder)
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterFileError(f"{to}: cannot be made: {error.strerror or error}") from None
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_whole((to / WEIGHTS, save(tensors, metadata={"format": "pt"})), (to / CONFIG, text.encode()))
    return to


def _checked(base: nn.Module, adapter: Adapter) -> Adapter:
    """The adapter, if peft could hold it there."""
    path, module = adapter.path, base.get_submodule(adapter.path)

    def refuse(why: str) -> UnsupportedModule:
        return UnsupportedModule(
            f"{adapter.kind.name!r} on {path!r}, a {type(module).__name__}, cannot be written in peft's layout: {why}"
        )

    if not isinstance(adapter, (Lora, Ia3, Ia3FeedForward)):
        raise refuse("it has no such method; there are lora, locon, dora, ia3, ia3_ff")
    if sum(other is module for _, other in base.named_modules(remove_duplicate=False)) > 1:
        raise refuse("the module has several names, and peft would put it on one of them")
    if isinstance(adapter, (Ia3, Ia3FeedForward)):
        if not isinstance(module, nn.Linear):
            raise refuse("peft has ia3 on linear maps alone")
    elif type(module) in _CONVS:
        if any(step != 1 for step in module.dilation):  # type: ignore[union-attr]
            raise refuse("peft's convolutions don't dilate")
        if module.padding_mode != "zeros":
            raise refuse(f"peft's convolutions pad with zeros, not {module.padding_mode!r}")
        if isinstance(adapter, Dora) and adapter.groups > 1:
            raise refuse("peft has no DoRA on convolutions in groups")
    elif isinstance(module, nn.Embedding):
        if module.max_norm is not None:
            raise refuse("peft would hold A to max_norm too")
    elif not isinstance(module, nn.Linear):
        raise refuse("peft knows linear maps, embeddings and torch's own convolutions")
    return adapter


def _refuse_mixtures(name: str, adapters: list[Adapter]) -> None:
    """One folder is one method, with one dropout, and one of it on a module."""
    methods = {"dora" if isinstance(a, Dora) else "lora" if isinstance(a, Lora) else "ia3": a for a in adapters}
    if len(methods) > 1:
        first, second = list(methods.items())[:2]
        raise UnsupportedModule(
            f"{name!r} cannot be written in peft's layout, where a folder holds one method: {first[0]} on "
            f"{first[1].path!r}, {second[0]} on {second[1].path!r}; give each a name of its own"
        )
    seen: dict[str, Adapter] = {}
    for adapter in adapters:
        if (other := seen.setdefault(adapter.path, adapter)) is not adapter:
            raise UnsupportedModule(
                f"{name!r} cannot be written in peft's layout: {other.kind.name!r} and {adapter.kind.name!r} both sit "
                f"on {adapter.path!r}, where it holds one"
            )
    dropouts = {adapter.dropout: adapter for adapter in adapters if isinstance(adapter, Lora)}
    if len(dropouts) > 1:
        told = ", ".join(f"{value} on {adapter.path!r}" for value, adapter in dropouts.items())
        raise UnsupportedModule(f"{name!r} cannot be written in peft's layout, which has one dropout: {told}")


def _tensors(adapter: Adapter, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """An adapter's tensors as peft has them."""
    if not isinstance(adapter, Lora):
        assert isinstance(adapter, (Ia3, Ia3FeedForward))
        yield "ia3_l", adapter.l[None] if isinstance(adapter, Ia3FeedForward) else adapter.l[:, None]
        return
    a, b = _factors(adapter)
    if adapter.embeds:
        yield "lora_embedding_A", a
        yield "lora_embedding_B", b
    else:
        ones = (1,) * (a.dim() - 2)
        yield "lora_A.weight", dense(a, adapter.groups)
        yield "lora_B.weight", b.view(*b.shape, *ones)
    if isinstance(adapter, Dora):
        yield "lora_magnitude_vector", adapter.m if a.dim() == 2 else adapter.m.view(1, -1, *(1,) * (a.dim() - 2))


def _factors(adapter: Lora) -> tuple[Tensor, Tensor]:
    """A and B whose product, times the scale, is what the adapter adds; with PiSSA of twice the rank."""
    pairs = [(adapter.A.detach(), adapter.B.detach())]
    if adapter.init == "pissa":
        pairs.append((adapter.A0, -adapter.B0))
    a_parts = [a.flatten(1) - a.flatten(1).mean(1, keepdim=True) if adapter.centred else a.flatten(1) for a, _ in pairs]
    # in groups the ranks of a group stay together
    grouped = [part.chunk(adapter.groups) for part in a_parts]
    a = torch.cat([part[g] for g in range(adapter.groups) for part in grouped])
    return a.view(len(a), *adapter.A.shape[1:]), torch.cat([b for _, b in pairs], 1)


def _only(paths: Iterable[str]) -> str:
    """What peft matches against whole names: these and no others."""
    return "|".join(map(re.escape, paths))


def _lora_config(
    name: str, adapters: list[Lora], args: Mapping[str, Mapping[str, Any]], weight: float
) -> dict[str, Any]:
    if weight != 1 and isinstance(adapters[0], Dora):
        raise UnsupportedModule(f"{name!r} goes {weight} of its way, for which peft's layout has no word with dora")
    ranks = {a.path: len(_factors(a)[0]) for a in adapters}
    # alpha / sqrt(rank) where that is every site's scale as it stands; elsewhere alpha is what gives the scale
    root = weight == 1 and all(args[a.path]["rslora"] and a.init != "pissa" for a in adapters)
    alphas = {a.path: args[a.path]["alpha"] if root else a.scale * weight * ranks[a.path] for a in adapters}
    rank, alpha = _commonest(ranks), _commonest(alphas)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": _only(ranks),
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(path)}": value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{re.escape(path)}": value for path, value in alphas.items() if value != alpha},
        "lora_dropout": adapters[0].dropout,
        "use_rslora": root,
        "use_dora": isinstance(adapters[0], Dora),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _commonest(values: Mapping[str, Any]) -> Any:
    listed = list(values.values())
    return max(dict.fromkeys(listed), key=listed.count)


def _ia3_config(name: str, adapters: list[Adapter], weight: float) -> dict[str, Any]:
    if weight != 1:
        raise UnsupportedModule(f"{name!r} goes {weight} of its way, for which peft's layout has no word for ia3")
    before = [a.path for a in adapters if isinstance(a, Ia3FeedForward)]
    return {
        "peft_type": "IA3",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": _only([a.path for a in adapters]),
        "feedforward_modules": _only(before) if before else [],
        "fan_in_fan_out": False,
        "init_ia3_weights": True,
    }


__all__ = ["export_peft", "import_peft"]
