"""What a site does, step by step: adapters in the order of their phases, or a composition of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .adapter import Adapter, given, main, regiven, remade
from .affine import Affine, has_bias, linear
from .composition import Average, BatchSplit, Composition, Fuse, Parallel, Split, Stack
from .errors import CompositionError

Found = Callable[[str], Sequence["Step"]]  # a name's adapters at the site


class Step:
    """Something that acts before or after a module: the interface of `Adapter`, for adapters put together."""

    phase: int = 0
    path: str = ""
    reads_weight: bool = False

    def acts_before(self) -> bool:
        return False

    def acts_after(self) -> bool:
        return True

    def before(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs

    def after(self, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        return out

    def unfoldable(self, module: Any) -> str | None:
        return f"a {type(self).__name__.lower()} is no map of weights"

    def fold(self, affine: Affine, module: Any) -> Affine:
        raise NotImplementedError


class Weighted(Step):
    """An adapter that goes only a share of its way (or further than it, or back)."""

    def __init__(self, adapter: Adapter, share: float):
        self.adapter, self.share, self.phase, self.path = adapter, share, adapter.phase, adapter.path
        self.reads_weight = adapter.reads_weight

    def acts_before(self) -> bool:
        return self.adapter.acts_before()

    def acts_after(self) -> bool:
        return self.adapter.acts_after()

    def before(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        _divisible(self.adapter)
        old = given(module, args, kwargs)
        if not isinstance(old, Tensor):
            raise CompositionError(
                f"an adapter's weight at {self.path!r} means nothing: it does not scale what it reads"
            )
        new = given(module, *self.adapter.before(module, args, kwargs))
        return regiven(module, args, kwargs, torch.lerp(old, new, self.share))

    def after(self, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        _divisible(self.adapter)
        old, new = main(out), main(self.adapter.after(module, args, kwargs, out))
        if old.shape != new.shape:
            raise CompositionError(f"an adapter's weight at {self.path!r} means nothing: it changes what there is")
        return remade(out, torch.lerp(old, new, self.share))

    def unfoldable(self, module: Any) -> str | None:
        return self.adapter.unfoldable(module)

    def fold(self, affine: Affine, module: Any) -> Affine:
        return affine.towards(self.adapter.fold(affine, module), self.share)


def _divisible(step: Any) -> None:
    """Raise for an adapter that adds positions: no mean or share of that is one."""
    if not getattr(step, "divisible", True):
        raise CompositionError(
            f"{step.kind.name!r} at {step.path!r} adds positions, and no share, mean or part of that makes sense; "
            "let it act by its name, alone or in a Stack"
        )


class _Chains(Step):
    """Several chains of steps, of which each gives something."""

    def __init__(self, chains: Sequence[Sequence[Any]]):
        self.chains = [list(chain) for chain in chains]
        self.path = next((step.path for chain in self.chains for step in chain), "")
        self.reads_weight = any(step.reads_weight for chain in self.chains for step in chain)

    def acts_before(self) -> bool:
        return any(step.acts_before() for chain in self.chains for step in chain)

    def acts_after(self) -> bool:
        return any(step.acts_after() for chain in self.chains for step in chain)

    def inputs(self, module: Any, args: Any, kwargs: Any) -> list[Tensor]:
        """What each chain would have the module read."""
        made = []
        for chain in self.chains:
            a, k = args, kwargs
            for step in chain:
                _divisible(step)
                a, k = step.before(module, a, k) if step.acts_before() else (a, k)
            made.append(given(module, a, k))
        return made

    def outputs(self, module: Any, args: Any, kwargs: Any, out: Any) -> list[Tensor]:
        """What each chain makes of the module's output."""
        made = []
        for chain in self.chains:
            new = out
            for step in chain:
                _divisible(step)
                new = step.after(module, args, kwargs, new) if step.acts_after() else new
            made.append(main(new))
        return made


class Averaged(_Chains):
    """The weighted mean of what each chain gives, of which the module is called once.

    So adapters either all change what it gives, or all what it reads, and then its map has to be linear.
    """

    def __init__(self, chains: Sequence[Sequence[Any]], shares: Sequence[float]):
        super().__init__(chains)
        self.shares = tuple(shares)
        if self.acts_before() and self.acts_after():
            raise CompositionError(
                f"Average at {self.path!r}: some of its adapters change what the module reads, others what it gives, "
                "and their mean would need the module once for each; give the two sorts names of their own and stack "
                "an Average of each, or average without one of them"
            )

    def _mean(self, made: list[Tensor]) -> Tensor:
        total = made[0] * self.shares[0]
        for share, tensor in zip(self.shares[1:], made[1:], strict=True):
            total = total + tensor * share
        return total

    def before(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        made = self.inputs(module, args, kwargs)
        if not linear(module):
            raise CompositionError(
                f"Average at {self.path!r}: its adapters change what a {type(module).__name__} reads, and the mean of "
                "that does not give the mean of what each would give; only linear maps and convolutions do that"
            )
        if abs(sum(self.shares) - 1) > 1e-6 and has_bias(module):
            raise CompositionError(
                f"Average at {self.path!r}: its adapters change what the module reads, so its bias counts once, and "
                f"with weights that add up to {sum(self.shares):g} it should not; leave normalize on"
            )
        return regiven(module, args, kwargs, self._mean(made))

    def after(self, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        return remade(out, self._mean(self.outputs(module, args, kwargs, out)))

    def unfoldable(self, module: Any) -> str | None:
        steps = [step for chain in self.chains for step in chain]
        if any(step.acts_before() for step in steps):
            return "a mean of adapters that change what the module reads is no map of weights"
        return next((why for step in steps if (why := step.unfoldable(module))), None)

    def fold(self, affine: Affine, module: Any) -> Affine:
        weight = torch.zeros_like(affine.weight)
        bias = None if affine.bias is None else torch.zeros_like(affine.bias)
        for share, chain in zip(self.shares, self.chains, strict=True):
            new = affine
            for step in chain:
                new = step.fold(new, module)
            weight = weight + share * new.weight
            bias = None if bias is None or new.bias is None else bias + share * new.bias
        return Affine(weight, bias)


class Parted(_Chains):
    """Each chain has a part of the batch or of the length to itself."""

    def __init__(self, chains: Sequence[Sequence[Any]], parts: Sequence[float], axis: int, rows: bool):
        super().__init__(chains)
        self.parts, self.axis, self.rows = tuple(parts), axis, rows

    def _sizes(self, tensor: Tensor) -> tuple[int, list[int]]:
        if self.rows:
            if sum(self.parts) != tensor.shape[0]:
                raise CompositionError(
                    f"BatchSplit into {list(self.parts)} at {self.path!r}, but the batch has {tensor.shape[0]} rows"
                )
            return 0, [int(n) for n in self.parts]
        if tensor.dim() != 3:
            raise CompositionError(f"Split at {self.path!r}: {list(tensor.shape)} is no track with one length")
        axis = 1 if self.axis % 3 == 2 else 2
        length = tensor.shape[axis]
        ends, sizes = 0.0, []
        for part in self.parts:
            size = part * length
            ends += size
            if abs(ends - round(ends)) > 1e-6 * length or round(size) < 1:
                raise CompositionError(
                    f"Split at {self.path!r}: {part:g} of {length} positions is no whole number of them"
                )
            sizes.append(round(size))
        return axis, sizes

    def _put(self, made: list[Tensor]) -> Tensor:
        axis, sizes = self._sizes(made[0])
        return torch.cat([m.split(sizes, axis)[i] for i, m in enumerate(made)], axis)

    def before(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return regiven(module, args, kwargs, self._put(self.inputs(module, args, kwargs)))

    def after(self, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        return remade(out, self._put(self.outputs(module, args, kwargs, out)))


class Fused(_Chains):
    """What each chain gives, chosen among by attention at each position."""

    def __init__(self, chains: Sequence[Sequence[Any]], fusion: Any):
        super().__init__(chains)
        self.fusion = fusion
        if super().acts_before():
            raise CompositionError(f"Fuse at {self.path!r}: one of the adapters changes what the module reads")

    def after(self, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        made = self.outputs(module, args, kwargs, out)
        return remade(out, self.fusion.choose(main(out), made))


def steps_of(part: Any, found: Found, axis: int, fusion: Callable[[Fuse], Any]) -> list[Any]:
    """The steps of a composition at one site, in order; none where no adapter of it is there."""
    if isinstance(part, str):
        return sorted(found(part), key=lambda step: step.phase)
    chains = [steps_of(child, found, axis, fusion) for child in part.parts]
    if not any(chains):
        return []
    if isinstance(part, Stack):
        return _stacked(part, chains)
    if isinstance(part, Average):
        return [Averaged(chains, part.shares())]
    if isinstance(part, BatchSplit):
        return [Parted(chains, part.sizes, axis, rows=True)]
    if isinstance(part, Parallel):
        return [_Repeated(chains)]
    if isinstance(part, Split):
        return [Parted(chains, part.fractions, axis, rows=False)]
    assert isinstance(part, Fuse)
    return [Fused(chains, fusion(part))]


class _Repeated(Parted):
    """A batch that holds the same rows once for each chain."""

    def __init__(self, chains: Sequence[Sequence[Any]]):
        super().__init__(chains, [1] * len(chains), 0, rows=True)

    def _sizes(self, tensor: Tensor) -> tuple[int, list[int]]:
        rows, rest = divmod(tensor.shape[0], len(self.chains))
        if rest:
            raise CompositionError(
                f"Parallel at {self.path!r}: {tensor.shape[0]} rows are no {len(self.chains)} copies"
            )
        return 0, [rows] * len(self.chains)


def _stacked(part: Composition, chains: list[list[Any]]) -> list[Any]:
    """Plain names side by side share one order of phases; a composition among them stands where it is written."""
    steps: list[Any] = []
    run: list[Any] = []
    for child, chain in zip(part.parts, chains, strict=True):
        if isinstance(child, str):
            run += chain
            continue
        steps += [*sorted(run, key=lambda step: step.phase), *chain]
        run = []
    return steps + sorted(run, key=lambda step: step.phase)
