"""Parameter groups of an optimiser: what decays, and each part's learning rate as a fraction of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from ..._torchvision import mend
from ...graph.model import GraphModel
from ..errors import RunError
from ..settings import Settings
from .choose import chosen, graph_of
from .rates import Rates


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    layer_decay: float = 1.0,
    head_lr: float = 1.0,
    min_scale: float = 0.0,
    rates: Rates = (),
) -> list[dict[str, Any]]:
    """Groups of everything that wants a gradient, each parameter once, in an order that depends on the model alone.

    Norms, biases and other vectors (a scale of (C, 1, 1) too) don't decay; nor does what `model.no_weight_decay()`
    names. `lr_scale` of a group is what its learning rate is multiplied with, at every step of a schedule:
    * the deepest layer before the heads has 1, each layer below `layer_decay` times the one above, by the recipe's
      depth (`group_matcher`; nodes side by side share a layer), and never less than `min_scale`;
    * heads have `head_lr`; what is not of the recipe's model (adapters) has 1;
    * `rates` of parts (`as_rates`) are multiplied with that: where several name a parameter, the one that names the
      fewest parameters;
    * a model's own `learning_rates()`, parameter's name -> factor, is multiplied with that.
    Source: timm's layer decay, and Bao et al. 2021 (BEiT).
    """
    named = {id(p): name for name, p in model.named_parameters()}
    spared = {id(p) for p in _spared(model, named)}
    scales = _scales(model, layer_decay, head_lr, min_scale)
    own: Callable[[], Mapping[str, float]] | None = getattr(model, "learning_rates", None)
    factors = dict(own()) if own is not None else {}
    parts = factors_of(model, rates)
    groups: dict[float, tuple[list[nn.Parameter], list[nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = scales.get(id(parameter), 1.0) * parts.get(id(parameter), 1.0) * factors.pop(name, 1.0)
            groups.setdefault(scale, ([], []))[id(parameter) in spared].append(parameter)
    if odd := set(factors) - set(named.values()):
        raise RunError(f"learning_rates() of the model names {sorted(odd)[0]!r}, which it does not have")
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for scale, pair in groups.items()
        for parameters, decay in zip(pair, (weight_decay, 0.0), strict=True)
        if parameters
    ]


def _spared(model: nn.Module, named: Mapping[int, str]) -> Iterator[nn.Parameter]:
    names = set(getattr(model, "no_weight_decay", set)())
    inner = {id(p) for graph in graphs(model) for name, p in graph.named_parameters() if name in names}
    for parameter in model.parameters():
        vector = parameter.ndim <= 1 or (parameter.ndim > 2 and parameter.numel() == parameter.shape[0])
        if vector or named[id(parameter)] in names or id(parameter) in inner:
            yield parameter


def graphs(model: nn.Module) -> list[GraphModel]:
    """The recipes' models in a model, itself mostly."""
    return [module for module in model.modules() if isinstance(module, GraphModel)]


def _scales(model: nn.Module, layer_decay: float, head_lr: float, min_scale: float) -> dict[int, float]:
    """Scale by parameter, of the recipe's model; nothing where all are 1."""
    if layer_decay == 1 and head_lr == 1:
        return {}
    graph = graph_of(model)
    heads = {id(p) for head in graph.resolved.heads for p in graph.get_submodule(head).parameters()}
    trunk = {name: p for name, p in graph.named_parameters() if id(p) not in heads}
    scales = dict.fromkeys(map(id, trunk.values()), 1.0)
    if layer_decay < 1 and trunk:
        mend()
        from timm.optim import param_groups_layer_decay

        seen: Any = _Trunk(graph, trunk)
        made = param_groups_layer_decay(seen, layer_decay=layer_decay, min_scale=min_scale)
        scales.update({id(p): float(group["lr_scale"]) for group in made for p in group["params"]})
    return {**scales, **dict.fromkeys(heads, head_lr)}


def factors_of(model: nn.Module, rates: Rates) -> dict[int, float]:
    """Factor by parameter. Errors: `RunError` for names that fit nothing, and where no entry is the narrower one."""
    if not rates:
        return {}
    graph = graph_of(model)
    found: dict[int, list[tuple[int, float, str]]] = {}
    for terms, factor in rates:
        named = chosen(graph, terms, "rates", heads=False)
        for parameter in named:
            found.setdefault(id(parameter), []).append((len(named), factor, "+".join(terms)))
    for name, parameter in graph.named_parameters():
        fewest = min(found.get(id(parameter), [(0, 1.0, "")]))[0]
        equal = [(factor, text) for size, factor, text in found.get(id(parameter), ()) if size == fewest]
        if len({factor for factor, _ in equal}) > 1:
            said = " and ".join(f"{text}={factor:g}" for factor, text in equal)
            raise RunError(f"rates: {said} both name {name}, and as many parameters; which is it?")
    return {key: min(entries)[1] for key, entries in found.items()}


class _Trunk:
    """What timm asks of a model, without the heads: so that the deepest layer has scale 1, not the heads'."""

    def __init__(self, graph: GraphModel, named: Mapping[str, nn.Parameter]):
        self.group_matcher, self.named = graph.group_matcher, named

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(self.named.items())


def groups_of(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """`parameter_groups` by the numbers of the settings."""
    return parameter_groups(
        model, settings.weight_decay, layer_decay=settings.layer_decay, head_lr=settings.head_lr,
        min_scale=settings.min_scale, rates=settings.factors,
    )  # fmt: skip
