"""ReFT: what a block hands on, changed inside a subspace of a few dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, Probability

from ..parts.intervention import Intervention
from ..parts.positions import Positions
from ..place import Place


@adapter("loreft", role="block.out")
class LoReft(Intervention):
    """`y' = y + R^T (W y + b - R y)`: the coordinates in a subspace of `rank` dimensions replaced by others.

    The rows of R are orthonormal: they are torch's Householder map (`nn.utils.parametrizations.orthogonal`) of a free
    parameter of R's own shape, worked out at each call in float32 or better.
    Sites: what a block hands on; anything of known width. Parameters: 2 rank d + rank.
    R is drawn from all directions, W and b as torch's linear maps: the output changes at the start, by 0.03 of its norm
    at rank 1 and 1536 channels; with `identity` W = R, b = 0 and nothing does. Merges into a map or convolution with a
    bias, if at all positions. `positions`: "all"; "center:n", "first:n", "last:n" or a slice ("2:-3"), several joined
    by "+"; the others stay as they are. `dropout` is on what is added, in training; AdapterHub's is on the whole
    state, the base's part too. Weight decay leaves it alone.
    Source: Wu et al. 2024. Use when: the fewest parameters are to be spent.
    """

    def __init__(
        self,
        place: Place,
        *,
        rank: Positive = 1,
        positions: Positions = "all",
        identity: bool = False,
        dropout: Probability = 0.05,
    ):
        super().__init__(place, rank=rank, positions=positions, identity=identity, dropout=dropout)
        self.turn = _householder(rank, self.R.shape[1])

    def rows(self) -> Tensor:
        """Orthonormal: the diagonal, from which torch reads signs as whole numbers, is held at 1."""
        free = self.R if self.R.dtype == torch.float64 else self.R.float()
        rows: Tensor = self.turn(free.diagonal_scatter(free.new_ones(self.rank)))
        return rows

    def inward(self, rows: Tensor) -> Tensor:
        return self.W.to(rows.dtype) - rows

    def draw_rows(self, generator: torch.Generator) -> None:
        """Orthonormal rows of any direction alike."""
        values = torch.empty(self.R.shape[::-1], dtype=self.R.dtype).normal_(generator=generator)
        turn: Any = self.turn
        self.R.copy_(turn.right_inverse(torch.linalg.qr(values).Q.T))

    def still(self) -> Tensor:
        return self.rows()


def _householder(rank: int, width: int) -> nn.Module:
    """torch's map of any (rank, width) matrix onto one with orthonormal rows.

    As a module by itself, not registered on one: parametrized modules cannot be pickled.
    """
    holder = nn.Module()
    holder.R = nn.Parameter(torch.eye(rank, width, device="cpu"))
    held: Any = orthogonal(holder, "R", orthogonal_map="householder", use_trivialization=False)
    turn: nn.Module = held.parametrizations.R[0]
    return turn


@adapter("noreft", role="block.out")
class NoReft(Intervention):
    """`y' = y + R^T (W y + b - R y)` with any R: LoReFT without orthonormal rows.

    Sites: as `loreft`. Parameters: 2 rank d + rank. R, W and b are drawn as torch's linear maps: the output changes at
    the start, by 0.01 of its norm at rank 1 and 1536 channels; with `identity` W = R, b = 0 and nothing does. Merges as
    `loreft`; `positions` and `dropout` as there. Source: Wu et al. 2024. Use when: LoReFT's work for R costs too much.
    """

    def inward(self, rows: Tensor) -> Tensor:
        return self.W - rows

    def still(self) -> Tensor:
        return self.R


@adapter("direft", role="block.out")
class DiReft(Intervention):
    """`y' = y + R^T (W y + b)`: LoReFT without taking off what was there; a LoRA on activations.

    Sites: as `loreft`. Parameters: 2 rank d + rank. R, W and b are drawn as torch's linear maps: the output changes at
    the start, by 0.01 of its norm at rank 1 and 1536 channels; with `identity` W = 0, b = 0 and nothing does. Merges as
    `loreft`; `positions` and `dropout` as there. Source: Wu et al. 2024. Use when: as `noreft`.
    """

    decays = True
