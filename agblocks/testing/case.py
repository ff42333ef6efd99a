"""One example to try: a block (or a small recipe), its arguments and the shapes of its inputs. Prints as code."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.build import build
from ..graph.dims import Dim
from ..graph.model import GraphModel
from ..graph.registry import Entry, lookup
from ..graph.resolve import Resolved, resolve
from . import oracle
from .solve import Solution, solve

Inputs = dict[str, Tensor | None]


def run(module: Any, inputs: Mapping[str, Tensor | None], seed: int = 0) -> dict[str, Tensor]:
    """Call a module on copies of its inputs, under a random state of its own; its outputs by position."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = module(*[None if value is None else value.detach().clone() for value in inputs.values()])
    if isinstance(made, Mapping):
        return dict(made)
    return {str(i): value for i, value in enumerate(made if isinstance(made, tuple | list) else (made,))}


def dna(batch: int, length: int, seed: int = 0) -> Tensor:
    """Random one-hot DNA with an N here and there."""
    letters = torch.randint(0, 20, (batch, length), generator=torch.Generator().manual_seed(seed))
    return (letters[:, None] % 5 == torch.arange(4)[None, :, None]).float() + 0.0


@dataclass(frozen=True)
class Case:
    """A block with arguments, the shapes at its ports, and a seed for weights and inputs."""

    block: str
    args: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.seed else ""
        return f"Case({self.block!r}, args={dict(self.args)!r}, shapes={dict(self.shapes)!r}{seed})"

    @property
    def entry(self) -> Entry:
        return lookup(self.block)

    def check(self, contract: str) -> None:
        """Run one contract on this very case: what a counter-example's line does."""
        from .contracts import named

        named(contract).check(self)

    @cached_property
    def full_args(self) -> dict[str, Any]:
        return {**{k: v for k, v in self.entry.defaults.items() if k not in self.args}, **self.args}

    @cached_property
    def values(self) -> dict[str, int | None]:
        return oracle.bind(str(self.entry.signature), self.full_args, self.shapes)

    @property
    def dims(self) -> dict[str, int]:
        return {name: value for name in self.entry.dims if (value := self.values.get(name)) is not None}

    @property
    def batch(self) -> int:
        return next(iter(self.shapes.values()))[0]

    def solution(self) -> Solution:
        """The same with its lengths open."""
        found = solve(self.entry, self.full_args, tuple(self.shapes), self.dims)
        assert found is not None, "the graph's solver does not take what the oracle takes"
        return found

    def resized(self, values: Mapping[str, int]) -> Case:
        """The same at other values of its open symbols (`B` too)."""
        solution = self.solution()
        now = {s: v for s in (*solution.symbols, "B") if (v := self.values[s]) is not None}
        return Case(self.block, self.args, solution.shapes({**now, **values}), self.seed)

    def build(self, *, seed: int | None = None, device: str = "cpu") -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(self.seed if seed is None else seed)
            module: nn.Module = self.entry.target(**self.dims, **self.full_args)
        return module

    def inputs(self, *, seed: int | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Inputs:
        """Tensors at every port, None at an absent one. A track of four stated channels is one-hot DNA."""
        seed = 1000 + self.seed if seed is None else seed
        texts = oracle.ports(str(self.entry.signature))[0]
        made: Inputs = {}
        for i, port in enumerate(self.entry.signature.inputs):
            shape = self.shapes.get(port.name)
            if shape is None:
                made[port.name] = None
                continue
            generator = torch.Generator().manual_seed(seed + i)
            below = texts[port.name].below
            if port.integer:
                high = oracle.evaluate(below, self.values) if below else 2
                value = torch.randint(0, high, shape, generator=generator)
            elif len(shape) == 3 and texts[port.name].axes[1] == "4":
                value = dna(shape[0], shape[2], seed + i).to(dtype)
            else:
                value = torch.randn(shape, generator=generator).to(dtype)
            made[port.name] = value.to(device)
        return made

    def expected(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs, in order, by the oracle."""
        return list(oracle.outputs(str(self.entry.signature), self.full_args, self.shapes).values())

    def integer_outputs(self) -> list[bool]:
        return [port.integer for port in self.entry.signature.outputs]


class Called(nn.Module):
    """A graph model whose inputs are positional and whose outputs are fixed: a block like any other."""

    def __init__(self, model: GraphModel, outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.outputs = model, outputs
        self.names = tuple(model.resolved.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        made = self.model(**dict(zip(self.names, inputs, strict=True)), outputs=self.outputs)
        return tuple(made.values())


@dataclass(frozen=True)
class GraphCase:
    """A small recipe, the lengths of its inputs and a seed: how composites are tried."""

    recipe: Mapping[str, Any]
    lengths: Mapping[str, int] = field(default_factory=dict)
    batch: int = 2
    seed: int = 0

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.seed else ""
        return f"GraphCase({dict(self.recipe)!r}, lengths={dict(self.lengths)!r}, batch={self.batch}{seed})"

    def check(self, contract: str) -> None:
        """Run one contract on this very case."""
        from .contracts import named

        named(contract).check(self)

    @cached_property
    def resolved(self) -> Resolved:
        return resolve(self.recipe)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.resolved.heads, *self.resolved.keep)))

    def build(self, *, seed: int | None = None, device: str = "cpu") -> nn.Module:
        return Called(build(self.resolved, seed=self.seed if seed is None else seed, device=device), self.outputs)

    def _at(self, dim: Dim) -> int:
        return dim if isinstance(dim, int) else int(dim.at({**self.lengths, "B": self.batch}))

    def inputs(self, *, seed: int | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Inputs:
        seed = 1000 + self.seed if seed is None else seed
        made: Inputs = {}
        for i, (name, info) in enumerate(self.resolved.inputs.items()):
            shape = tuple(self._at(axis) for axis in info.axes)
            generator = torch.Generator().manual_seed(seed + i)
            if info.integer:
                value = torch.randint(0, info.below or 2, shape, generator=generator)
            elif len(shape) == 3 and shape[1] == 4:
                value = dna(shape[0], shape[2], seed + i).to(dtype)
            else:
                value = torch.randn(shape, generator=generator).to(dtype)
            made[name] = value.to(device)
        return made

    def expected(self) -> list[tuple[int, ...]]:
        return [tuple(self._at(axis) for axis in self.resolved.info(name).axes) for name in self.outputs]

    def integer_outputs(self) -> list[bool]:
        return [self.resolved.info(name).integer for name in self.outputs]

    def admitted(self, most: int = 4) -> list[dict[str, int]]:
        """Lengths that the recipe admits for all outputs, the smallest first; one symbol at a time."""
        rule = self.resolved.rule(self.outputs)
        axes = [axis for info in self.resolved.inputs.values() for axis in info.axes if not isinstance(axis, int)]
        symbols = [s for s in dict.fromkeys(s for axis in axes for s in axis.symbols) if s != "B"]
        choices = [list(itertools.islice(rule.lengths(s), most)) for s in symbols]
        found = [dict(zip(symbols, chosen, strict=True)) for chosen in itertools.product(*choices)]
        return [values for values in found if rule.admits(values)][:most]


AnyCase = Case | GraphCase
