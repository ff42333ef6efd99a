"""Activations as modules, and the table by which arguments name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "gelu", "gelu_tanh", "gelu_sigmoid", "silu", "elu", "tanh", "softplus", "exp", "none"]

# The factor as each precision holds it: the published model casts 1.702 to the data's type before it multiplies.
_FACTOR = {dtype: torch.tensor(1.702, dtype=dtype).item() for dtype in (torch.float16, torch.bfloat16)}


class QuickGELU(nn.Module):
    """The sigmoid GELU, x * sigmoid(1.702 x).

    Shapes: any -> the same. Source: AlphaGenome (convolutions, output embedders), Enformer. Use when: a published model
    says so; it is neither the erf GELU (`gelu`) nor its tanh approximation (`gelu_tanh`).
    """

    def forward(self, x: Tensor) -> Tensor:
        gate = x * _FACTOR.get(x.dtype, 1.702)
        if x.dtype in _FACTOR:
            return x * torch.sigmoid(gate) if gate.requires_grad else gate.sigmoid_().mul_(x)
        # As silu(1.702 x) / 1.702, which keeps one tensor for the backward pass and without it needs one temporary.
        return F.silu(gate, inplace=not gate.requires_grad).mul_(1 / 1.702)


class Exp(nn.Module):
    """The exponential, of at most `limit`, beyond which it is constant.

    Shapes: any -> the same. Source: Koo and Ploenzke 2021, where first filters with it learn clearer motifs.
    Use when: the first convolution of a small model should act as a set of motif detectors, each match multiplying.
    """

    def __init__(self, limit: float = 6.0):
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.limit).exp()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "gelu_sigmoid": QuickGELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "exp": Exp,
    "none": nn.Identity,
}


def activation(name: Activation) -> nn.Module:
    """A new module for a name of the table. Every use in a model is a module of its own: attribution needs that."""
    return ACTIVATIONS[name]()
