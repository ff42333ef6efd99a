"""A model with adapters: what is trained, compiled, exported, wrapped for many processes, saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..graph.adapter_spec import AdapterSpec, as_spec
from .bank import AdapterBank
from .composition import Parallel
from .errors import AdapterError, CompositionError
from .listing import learning_rates, no_weight_decay


class Adapted(nn.Module):
    """`base`, the model as it was, and `bank`, its adapters; called as the base is.

    Give this, not the base, to optimisers, DDP, FSDP, torch.compile, torch.export, EMA, `.to` and `.train`. What is no
    part of a module (`loss`, `resolved`, ...) is the base's. `norms`: "frozen" keeps norms with running statistics in
    evaluation wherever their own parameters don't train; "track" lets them follow the batches, and saves them.
    """

    def __init__(self, base: nn.Module, bank: AdapterBank):
        super().__init__()
        self.base, self.bank = base, bank
        self.training = base.training

    @property
    def norms(self) -> str:
        """What norms of frozen parts do in training."""
        return self.bank.norms

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.bank.active, Parallel):
            args, kwargs = _repeated(self.base, self.bank.active, args, kwargs)
        return self.base(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("base", "bank") or name.startswith("__"):
                raise
            try:
                return getattr(self.base, name)
            except AttributeError:
                raise AttributeError(
                    f"neither Adapted nor its base, a {type(self.base).__name__}, has {name!r}"
                ) from None

    def train(self, mode: bool = True) -> Adapted:
        """As any module; frozen norms stay in evaluation unless `norms` is "track"."""
        super().train(mode)
        self.bank.rest()
        return self

    def add(self, name: str, specs: Iterable[AdapterSpec | str | Mapping[str, Any]], **options: Any) -> Adapted:
        """Attach further adapters under another name; see `adapt`."""
        self.bank.add(name, specs, **options)
        return self

    def detach(self) -> nn.Module:
        """Take every adapter away: the base as it was given, flags and modes too; what of it trained stays trained."""
        self.bank.detach()
        return self.base

    def merged(self) -> nn.Module:
        """A copy of the base with the active adapters folded into its weights, and no hooks.

        Raises `NotMergeable`, naming sites and reasons.
        """
        import copy

        twin = copy.deepcopy(self)
        twin.bank.merge_()
        twin.bank.detach(keep=True)
        return twin.base

    def save(self, path: Any, name: str = "default", **options: Any) -> None:
        """Write one adapter by itself; see `agblocks.adapters.files.store.save`."""
        from .files.store import save

        save(self, path, name, **options)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay would pull to where they mean nothing."""
        spared: set[str] = getattr(self.base, "no_weight_decay", set)()
        return {f"base.{name}" for name in spared} | no_weight_decay(self.bank, "bank.")

    def learning_rates(self) -> dict[str, float]:
        """Factors of the learning rate for parameters that have another than 1 (LoRA+)."""
        return learning_rates(self.bank, "bank.")


def adapt(
    model: nn.Module,
    specs: Iterable[AdapterSpec | str | Mapping[str, Any]] | AdapterSpec | str | None = None,
    *,
    name: str = "default",
    train: Iterable[str] = (),
    probe: Any = None,
    seed: int = 0,
    norms: str | None = None,
    on_compiled: str = "refuse",
) -> Adapted:
    """Attach adapters to any model by forward hooks, and freeze everything else.

    model: a `GraphModel` or any `nn.Module`, which stays the object it is: keys, classes and tensors don't change.
    specs: `AdapterSpec`s, texts (`"lora:role=attn.q,rank=8"`) or mappings; by default the recipe's `adapters`.
    train: globs of modules of the base that train too, like a new head (`"activity"`); `role=norm` aims by role.
    probe: a batch (a tensor, a tuple of arguments, or a mapping of named ones): after attaching every site must be
        called, and what claims to change nothing at the start must not; else nothing is attached.
    seed: of initial values, drawn for each site by itself, whatever torch's own random state.
    norms: "frozen" or "track", see `Adapted`. on_compiled: "refuse" or "reset", see `CompiledModelError`.

    Returns: what is called, trained and saved from now on; `.detach()` gives the model back.
    Raises: `AdapterError`s, and then the model is as it was.
    """
    if isinstance(model, Adapted):
        if norms not in (None, model.norms):
            raise AdapterError(f"norms is {model.norms!r} for all adapters of a model, so it cannot be {norms!r} now")
        adapted = model
    else:
        adapted = Adapted(model, AdapterBank(model, norms or "frozen"))
    try:
        adapted.bank.add(name, _listed(model, specs), train=train, probe=probe, seed=seed, on_compiled=on_compiled)
    except BaseException:
        if adapted is not model:
            adapted.bank.detach()
        raise
    return adapted


def _listed(model: nn.Module, specs: Any) -> list[AdapterSpec]:
    if specs is None:
        specs = getattr(getattr(model, "resolved", None), "adapters", ())
    return [as_spec(spec) for spec in ([specs] if isinstance(specs, (AdapterSpec, str, Mapping)) else specs)]


def _repeated(base: nn.Module, parallel: Parallel, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The batch once for each of the adapters side by side."""
    times = len(parallel.parts)
    for path, module in base.named_modules():
        if module.training and hasattr(module, "momentum"):
            raise CompositionError(
                f"Parallel repeats the batch, which {path!r} would count in its statistics; eval() first"
            )

    def again(value: Any) -> Any:
        return torch.cat([value] * times) if isinstance(value, torch.Tensor) and value.dim() else value

    return tuple(map(again, args)), {key: again(value) for key, value in kwargs.items()}
