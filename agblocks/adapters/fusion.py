"""AdapterFusion: attention at every position over what several adapters give."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .parts.dense import Dense
from .place import Place


class Fusion(nn.Module):
    """Choose among adapters by `softmax_i(Q h . K z_i)`, and give `sum_i weight_i V z_i`.

    h is what the module gives, z_i what adapter i makes of it. Q and K are N(0, 0.02) with biases, V is the identity
    plus 1e-6, so that adapters that agree are passed on. Parameters: 3 d^2 + 2 d. `penalty()` is `|V - I|^2`, to be
    added to the loss. Source: Pfeiffer et al. 2021. Use when: several trained adapters are to serve one task.
    """

    def __init__(self, place: Place, names: Sequence[str]):
        super().__init__()
        self.names = tuple(names)
        d = place.width("fusion")
        self.axis = place.axis
        self.query, self.key, self.value = (Dense(place, d, d, bias=bias) for bias in (True, True, False))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Q, K N(0, 0.02), biases 0; V = I + 1e-6."""
        for dense in (self.query, self.key):
            dense.draw("normal", 0.02, generator)
        with torch.no_grad():
            self.value.weight.copy_(torch.eye(len(self.value.weight)) + 1e-6)

    def choose(self, h: Tensor, given: Sequence[Tensor]) -> Tensor:
        """What the fusion makes of the adapters' outputs."""
        axis = self.axis % h.dim()
        dtype = self.query.weight.dtype
        z = torch.stack([g.movedim(axis, -1) for g in given], -2).to(dtype)  # ... adapters d
        q = self.query(h.movedim(axis, -1).to(dtype))
        weights = torch.einsum("...d,...nd->...n", q, self.key(z)).softmax(-1)
        mixed = torch.einsum("...n,...nd->...d", weights, self.value(z))
        return mixed.movedim(-1, axis).to(h.dtype)

    def penalty(self) -> Tensor:
        """How far V is from the identity."""
        weight = self.value.weight
        return (weight - torch.eye(len(weight), device=weight.device, dtype=weight.dtype)).square().sum()
