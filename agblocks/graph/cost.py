"""What a model costs to run: multiply-adds of each node, counted by torch while nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .build import build
from .dims import Dim
from .model import GraphModel
from .resolved import Resolved

TYPICAL = 256  # positions; the length from which an input is looked for where nobody says one


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of each node for one example, at given lengths of the inputs; `bases` is the longest track."""

    nodes: Mapping[str, int]
    lengths: Mapping[str, int]
    bases: int

    @property
    def total(self) -> int:
        return sum(self.nodes.values())

    @property
    def per_base(self) -> dict[str, float]:
        """Multiply-adds of each node for one position of the input."""
        return {name: count / self.bases for name, count in self.nodes.items()}


def cost(resolved: Resolved, lengths: Mapping[str, int] | None = None, outputs: Sequence[str] | None = None) -> Cost:
    """Multiply-adds of a forward pass in evaluation, of the outputs named, or the heads, or else of what is kept.

    Counted are convolutions, matrix products and attention, as `torch.utils.flop_counter` knows them, inside autograd
    functions too; norms, activations and pools are not. `lengths` gives the inputs' symbols (default: the shortest
    admitted length from 256 on), which matters where attention grows with its square. The model is built on the meta
    device, or of fake tensors where a block cannot run there. Raises InputError where no length fits, and whatever a
    block raises that runs on neither.
    """
    values = {"B": 1, **(typical_lengths(resolved) if lengths is None else lengths)}
    try:
        with torch.no_grad():
            counts = _counted(build(resolved, device="meta"), values, "meta", outputs)
    except (RuntimeError, NotImplementedError):
        counts = _faked(resolved, values, outputs)
    tracks = [_at(i.axes[2], values) for i in resolved.inputs.values() if len(i.axes) == 3 and not i.integer]
    return Cost(counts, {k: v for k, v in values.items() if k != "B"}, max(tracks, default=1))


def typical_lengths(resolved: Resolved, least: int = TYPICAL) -> dict[str, int]:
    """For each open symbol of the inputs the shortest admitted length of at least so many positions."""
    rule = resolved.rule()
    axes = [axis for info in resolved.inputs.values() for axis in info.axes if not isinstance(axis, int)]
    symbols = dict.fromkeys(s for axis in axes for s in axis.symbols if s != "B")
    found = {symbol: next(n for n in rule.lengths(symbol) if n >= least) for symbol in symbols}
    if not rule.admits({**found, "B": 1}):
        raise InputError(f"no typical lengths fit the rule: {rule}")
    return found


def _faked(resolved: Resolved, values: Mapping[str, int], outputs: Sequence[str] | None) -> dict[str, int]:
    """The same with tensors that claim to lie on the CPU, and hold as little as those of the meta device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = build(resolved, device="meta")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        return _counted(model.to_empty(device="cpu"), values, "cpu", outputs)


def _counted(
    model: GraphModel, values: Mapping[str, int], device: str, outputs: Sequence[str] | None
) -> dict[str, int]:
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    # Of torch's own attention the counter knows every form but the one that processors have.
    more = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    resolved = model.resolved
    model.eval()
    given = zeros(resolved, values, device)
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        model(**given, outputs=outputs or [*resolved.heads] or [*resolved.keep])
    found = counter.get_flop_counts()
    root = type(model).__name__
    return {name: sum(found.get(f"{root}.{name}", {}).values()) // 2 for name in resolved.nodes}


def zeros(resolved: Resolved, values: Mapping[str, int], device: str | torch.device) -> dict[str, Tensor]:
    """An input of zeros for each that a call must have, at the values of the inputs' symbols, `B` among them."""
    made = {}
    for name, info in resolved.inputs.items():
        if not info.optional:
            kind: Any = torch.long if info.integer else torch.float32
            made[name] = torch.zeros([_at(axis, values) for axis in info.axes], dtype=kind, device=device)
    return made


def _at(axis: Dim, values: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else int(axis.at(values))
