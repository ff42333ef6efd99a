"""When features that were kept are what training would compute anew, and why not where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from ...adapters import Adapted
from ...graph.cut import boundary
from ...graph.model import GraphModel
from ...layers.rest import STATISTICS
from ...training.settings import Settings
from ...training.tuning.frozen import Frozen
from .variants import Variants


def usable(model: nn.Module, settings: Settings, variants: Variants | None = None) -> str | None:
    """Why the frozen part of a training can't be run once and kept, in words; None where it can.

    It can where the same sequence gives the same features at every step: nothing before the cut ever trains, or draws,
    or moves; and training shows no more of a sequence than the variants that are kept. What was re-drawn before
    training and stays frozen is no hindrance: keys go by the weights themselves.
    Errors: `RunError` as `training.freeze` (names that fit nothing).
    """
    variants = variants or Variants()
    if isinstance(model, Adapted):
        return "adapters are attached, and features are kept of a model's own weights alone"
    if not isinstance(model, GraphModel):
        return f"a {type(model).__name__} is no model of a recipe: it can't be cut"
    if model.resolved.adapters:
        return f"the recipe has adapters ({', '.join(map(str, model.resolved.adapters))})"
    if settings.processes > 1:
        return f"{settings.processes} processes train together, each of which would extract for itself"
    edges, reason = _cut_at(model, settings)
    if reason is not None:
        return reason
    if (reason := variants.lacks(settings.augment)) is not None:
        return reason
    if settings.strands == "both" and not variants.both_strands:
        return "validation shows both strands, and the other one is not among the cached variants"
    return changed(model, edges)


def needed_variants(settings: Settings) -> Variants:
    """The strands that a training shows. Shifts would be many, and are not among them: who wants them kept says so."""
    turns = settings.augment.reverse_complement > 0 or settings.strands == "both"
    return Variants(both_strands=turns, fill=settings.shift_mode, scope=settings.shift_scope)


def frozen_edges(model: GraphModel, settings: Settings) -> tuple[str, ...]:
    """Where to cut: the edges between what never changes in a training by these settings and what reads it.

    None where nothing that comes first is frozen. Norms and dropout count: a frozen block that draws in training is
    behind the cut.
    """
    return _cut_at(model, settings)[0]


def changed(model: GraphModel, edges: Iterable[str]) -> str | None:
    """Why an edge is not what the weights before it say: hooks, adapters, parametrisations. None where it is."""
    for node in model.resolved.needed(edges):
        for name, module in model.get_submodule(node.name).named_modules():
            where = f"{node.name}.{name}" if name else node.name
            if module._forward_hooks or module._forward_pre_hooks:
                return f"{where} has forward hooks (adapters?), which keys don't know of"
            if getattr(module, "parametrizations", None):
                return f"{where} is parametrised, which keys don't know of"
    return None


def _cut_at(model: GraphModel, settings: Settings) -> tuple[tuple[str, ...], str | None]:
    """The edges, or none and the reason."""
    first: str | None = None
    with _as_trained(model, settings) as frozen:
        still = set()
        for node in model.resolved.nodes:
            reason = _moves(node, model.get_submodule(node), frozen)
            if reason is None:
                still.add(node)
            elif first is None:
                first = reason
    edges = boundary(model.resolved, still)
    before = model.resolved.needed(edges)
    if not any(True for node in before for _ in model.get_submodule(node.name).parameters()):
        return (), f"nothing that comes first is frozen: {first}" if first else "there is nothing behind a cut"
    return edges, None


@contextmanager
def _as_trained(model: GraphModel, settings: Settings) -> Iterator[Frozen]:
    """The model in the mode that training has it in, frozen as the settings say; flags and modes are given back."""
    modes = [(module, module.training) for module in model.modules()]
    frozen = Frozen(model, settings.tuning)
    try:
        frozen.train()
        yield frozen
    finally:
        frozen.restore()
        for module, mode in modes:
            module.training = mode


def _moves(node: str, part: nn.Module, frozen: Frozen) -> str | None:
    """Why a node's output for one sequence changes in training; None where it does not."""
    for name, parameter in part.named_parameters():
        when = frozen.when(parameter)
        if when is not None:
            joins = "" if when == (0, 0) else ", later"
            return f"{node}.{name} trains{joins}"
    for name, module in part.named_modules():
        where = f"{node}.{name}" if name else node
        if not module.training:
            continue
        if (share := _draws(module)) > 0:
            return f"{where} drops {share:g} of its input, drawn anew in each step"
        if any(key in STATISTICS and held is not None for key, held in module._buffers.items()):
            return f"{where} follows the batches with its statistics"
    return None


def _draws(module: nn.Module) -> float:
    """The share that a module leaves out by chance in training, 0 for all others."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return float(module.p)
    # A number called dropout or drop_prob: attention that thins its weights, recurrent layers, timm's DropPath.
    said = [value for name, value in vars(module).items() if "drop" in name and type(value) is float]
    return max(said, default=0.0)
