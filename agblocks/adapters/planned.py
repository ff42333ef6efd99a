"""What adapters would come to on a model: sites and parameters, counted without memory for weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import Problem, RecipeError
from ..graph.adapter_spec import AdapterSpec, as_spec
from .bank import AdapterBank
from .errors import AdapterError, DuplicateSite, NoTargetMatch, TargetCountMismatch
from .targets import select

if TYPE_CHECKING:
    from ..graph.resolved import Resolved

ONE_NAME = "a recipe's adapters attach under one name; from Python another can come beside it"
ADAM = 2  # numbers that Adam keeps of each parameter


@dataclass(frozen=True)
class PlannedSite:
    """One module that an adapter would sit on, and what it would have there."""

    path: str
    module: str  # its class
    role: str
    parameters: int


@dataclass(frozen=True)
class Planned:
    """One spec on a model. `shared` are parameters that its sites have in common."""

    spec: AdapterSpec
    sites: tuple[PlannedSite, ...]
    shared: int
    bytes: int  # of the parameters

    @property
    def parameters(self) -> int:
        """All of them, what is shared counted once."""
        return self.shared + sum(site.parameters for site in self.sites)

    @property
    def rows(self) -> list[tuple[str, str, int, int]]:
        """Sites that differ in the numbers of their names alone, together: name, class, how many, parameters each."""
        found: dict[tuple[str, str, int], list[str]] = {}
        for site in self.sites:
            found.setdefault((re.sub(r"\d+", "*", site.path), site.module, site.parameters), []).append(site.path)
        return [
            (path if len(paths) > 1 else paths[0], module, len(paths), each)
            for (path, module, each), paths in found.items()
        ]


def plan(model: nn.Module, specs: Iterable[AdapterSpec | str | Mapping[str, Any]]) -> list[Planned]:
    """Attach specs to a model, note what they come to, and take them off again.

    model: a model without adapters, best on the meta device, where nothing takes memory.
    Raises: the first `AdapterError`; its note says which spec.
    """
    found, wrong = tried(model, specs)
    for error in wrong.values():
        raise error
    return found


def tried(model: nn.Module, specs: Iterable[Any]) -> tuple[list[Planned], dict[int, AdapterError]]:
    """As `plan`, going on after errors: what can be attached, and what is wrong, by the spec's place in the list."""
    wanted = [as_spec(spec) for spec in specs]
    found: list[Planned] = []
    wrong: dict[int, AdapterError] = {}
    bank = AdapterBank(model)
    try:
        for index, spec in enumerate(wanted):
            name = f"adapter{index}"
            try:
                bank.add(name, [spec])
            except AdapterError as error:
                wrong[index] = error
            else:
                found.append(_planned(bank, name, spec))
    finally:
        bank.detach()
    if wanted and not wrong:  # each fits; do they fit together, under one name?
        try:
            bank.add("default", wanted)
        except AdapterError as error:
            wrong[len(wanted) - 1] = error
        finally:
            bank.detach()
    return found, wrong


def check(resolved: Resolved) -> None:
    """Raise `RecipeError`, located, for adapters of a recipe that cannot sit where they say."""
    from ..graph.build import build

    if not resolved.adapters:
        return
    model = build(resolved, device="meta")
    _, wrong = tried(model, resolved.adapters)
    if wrong:
        raise RecipeError(_problem(error, model, resolved.adapters[i], f"adapters[{i}]") for i, error in wrong.items())


def _problem(error: AdapterError, model: nn.Module, spec: AdapterSpec, path: str) -> Problem:
    """The error, at the entry of the spec that is to blame where one is."""
    notes = (ONE_NAME,) if isinstance(error, DuplicateSite) else ()
    steps = _culprit(model, spec.target) if isinstance(error, NoTargetMatch | TargetCountMismatch) else ()
    tree = spec.tree
    mark = None
    if tree is not None:
        mark = tree.find(steps).mark if steps and steps[0] in tree.value else tree.mark
    return Problem(str(error), mark, ".".join((path, *map(str, steps[:1]))), notes)


def _culprit(model: nn.Module, target: Mapping[str, Any]) -> tuple[str | int, ...]:
    """The pattern that matches nothing by itself, or else the field without which there would be a match."""

    def fits(wanted: Mapping[str, Any]) -> bool:
        try:
            return bool(select(model, wanted))
        except AdapterError:
            return False

    for name in ("role", "glob", "regex", "type", "exclude"):
        for index, pattern in enumerate(target.get(name, ())):
            if not fits({"glob" if name == "exclude" else name: [pattern]}):
                return name, index
    for name in ("expect", "layers", "stages", "exclude"):
        if name in target and fits({field: value for field, value in target.items() if field != name}):
            return (name,)
    return ()


def _planned(bank: AdapterBank, name: str, spec: AdapterSpec) -> Planned:
    rows = [row for row in bank.report() if row["name"] == name]
    sites = tuple(PlannedSite(row["site"], row["module"], row["role"], row["parameters"]) for row in rows)
    shared = bank.count(name) - sum(site.parameters for site in sites)
    tensors = {id(p): p for adapter in bank.adapters(name) for p in adapter.parameters()}
    tensors |= {id(p): p for key, part in bank.shared.items() if key.startswith(f"{name}:") for p in part.parameters()}
    return Planned(spec, sites, shared, sum(p.numel() * p.element_size() for p in tensors.values()))
