"""The built model: an ordinary `nn.Module` that computes the edges it is asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, near, shown
from .as_timm import AsTimm
from .block import Head
from .checkpointed import checkpointed
from .dims import Length, number
from .lengths import Sized, lengths_of
from .resolved import Resolved, ResolvedNode


class Group(nn.Module):
    """Holds the nodes of a composite under its name, so that parameters are named `encoder.stage4...`."""


@dataclass(frozen=True)
class Step:
    """One node to run: where its module hangs, which edges it reads, which it makes, which are then done with."""

    parent: nn.Module
    child: str
    reads: tuple[str | None, ...]
    makes: tuple[str, ...]
    drops: tuple[str, ...]
    node: str


@dataclass(frozen=True)
class Plan:
    """The steps for some outputs, and the inputs they need."""

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    optional: tuple[str, ...]  # those of them that may be left out
    outputs: tuple[tuple[str, str], ...]  # asked name, edge


class GraphModel(AsTimm):
    """A recipe built. `model(dna=x)` gives every head; `outputs=["activity", "encoder.stage4"]` any head or edge.

    `.resolved` is the resolved recipe. Parameters are named by the recipe (`encoder.stage4.conv1.weight`).
    Inputs are named, or positional in the recipe's order; an optional one may be left out or None. Raises InputError
    for unknown outputs and for inputs whose shape or length the model does not admit, naming the rule. An exception
    inside a block carries a note that names the node, the block and where both stand.
    """

    def __init__(self, resolved: Resolved):
        super().__init__()
        self.resolved = resolved
        self._plans: dict[tuple[str, ...] | None, Plan] = {}
        self._checkpointed: frozenset[str] = frozenset()
        self._admitted: set[Any] = set()
        for node in resolved.nodes.values():
            group: nn.Module = self
            *path, last = node.name.split(".")
            for part in path:
                if not hasattr(group, part):
                    group.add_module(part, Group())
                group = getattr(group, part)
            group.add_module(last, _made(node))

    def forward(self, *positional: Tensor, outputs: Iterable[str] | None = None, **inputs: Tensor) -> dict[str, Tensor]:
        if isinstance(outputs, str):
            raise InputError(f"outputs should be a list of names, not the text {outputs!r}")
        key = None if outputs is None else tuple(outputs)
        if key is not None and not all(isinstance(name, str) for name in key):
            raise InputError(f"outputs should be a list of names, not {shown(outputs)}")
        plan = self._plans.get(key) or self._plan(key)
        if positional:
            inputs = self._named(positional, inputs)
        if plan.optional:
            inputs = {name: value for name, value in inputs.items() if value is not None}
        if not torch.compiler.is_compiling():
            self._admit(key, plan, inputs)
        return self._run(plan, {**dict.fromkeys(plan.optional), **inputs})

    def _run(self, plan: Plan, values: dict[str, Any]) -> dict[str, Tensor]:
        step = None
        try:
            for step in plan.steps:
                module = step.parent._modules[step.child]
                reads = [None if edge is None else values[edge] for edge in step.reads]
                if step.node in self._checkpointed and torch.is_grad_enabled():
                    made = checkpointed(module, reads)  # type: ignore[arg-type]
                else:
                    made = module(*reads)  # type: ignore[misc]
                if len(step.makes) == 1:
                    values[step.makes[0]] = made
                else:
                    values.update(zip(step.makes, made, strict=True))
                for edge in step.drops:
                    del values[edge]
        except Exception as error:
            if step is not None:
                error.add_note(self._where(step.node, values))
            raise
        return {name: values[edge] for name, edge in plan.outputs}

    def _where(self, name: str, values: Mapping[str, Any]) -> str:
        node = self.resolved.nodes[name]
        reads = ", ".join(
            f"{port} = {edge} {list(values[edge].shape)}"
            for port, edge in node.inputs.items()
            if values.get(edge) is not None
        )
        stands = f" ({node.mark})" if node.mark else ""
        return f"in node {name!r}{stands}, block {node.entry.name!r} ({node.entry.where}), with {reads}"

    # Which nodes

    def _plan(self, key: tuple[str, ...] | None) -> Plan:
        resolved = self.resolved
        asked = tuple(resolved.heads) or resolved.keep if key is None else key
        outputs = tuple((name, resolved.edge(name)) for name in asked)
        nodes = resolved.needed(asked)
        last = {edge: node.name for node in nodes for edge in (*node.outputs, *node.inputs.values())}
        wanted = {edge for _, edge in outputs}
        steps = []
        for node in nodes:
            parent, _, child = node.name.rpartition(".")
            reads = tuple(node.inputs.get(port.name) for port in node.entry.signature.inputs)
            ends = [e for e in dict.fromkeys((*node.inputs.values(), *node.outputs)) if last[e] == node.name]
            drops = tuple(edge for edge in ends if edge not in wanted)
            steps.append(Step(self.get_submodule(parent), child, reads, node.outputs, drops, node.name))
        read = {edge for node in nodes for edge in node.inputs.values()} | wanted
        inputs = tuple(name for name in resolved.inputs if name in read)
        optional = tuple(name for name in inputs if resolved.inputs[name].optional and name not in wanted)
        plan = Plan(tuple(steps), inputs, optional, outputs)
        self._plans[key] = plan
        return plan

    def _named(self, positional: tuple[Tensor, ...], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        names = tuple(self.resolved.inputs)
        if len(positional) > len(names):
            raise InputError(f"{len(positional)} inputs, but the model has {len(names)}: {', '.join(names)}")
        given = dict(zip(names, positional, strict=False))
        if twice := given.keys() & inputs.keys():
            raise InputError(f"input {sorted(twice)[0]!r} is given by position and by name")
        return {**given, **inputs}

    # Which inputs

    def _admit(self, key: tuple[str, ...] | None, plan: Plan, inputs: Mapping[str, Tensor]) -> None:
        try:
            shapes = (key, *((name, value.shape) for name, value in inputs.items()))
        except AttributeError:
            name, value = next((n, v) for n, v in inputs.items() if not isinstance(v, Tensor))
            raise InputError(f"input {name!r} should be a tensor, not {type(value).__name__}") from None
        if shapes in self._admitted:
            return
        self._check_inputs(plan, inputs)
        if len(self._admitted) > 1000:
            self._admitted.clear()
        self._admitted.add(shapes)

    def _check_inputs(self, plan: Plan, inputs: Mapping[str, Tensor]) -> None:
        values: dict[str, int] = {}
        derived: list[Sized] = []
        for name in inputs:
            if name not in self.resolved.inputs:
                raise InputError(f"the model has no input {name!r}; {near(name, self.resolved.inputs)}")
        for name in plan.inputs:
            info = self.resolved.inputs[name]
            if name not in inputs and name in plan.optional:
                continue
            if name not in inputs:
                raise InputError(f"input {name!r} {info.shape} is missing")
            shape = tuple(inputs[name].shape)
            if len(shape) != len(info.axes):
                raise InputError(f"input {name!r} should be {info.shape}, but is {list(shape)}")
            for axis, (size, wanted) in enumerate(zip(shape, info.axes, strict=True)):
                known = number(wanted)
                if known is None:
                    assert isinstance(wanted, Length)
                    if str(wanted) != wanted.symbols[0]:  # of an edge where the recipe was cut
                        derived.append(Sized(name, axis, wanted, size))
                        known = size
                    else:
                        known = values.setdefault(wanted.symbols[0], size)
                if size == 0 and axis > 1:
                    raise InputError(f"axis {axis} of input {name!r} {info.shape} is empty")
                if known != size:
                    raise InputError(f"axis {axis} of input {name!r} {info.shape} should be {known}, but is {size}")
        rule = self.resolved.rule(edge for _, edge in plan.outputs)
        if derived:
            values, wrong = lengths_of(derived, values, rule)
            if wrong is not None:
                info = self.resolved.inputs[wrong.name]
                raise InputError(
                    f"axis {wrong.axis} of input {wrong.name!r} {info.shape} is {wrong.size}: no length of the "
                    f"recipe's inputs gives {wrong.length} = {wrong.size} beside the other inputs' sizes"
                )
        if failed := rule.failures(values):
            lengths = ", ".join(f"{s} = {n}" for s, n in values.items() if s != "B")
            reason = f" (at {failed[0].reason})" if failed[0].reason else ""
            raise InputError(f"{lengths} does not fit: {rule}{reason}")

    # Losses

    @property
    def loss_outputs(self) -> tuple[str, ...]:
        """The outputs that the heads' losses need: ask for these when training."""
        return tuple(name for head in self.resolved.heads for name in self._loss_edges(head).values())

    def _loss_edges(self, head: str) -> dict[str, str]:
        module = self.get_submodule(head)
        first = self.resolved.nodes[head].entry.signature.outputs[0].name
        assert isinstance(module, Head)
        return {port: head if port == first else f"{head}.{port}" for port in module.loss_ports}

    def loss(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The heads' losses for the targets given, summed with the recipe's weights. Scalar.

        `outputs` is what the model returned for `loss_outputs`; `targets` and `masks` are by head.
        Raises InputError where a target has no head or another shape than the head's outputs, or where an output that a
        loss needs was not computed.
        """
        total = None
        for head, target in targets.items():
            if head not in self.resolved.heads:
                raise InputError(f"there is no head {head!r} for this target; {near(head, self.resolved.heads)}")
            edges = self._loss_edges(head)
            missing = [edge for edge in edges.values() if edge not in outputs]
            if missing:
                raise InputError(f"the loss of {head!r} needs {missing}; ask for outputs=model.loss_outputs")
            module = self.get_submodule(head)
            assert isinstance(module, Head)
            mask = (masks or {}).get(head)
            mine = {port: outputs[edge] for port, edge in edges.items()}
            _check_target(head, module.target_shape(mine), target, mask)
            part = self.resolved.heads[head] * module.loss(mine, target, mask)
            total = part if total is None else total + part
        if total is None:
            raise InputError("there are no targets to compute a loss for")
        return total

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}, "_admitted": set()}


def _check_target(head: str, wanted: tuple[int, ...], target: Tensor, mask: Tensor | None) -> None:
    """A target that would only broadcast gives a wrong loss."""
    if tuple(target.shape) != wanted:
        raise InputError(f"the target of {head!r} should be {list(wanted)}, but is {list(target.shape)}")
    if mask is None:
        return
    sizes = tuple(mask.shape)
    ends = zip(reversed(sizes), reversed(wanted), strict=False)
    if len(sizes) > len(wanted) or any(size not in (1, full) for size, full in ends):
        raise InputError(f"the mask of {head!r} should spread over {list(wanted)}, but is {list(sizes)}")


def _made(node: ResolvedNode) -> nn.Module:
    dims = {name: value for name, value in node.dims.items() if value is not None}
    try:
        return node.entry.target(**dims, **node.args)
    except Exception as error:
        stands = f" ({node.mark})" if node.mark else ""
        error.add_note(f"building node {node.name!r}{stands}, block {node.entry.name!r} ({node.entry.where})")
        raise
