"""Features of the distance between two positions: the bases of Enformer's and Borzoi's relative attention."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Basis = Literal["enformer", "borzoi"]
CLASSES = {"enformer": 6, "borzoi": 2}  # kinds of functions, each symmetric and with the distance's sign


def distance_features(
    basis: Basis, length: int, features: int, train_length: int, device: torch.device | None = None
) -> Tensor:
    """Features of the distances -(length - 1) ... length - 1, float64: (2 * length - 1, features).

    `enformer` has three kinds of functions of |distance|, m = features / 6 each: exponential decay with half-lives from
    8 to `train_length`; a central mask of half-widths 2, 4, 8, ...; gamma densities with means up to `train_length`,
    divided by the largest of them. `borzoi` has m = features / 2 central masks, of widths up to `train_length`. Behind
    them the same, times the sign of the distance.

    `train_length`, the number of positions in training, sets the functions: weights that were trained with them go
    with it, whatever the length now. Raises ValueError where `features` does not share out among the kinds.
    Source: Enformer, Avsec et al. 2021, Supplementary Methods; Borzoi, Linder et al. 2025.
    """
    each, rest = divmod(features, CLASSES[basis])
    if rest or not each:
        raise ValueError(f"the {basis} basis wants a multiple of {CLASSES[basis]} features, not {features}")
    signed = torch.arange(1 - length, length, dtype=torch.float64, device=device)[:, None]
    distance = signed.abs()
    if basis == "enformer":
        kinds = [
            _exponential(distance, each, train_length),
            _mask(distance, 2.0, each),
            _gamma(distance, each, train_length),
        ]
    else:
        kinds = [_mask(distance, (train_length + 1) ** (1 / each), each)]
    symmetric = torch.cat(kinds, -1)
    return torch.cat((symmetric, signed.sign() * symmetric), -1)


def _exponential(distance: Tensor, each: int, train_length: int) -> Tensor:
    half_lives = 2 ** torch.linspace(3, math.log2(train_length), each, dtype=torch.float64, device=distance.device)
    return 2 ** (-distance / half_lives)


def _mask(distance: Tensor, base: float, each: int) -> Tensor:
    powers = torch.arange(1, each + 1, dtype=torch.float64, device=distance.device)
    return (base**powers - 1 > distance).to(torch.float64)


def _gamma(distance: Tensor, each: int, train_length: int) -> Tensor:
    step = train_length / each
    means = torch.linspace(step, train_length, each, dtype=torch.float64, device=distance.device)
    spread = step / 2
    shape, rate = (means / spread) ** 2, means / spread**2
    log = torch.xlogy(shape - 1, distance) - rate * distance + shape * rate.log() - torch.lgamma(shape)
    density = log.exp() + 1e-8
    return density / density.amax(-1, keepdim=True)
