"""The core of the ReFT kinds: what a module gives, changed inside a subspace of a few dimensions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ...graph.types import Positive, Probability
from ..adapter import Adapter, Phase, main, remade
from ..affine import Affine, has_bias
from ..errors import UnsupportedModule
from ..place import Place
from .dense import cast, draw, linear
from .positions import Positions, complaint, ranges


class Intervention(Adapter):
    """`y' = y + R^T (W' y + b)` at chosen positions; kinds say what R and W' are."""

    phase = Phase.REPR
    decays = False  # 0 means nothing for what turns the subspace, or starts as another parameter's copy

    def __init__(
        self,
        place: Place,
        *,
        rank: Positive = 1,
        positions: Positions = "all",
        identity: bool = False,
        dropout: Probability = 0.05,
    ):
        super().__init__(place)
        width = place.width(self.kind.name)
        if rank > width:
            raise place.refuse(self.kind.name, f"rank {rank} is more than its {width} channels")
        if positions != "all" and isinstance(place.module, _ConvNd) and len(place.module.kernel_size) != 1:
            raise place.refuse(self.kind.name, f"positions {positions!r} want one length, and it has two or more")
        self.axis, self.rank, self.positions, self.dropout = place.axis, rank, positions, dropout
        self.identity = identity
        self.R = self.parameter(rank, width)
        self.W = self.parameter(rank, width)
        self.b = self.parameter(rank)

    @staticmethod
    def check(*, positions: str, **others: Any) -> str | None:
        """Positions that can be read."""
        return complaint(positions)

    def rows(self) -> Tensor:
        """R as it is used, (rank, channels)."""
        return self.R

    def inward(self, rows: Tensor) -> Tensor:
        """W', what reads the subspace's new coordinates less the old ones."""
        return self.W

    def draw_rows(self, generator: torch.Generator) -> None:
        """R as torch's linear maps: U(+-1 / sqrt(channels))."""
        draw(self.R, "kaiming", 1.0, generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """R drawn; W and b U(+-1 / sqrt(channels)), or with `identity` such that nothing changes."""
        self.draw_rows(generator)
        draw(self.W, "kaiming", 1.0, generator)
        values = torch.empty(self.rank, dtype=self.b.dtype).uniform_(-1, 1, generator=generator)
        self.b.copy_(values / self.R.shape[1] ** 0.5)
        if self.identity:
            self.W.copy_(self.still())
            self.b.zero_()

    def still(self) -> Tensor:
        """The W that changes nothing where b = 0."""
        return torch.zeros_like(self.W)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        if self.positions == "all":
            return remade(out, y + self.change(y, module.training))
        return remade(out, self._at_positions(y, module.training))

    def change(self, h: Tensor, training: bool) -> Tensor:
        """What is added."""
        rows = self.rows()
        z = linear(h, self.inward(rows), self.b, self.axis)
        change = linear(z, rows.T, None, self.axis)
        if self.dropout and training:
            change = F.dropout(change, self.dropout)
        return cast(change, h)

    def _at_positions(self, y: Tensor, training: bool) -> Tensor:
        if y.dim() != 3:
            raise UnsupportedModule(
                f"{self.kind.name!r} at {self.path!r}: positions {self.positions!r} want one length, and what it gives "
                f"is {list(y.shape)}; positions 'all' fits"
            )
        axis = 1 if self.axis % 3 == 2 else 2
        try:
            wanted = ranges(self.positions, y.shape[axis])
        except ValueError as error:
            raise UnsupportedModule(f"{self.kind.name!r} at {self.path!r}: {error}") from None
        pieces, at = [], 0
        for start, stop in wanted:
            part = y.narrow(axis, start, stop - start)
            pieces += [y.narrow(axis, at, start - at), part + self.change(part, training)]
            at = stop
        return torch.cat([*pieces, y.narrow(axis, at, y.shape[axis] - at)], axis)

    def unfoldable(self, module: nn.Module) -> str | None:
        if why := super().unfoldable(module):
            return why
        if self.positions != "all":
            return f"it acts at positions {self.positions!r} alone"
        weight: Any = module.weight
        if weight.dim() < 2 or getattr(module, "groups", 1) > 1:
            return "it mixes all channels, and the module's weights keep them, or groups of them, apart"
        return None if has_bias(module) else "it has no bias to add to, and merging makes no new parameters"

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        rows = self.rows().detach()
        rows, inward = rows.double(), self.inward(rows).detach().double()
        weight, bias = affine.weight.flatten(1), affine.bias
        assert bias is not None
        new = bias + rows.T @ (inward @ bias + self.b.detach().double())
        return Affine((weight + rows.T @ (inward @ weight)).view_as(affine.weight), new)
