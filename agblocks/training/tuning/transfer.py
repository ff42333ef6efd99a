"""A transfer as data: weights from where, what is drawn anew, what trains when and at which rate, what adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from ...errors import near, shown
from ...graph.adapter_spec import AdapterSpec
from ...graph.model import GraphModel
from ...graph.resolved import Resolved
from ..errors import RunError
from ..settings import Settings
from .choose import chosen
from .fields import READ, TransferError, Where, Wrong, told
from .groups import factors_of
from .loads import Load, as_loads
from .plan import Plan
from .rates import Rates, rates_text
from .terms import FULL, NOT, Terms
from .unfreeze import Unfreeze


@dataclass(frozen=True)
class Transfer:
    """How a model is made of another one: the `transfer:` section of a study, an argument of `fit`. Frozen, JSON-able.

    weights: where they come from: a file, a run folder, a hub's repository; or several, `[{from: runs/a, into:
        [encoder]}, ...]`, each over what those before it left. What they lack is drawn by the seed.
    reinit: what of them is drawn anew, each part by its blocks' own initialisation: `from:encoder.stage5`. The values
        are those of a fresh model of the run's seed, whatever else is drawn anew; running statistics go with them.
    tune: what trains (terms as `Tune` has them), or freeze: what does not, and all else does. Without either everything
        trains, beside adapters the heads. Frozen norms are in evaluation: their statistics stay.
    unfreeze: what joins later, and when (`Unfreeze`).
    rates: learning rates of parts, `{encoder.**: 0.01, head: 1}`, as multiples of the settings'. They are multiplied
        with what layer_decay and head_lr come to; of several that name a parameter the narrowest counts.
    adapters: specs; without it the recipe's own; `[]` for none.

    Every field takes what its text on the command line would be, too. `settings` gives the settings with what is said
    here: nothing is kept in two places. Errors: `TransferError` with everything that is wrong, and its path.
    Use when: `fit(recipe, table, splits, out, transfer=Transfer(weights="runs/starr", tune="head"))`.
    """

    weights: tuple[Load, ...] = ()
    reinit: Terms = ()
    tune: Terms = ()
    freeze: Terms = ()
    unfreeze: tuple[Unfreeze, ...] = ()
    rates: Rates = ()
    adapters: tuple[AdapterSpec, ...] | None = None

    def __post_init__(self) -> None:
        wrong: list[tuple[Where, str]] = []
        for name, read in READ.items():
            value = getattr(self, name)
            object.__setattr__(self, name, read(name, value, wrong))
        if self.tune and self.freeze:
            wrong.append((("freeze",), "tune and freeze both; say what trains, or what does not"))
        for i, term in enumerate(self.freeze):
            if term.startswith(NOT):
                wrong.append((("freeze", i), f"{term}; wanted tune: {term.removeprefix(NOT)}"))
        if not wrong and self.unfreeze and self.what == (FULL,):
            wrong.append((("unfreeze",), "everything trains from the start; say tune: head, or what comes first"))
        if wrong:
            raise TransferError(wrong)

    @property
    def what(self) -> Terms:
        """What trains from the start, as terms of `Tune`; nothing where the settings' default holds."""
        return self.tune or tuple(f"{NOT}{'**' if term == FULL else term}" for term in self.freeze)

    def settings(self, settings: Settings) -> Settings:
        """The settings with what is said here. Errors: `RunError` for what is said in both, and differs."""
        said = {
            "tune": "+".join(self.what), "unfreeze": ",".join(map(str, self.unfreeze)), "reinit": "+".join(self.reinit),
            "rates": rates_text(self.rates),
        }  # fmt: skip
        for name, text in said.items():
            there = getattr(settings, name)
            if text and there and there != text:
                raise RunError(f"{name} is said twice: {there!r} in the settings, {text!r} in transfer")
        changes: dict[str, Any] = {name: text for name, text in said.items() if text}
        return replace(settings, **changes)

    @classmethod
    def of(cls, settings: Settings, weights: Any = None, adapters: Sequence[AdapterSpec] = ()) -> Transfer:
        """The transfer that settings, weights and adapters come to: what `fit` makes of its arguments."""
        full = settings.tuning.is_full
        return cls(
            as_loads(weights), settings.redrawn, () if full else settings.tuning.what, (), settings.tuning.later,
            settings.factors, tuple(adapters) or None,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: what is said, and no more. Errors: `RunError` where weights are a state dict."""
        found: dict[str, Any] = {"weights": [load.to_dict() for load in self.weights]}
        found |= {name: list(getattr(self, name)) for name in ("reinit", "tune", "freeze")}
        found["unfreeze"] = [step.to_dict() for step in self.unfreeze]
        found["rates"] = {"+".join(terms): factor for terms, factor in self.rates}
        found = {name: value for name, value in found.items() if value}
        return found if self.adapters is None else {**found, "adapters": [spec.to_dict() for spec in self.adapters]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transfer:
        """The transfer that `to_dict` wrote, or a section as people write it. Strict."""
        if not isinstance(values, Mapping):
            raise TransferError([((), f"{shown(values)}; wanted a mapping like {{weights: runs/a, tune: head}}")])
        names = [field.name for field in fields(cls)]
        if odd := [name for name in values if name not in names]:
            raise TransferError([((str(name),), f"there is no such key; {near(str(name), names)}") for name in odd])
        return cls(**{name: value for name, value in values.items() if value is not None})

    def check(self, recipe: Resolved) -> None:
        """Whether every term names something of a recipe's model, none of which is allocated, and each step more.

        Errors: `TransferError` with all that do not, and names that are near.
        """
        from ...graph.build import build

        model = build(recipe, device="meta")
        terms: list[tuple[Where, str]] = [
            ((name, i) if len(getattr(self, name)) > 1 else (name,), term)
            for name in ("reinit", "tune", "freeze")
            for i, term in enumerate(getattr(self, name))
        ]
        terms += [(("unfreeze", i), term) for i, step in enumerate(self.unfreeze) for term in step.train]
        terms += [(("rates", "+".join(named)), term) for named, _ in self.rates for term in named]
        wrong: Wrong = []
        for path, term in terms:
            told(path, wrong, partial(chosen, model, [term], ""), None)
        if not wrong:
            told(("rates",), wrong, partial(factors_of, model, self.rates), None)
            self._check_order(model, wrong, bool(recipe.adapters if self.adapters is None else self.adapters))
        if wrong:
            raise TransferError(wrong)

    def _check_order(self, model: GraphModel, wrong: Wrong, adapted: bool) -> None:
        """Whether each step adds something, and anything trains at all; beside adapters not everything, by name."""
        if adapted:
            at: list[Where] = [("tune",)] if self.tune == (FULL,) else []
            at += [("unfreeze", i) for i, step in enumerate(self.unfreeze) if FULL in step.train]
            wrong += [(path, "everything, and adapters are for a frozen base; name parts of it") for path in at]
        if not self.what:
            return
        trains = set(map(id, chosen(model, self.what)))
        for i, step in enumerate(self.unfreeze):
            new = set(map(id, chosen(model, step.train)))
            if new <= trains:
                wrong.append((("unfreeze", i), f"{step}: all of it trains before that"))
            trains |= new
        if not trains and not adapted:
            wrong.append((("freeze" if self.freeze else "tune",), "nothing trains: every parameter is frozen"))

    def record(self, plan: Plan) -> dict[str, Any]:
        """What is stored of it with a run, under `transfer`, with the digest of what it comes to; or nothing."""
        stored = replace(self, weights=tuple(load for load in self.weights if isinstance(load.source, str)))
        said = stored.to_dict()
        return {"transfer": {**said, "digest": stored.digest, "groups": plan.digest}} if said else {}

    @property
    def digest(self) -> str:
        """sha256 of all that is said. Weights count by what they are called; a run has the sha256 of their values."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def as_transfer(said: Transfer | Mapping[str, Any] | None) -> Transfer:
    """A transfer from any of its forms."""
    return said if isinstance(said, Transfer) else Transfer() if said is None else Transfer.from_dict(said)


def said_once(
    transfer: Transfer | Mapping[str, Any] | None,
    settings: Settings,
    weights: Any = None,
    into: str | Sequence[str] | None = None,
    adapters: Any = None,
) -> tuple[Settings, tuple[Load, ...], Any]:
    """Settings, weights and adapters of a training, of which a part may stand in a transfer.

    Errors: `RunError` for what is said in both, or `into` without weights.
    """
    transfer = as_transfer(transfer)
    loads = as_loads(weights)
    both = {
        "weights": loads and transfer.weights,
        "adapters": adapters is not None and transfer.adapters is not None,
    }
    for name, twice in both.items():
        if twice:
            raise RunError(f"{name} are said twice: as an argument, and in transfer")
    if into is not None:
        if not loads:
            raise RunError("weights_into names nodes, but there are no weights beside it; in transfer say into: there")
        loads = tuple(replace(load, into=(into,) if isinstance(into, str) else tuple(into)) for load in loads)
    return transfer.settings(settings), loads or transfer.weights, transfer.adapters if adapters is None else adapters
