"""Tracks that an organism has, and those that only fill up the width it shares with another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RealTracks(nn.Module):
    """Which of a head's tracks each example's organism has: the first `real[organism]`; all where `real` is None.

    Shapes: organism (batch,) -> (batch, tracks), bool. Source: AlphaGenome: its heads have one width for all organisms.
    """

    there: Tensor

    def __init__(self, real: Sequence[int] | None, organisms: int, tracks: int):
        super().__init__()
        self.real = [tracks] * organisms if real is None else list(real)
        self.register_buffer("there", torch.empty(organisms, tracks, dtype=torch.bool), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill in the constants."""
        for row, count in zip(self.there, self.real, strict=True):
            row.fill_(False)
            row[:count] = True

    def forward(self, organism: Tensor) -> Tensor:
        return self.there[organism]

    def extra_repr(self) -> str:
        return f"{self.real} of {self.there.shape[1]}"


def wrong_counts(real: Sequence[int] | None, organisms: int, tracks: int) -> str | None:
    """What is wrong with numbers of real tracks, or None."""
    if real is not None and (len(real) != organisms or max(real) > tracks):
        return (
            f"'real' is {list(real)}, wanted one number of tracks for each of {organisms} organisms, at most {tracks}"
        )
    return None
