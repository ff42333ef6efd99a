"""What differs between two resolved recipes, node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .adapter_spec import AdapterSpec
from .infer import EdgeInfo
from .resolved import Resolved, ResolvedNode


@dataclass(frozen=True)
class Change:
    """One difference: the node (or '' for the recipe), what of it, and both values (None: not there)."""

    node: str
    what: str
    left: Any
    right: Any

    def __str__(self) -> str:
        if self.what == "node":
            return f"- {self.node}: {self.left}" if self.right is None else f"+ {self.node}: {self.right}"
        return f"~ {self.node}.{self.what}: {self.left} -> {self.right}".replace("~ .", "~ ")


def diff(left: Resolved, right: Resolved) -> list[Change]:
    """The changes that turn one resolved recipe into another; empty where both compute the same by the same names.

    A node whose digest differs only because of what feeds it is not listed again.
    """
    changes: list[Change] = []
    for name in dict.fromkeys((*left.inputs, *right.inputs)):
        shapes = [_input(r.inputs[name]) if name in r.inputs else None for r in (left, right)]
        if shapes[0] != shapes[1]:
            changes.append(Change("", f"inputs.{name}", *shapes))
    for name in dict.fromkeys((*left.nodes, *right.nodes)):
        old, new = left.nodes.get(name), right.nodes.get(name)
        if old is None or new is None:
            changes.append(Change(name, "node", old and _line(old), new and _line(new)))
            continue
        if old.entry.name != new.entry.name:
            changes.append(Change(name, "block", old.entry.name, new.entry.name))
        changes += _unequal(name, "args", dict(old.args), dict(new.args))
        changes += _unequal(name, "in", dict(old.inputs), dict(new.inputs))
        shapes = [r.edges[n.outputs[0]].shape for r, n in ((left, old), (right, new))]
        if shapes[0] != shapes[1]:
            changes.append(Change(name, "shape", *shapes))
    changes += _unequal("", "heads", dict(left.heads), dict(right.heads))
    changes += _adapters(left.adapters, right.adapters)
    return changes


def _adapters(left: tuple[AdapterSpec, ...], right: tuple[AdapterSpec, ...]) -> list[Change]:
    changes = [Change("adapters", "node", str(spec), None) for spec in left if spec not in right]
    changes += [Change("adapters", "node", None, str(spec)) for spec in right if spec not in left]
    if not changes and left != right:  # the same ones, and their digest differs
        changes.append(Change("", "adapters", *(" ".join(map(str, specs)) for specs in (left, right))))
    return changes


def _input(info: EdgeInfo) -> str:
    return f"{info.shape}, may be left out" if info.optional else info.shape


def _line(node: ResolvedNode) -> str:
    args = ", ".join(f"{k}={v}" for k, v in node.args.items() if v != node.entry.defaults[k])
    return f"{node.entry.name}({args}) in {', '.join(node.inputs.values())}"


def _unequal(node: str, what: str, left: dict[str, Any], right: dict[str, Any]) -> list[Change]:
    keys = dict.fromkeys((*left, *right))
    return [Change(node, f"{what}.{k}", left.get(k), right.get(k)) for k in keys if left.get(k) != right.get(k)]
