"""Adapters in training: whose they are, what of the base trains beside them, how a run keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..adapters import Adapted, AdapterSpec, adapt
from ..errors import AgblocksError
from ..graph.adapter_spec import as_spec
from ..graph.model import GraphModel
from ..graph.resolve import Resolved, resolve
from .errors import RunError
from .settings import Settings
from .tuning.frozen import Frozen
from .tuning.terms import FULL, HEAD

Specs = Sequence[AdapterSpec | str | Mapping[str, Any]]
FOLDER = "adapters"  # of a run, with a file for each member
STORED = f"{FOLDER}/"  # before the names of a run's tensors that are not the recipe's model


def with_adapters(resolved: Resolved, adapters: Specs | None) -> Resolved:
    """The recipe with these adapters instead of its own, every default said, as a run stores it."""
    if isinstance(adapters, str | AdapterSpec | Mapping):
        adapters = [adapters]
    specs = resolved.adapters if adapters is None else tuple(as_spec(spec) for spec in adapters)
    if not specs and not resolved.adapters:
        return resolved
    rest = {key: value for key, value in resolved.recipe.items() if key != "adapters"}
    return resolve({**rest, "adapters": [spec.to_dict() for spec in specs]}) if specs else resolve(rest)


def tuned(settings: Settings, resolved: Resolved) -> Settings:
    """The settings with `tune` said: everything, or the heads beside adapters.

    Errors: `RunError` where everything is to train beside adapters, which are for a frozen base.
    """
    if not resolved.adapters:
        return settings if settings.tune else replace(settings, tune=FULL)
    tuning = replace(settings, tune=settings.tune or HEAD).tuning
    if tuning.is_full or any(FULL in step.train for step in tuning.later):
        raise RunError(
            "tune=full trains everything, and adapters are for a frozen base: leave --tune out, and the heads train "
            f"beside them ({', '.join(map(str, resolved.adapters))}); or train without adapters"
        )
    return settings if settings.tune else replace(settings, tune=HEAD)


def adapted(model: GraphModel, settings: Settings) -> GraphModel | Adapted:
    """The model with its recipe's adapters, drawn by the seed, if there are any.

    With them goes what of the base trains at some time by the settings (`tune`, the heads as a rule): it is saved in
    their file.
    """
    if not model.resolved.adapters:
        return model
    try:
        made = adapt(model, seed=settings.seed)
    except AgblocksError as error:
        raise RunError(f"adapters of {model.resolved.name!r}: {error}") from None
    frozen = Frozen(made, settings.tuning)
    frozen.restore()
    made.bank.open("default", [name for name, p in model.named_parameters() if frozen.when(p) is not None])
    return made


def state(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a model by the names a run has for them: the recipe's own, and adapters under `adapters/`."""
    if not isinstance(model, Adapted):
        return dict(model.state_dict())
    own = {f"{STORED}{name}": value for name, value in model.bank.state_dict().items()}
    return {**model.base.state_dict(), **own}


def take(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors of those names into a model. They must be all of it."""
    base = {name: value for name, value in tensors.items() if not name.startswith(STORED)}
    own = {name.removeprefix(STORED): value for name, value in tensors.items() if name.startswith(STORED)}
    if isinstance(model, Adapted):
        model.bank.load_state_dict(own, strict=True)
    (model.base if isinstance(model, Adapted) else model).load_state_dict(base, strict=True)


def attached(model: GraphModel) -> GraphModel | Adapted:
    """The model with its recipe's adapters, if any, to be filled."""
    return adapt(model) if model.resolved.adapters else model


def save_alone(folder: Path, models: Sequence[nn.Module]) -> None:
    """Write each member's adapters, and what trained beside them, to files of their own in the run folder."""
    for member, model in enumerate(models):
        if isinstance(model, Adapted):
            (folder / FOLDER).mkdir(exist_ok=True)
            model.save(folder / FOLDER / f"{member}.safetensors")


def record(resolved: Resolved, models: Sequence[nn.Module]) -> dict[str, Any]:
    """What is stored of adapters with a run; nothing without any."""
    first = models[0]
    if not isinstance(first, Adapted):
        return {}
    specs = [str(spec) for spec in resolved.adapters]
    return {"adapters": {"specs": specs, "digest": resolved.adapters_digest, "parameters": first.bank.count()}}
