"""What one head of a model learns from windows of a genome, and at which scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...data.tracks import Layout
from ...layers.squash import squash, unsquash


@dataclass(frozen=True)
class HeadTracks:
    """What one head learns from windows: tracks by name, bins of `resolution` bases from `offset` on.

    swap: for each track the place of the one of the other strand. aggregation: of each, from bases to a bin.
    unit: what each track's bins come to where it has anything: a mean, or that times the resolution for a sum.
    own: whether the head brings targets to its scale itself (AlphaGenome's, by `track_means`). Otherwise it is trained
    on targets squashed as `squash` says of each; those that are not, divided by the unit if `divided`.
    width: columns of the head; those behind its tracks are of other organisms and count nowhere.
    """

    head: str
    names: tuple[str, ...]
    tracks: tuple[int, ...]
    resolution: int
    offset: int
    bins: int
    width: int
    swap: tuple[int, ...]
    aggregation: tuple[str, ...]
    squash: tuple[str, ...]
    own: bool
    unit: tuple[float, ...] = ()
    divided: bool = True

    @property
    def layout(self) -> Layout:
        """Where the targets lie in a window."""
        return Layout(self.tracks, self.resolution, self.offset, self.bins)

    def trained(self, targets: Tensor) -> Tensor:
        """Targets as the head's loss takes them. Shapes: (batch, tracks, bins) -> (batch, width, bins)."""
        if not self.own:
            targets = torch.stack([self._scaled(targets[:, i], i) for i in range(len(self.names))], 1)
        missing = targets.new_full((len(targets), self.width - len(self.names), targets.shape[2]), torch.nan)
        return torch.cat([targets, missing], 1)

    def measured(self, made: Tensor) -> Tensor:
        """What the head gives, or is trained on, as measured. Shapes: (batch, width, bins) -> (batch, tracks, bins)."""
        made = made[:, : len(self.names)].float()
        if self.own:
            return made
        return torch.stack([self._back(made[:, i], i) for i in range(len(self.names))], 1)

    def turned(self, values: Tensor) -> Tensor:
        """As the other strand has it: bins backwards, strands swapped. Shapes: (batch, tracks, bins) -> the same."""
        return values[:, list(self.swap)].flip(-1)

    def _scaled(self, values: Tensor, column: int) -> Tensor:
        if (form := self.squash[column]) != "none":
            return squash(values.clamp(min=0), form=_form(form))
        return values / self.unit[column] if self.divided else values

    def _back(self, values: Tensor, column: int) -> Tensor:
        if (form := self.squash[column]) != "none":
            return unsquash(values, form=_form(form))
        return values * self.unit[column] if self.divided else values


def _form(form: str) -> Literal["old", "new"]:
    return "old" if form == "old" else "new"
