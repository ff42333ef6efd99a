"""What trains, part by part, before training: node, parameters, where values come from, when, at which rate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..settings import Settings
from .frozen import Frozen
from .groups import graphs, groups_of
from .unfreeze import Unfreeze

DRAWN, REDRAWN = "drawn", "drawn anew"  # where values come from, beside the names of sources


@dataclass(frozen=True)
class Part:
    """Parameters of one node that are trained alike.

    after: how many epochs of their stage until they train, None never; stage: which, 0 for the first. origin: where
    their values come from, "" where nothing was said. adapter: the kind, of adapters on that node.
    """

    name: str
    parameters: int
    after: int | None
    lr_scale: float
    decays: bool
    stage: int = 0
    origin: str = ""
    adapter: str = ""

    @property
    def trains(self) -> str:
        """`yes`, `no`, `after 3 epochs`, `from plateau 1`, `2 epochs after plateau 1`."""
        if self.after is None:
            return "no"
        epochs = f"{self.after} epoch{'' if self.after == 1 else 's'}"
        if self.stage:
            return f"{epochs} after plateau {self.stage}" if self.after else f"from plateau {self.stage}"
        return f"after {epochs}" if self.after else "yes"


@dataclass(frozen=True)
class Plan:
    """What trains, part by part, in the model's order. `print(plan)` gives it as a table."""

    parts: tuple[Part, ...]
    plateaus: tuple[Unfreeze, ...] = ()
    patience: int = 0

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        """Parameters that train at some time."""
        return sum(part.parameters for part in self.parts if part.after is not None)

    @property
    def is_plain(self) -> bool:
        """Whether everything trains, all the time, at one learning rate, from values that were drawn."""
        return all(
            (part.after, part.stage) == (0, 0) and part.lr_scale == 1 and part.origin in ("", DRAWN)
            for part in self.parts
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        parts, plateaus = [dict(vars(part)) for part in self.parts], [step.to_dict() for step in self.plateaus]
        return {"parts": parts, "plateaus": plateaus, "patience": self.patience}

    @property
    def digest(self) -> str:
        """sha256 of what trains when and how, whatever terms said it; of origins, whether values were loaded."""
        said = self.to_dict()
        for part in said["parts"]:
            part["origin"] = part["origin"] if part["origin"] in ("", DRAWN, REDRAWN) else "loaded"
        for step in said["plateaus"]:
            del step["train"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        rows = [("", "parameters", "from", "trains", "lr x", "decays", "adapter")]
        for part in self.parts:
            rest = ("", "") if part.after is None else (f"{part.lr_scale:.4g}", "yes" if part.decays else "no")
            rows.append((part.name, f"{part.parameters:,}", part.origin, part.trains, *rest, part.adapter))
        shown = [i for i in range(7) if i in (0, 4, 5) or any(row[i] for row in rows[1:])]
        wide = [max(len(row[i]) for row in rows) for i in range(7)]
        lines = ["  ".join(f"{row[i]:{'>' if i in (1, 4) else '<'}{wide[i]}}" for i in shown).rstrip() for row in rows]
        share = 100 * self.trained / max(1, self.parameters)
        end = f"{self.trained:,} of {self.parameters:,} parameters train ({share:.3g} %)"
        return "\n".join([*lines, *self._stages(), end])

    def _stages(self) -> Iterator[str]:
        for number, step in enumerate(self.plateaus, 1):
            patience = step.patience(self.patience)
            row = "an evaluation is" if patience == 1 else f"{patience} evaluations in a row are"
            waits = [f"{row} no better"] if patience else []
            waits += [f"the stage had {step.latest} epochs"] if step.latest is not None else []
            rate = "" if step.lr == 1 else f", learning rate x {step.lr:.4g}"
            yield f"plateau {number}: when {' or '.join(waits)}; from the best weights, optimiser anew{rate}"


def plan(model: nn.Module, settings: Settings, origins: Mapping[str, str] | None = None) -> Plan:
    """What the settings train of a model. Errors: `RunError` as `freeze`. The model is left as it was.

    origins: where values come from, by the names of the recipe's parameters.
    Use when: before training, to see what a policy, learning rates of parts and a layer decay mean.
    """
    frozen = Frozen(model, settings.tuning)
    try:
        with frozen.ever():
            groups = groups_of(model, settings)
        known = {id(p): (g["lr_scale"], g["weight_decay"] > 0) for g in groups for p in g["params"]}
        where = {
            id(p): (node, (origins or {}).get(f"{node}.{name}", ""))
            for graph in graphs(model)
            for node in graph.resolved.nodes
            for name, p in graph.get_submodule(node).named_parameters(remove_duplicate=False)
        }
        parts: dict[Part, int] = {}
        for name, parameter in model.named_parameters():
            stage, after = frozen.when(parameter) or (0, None)
            scale, decays = known.get(id(parameter), (0.0, False))
            if id(parameter) in where:
                (node, origin), adapter = where[id(parameter)], ""
            else:
                node, adapter = _adapter(model, name)
                origin = DRAWN if origins is not None else ""
            part = Part(node, 0, after, scale, decays, stage, origin, adapter)
            parts[part] = parts.get(part, 0) + parameter.numel()
        made = tuple(Part(**{**vars(part), "parameters": n}) for part, n in parts.items())
        return Plan(made, settings.tuning.plateaus, settings.patience)
    finally:
        frozen.restore()


def _adapter(model: nn.Module, name: str) -> tuple[str, str]:
    """The node that parameters of an adapter belong to, and its kind, of `bank.sites.encoder/conv.default:lora.up`."""
    parts = name.split(".")
    if parts[0] != "bank":
        return parts[0], ""
    if len(parts) < 4 or parts[1] != "sites":
        return "adapters", parts[1] if len(parts) > 1 else ""
    path = parts[2].strip("/").replace("/", ".")
    nodes = [node for graph in graphs(model) for node in graph.resolved.nodes]
    near = [node for node in nodes if path == node or path.startswith(f"{node}.")]
    return max(near, key=len, default=path), parts[3].partition(":")[2]
