"""Small convolution stages with their parts by name, for encoders that are put together in a recipe."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Odd, Positive, Probability
from agblocks.layers import (
    Activation,
    Eps,
    Initial,
    Norm,
    StandardizedConv1d,
    Statistics,
    channel_norm,
    draw_initial,
    role,
)
from agblocks.layers import (
    activation as activation_by_name,
)
from agblocks.layers import (
    drop_path as timm_drop_path,
)


@register("conv.stem", "x: B C L -> out: B channels L", reach="conv(kernel)")
class Stem(Block):
    """Convolution, norm, activation: DNA into channels.

    Shapes: x (batch, C, length) -> (batch, channels, length). The convolution has a bias only where no norm follows it.
    Source: MPRALegNet (64 channels, kernel 11, batch norm, SiLU), DeepSTARR, DREAM.
    """

    def __init__(
        self,
        C: int,
        *,
        channels: Positive = 64,
        kernel: Odd = 11,
        norm: Norm = "batch",
        activation: Activation = "silu",
        bias: bool = False,
        eps: Eps = 1e-5,
        dropout: Probability = 0.0,
        initial: Initial = "torch",
    ):
        super().__init__()
        role(self, "stem")
        self.conv = role(nn.Conv1d(C, channels, kernel, padding=kernel // 2, bias=bias or norm == "none"), "conv.main")
        self.norm = role(channel_norm(norm, channels, eps=eps), "norm")
        self.activation = activation_by_name(activation)
        self.dropout = nn.Dropout(dropout)
        self.initial = initial
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """By the rule of `initial`."""
        draw_initial(self, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.norm(self.conv(x))))


@register("conv.block", "x: B C L -> out: B channels|C L", reach="conv(kernel, dilation)")
class ConvBlock(Block):
    """Norm, activation, convolution, in the order of Enformer, Borzoi and AlphaGenome; a residual if asked for.

    Shapes: x (batch, C, length) -> (batch, channels or C, length). A residual takes the first channels where the output
    has fewer than the input, and fills with zeros where it has more. `standardize` gives the kernels of AlphaGenome
    (a plain linear map at `kernel: 1`).
    Use when: `encoder.stack` needs a stage, or a model a pointwise layer (`kernel: 1`).
    """

    def __init__(
        self,
        C: int,
        *,
        channels: Positive | None = None,
        kernel: Odd = 5,
        dilation: Positive = 1,
        norm: Norm = "batch",
        activation: Activation = "gelu_sigmoid",
        residual: bool = False,
        standardize: bool = False,
        eps: Eps = 1e-5,
        dropout: Probability = 0.0,
        drop_path: Probability = 0.0,
        statistics: Statistics = "batch",
        initial: Initial = "torch",
    ):
        super().__init__()
        role(self, "block.out")
        out = C if channels is None else channels
        self.residual, self.more = residual, out - C
        self.norm = role(channel_norm(norm, C, eps=eps, statistics=statistics), "norm")
        self.activation = activation_by_name(activation)
        if standardize and kernel > 1:
            self.conv: nn.Module = StandardizedConv1d(C, out, kernel, dilation=dilation)
        else:
            self.conv = nn.Conv1d(C, out, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        role(self.conv, "conv.main")
        self.dropout = nn.Dropout(dropout)
        self.drop_path = timm_drop_path(drop_path)
        self.initial = initial
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """By the rule of `initial`; standardised kernels draw their own."""
        draw_initial(self, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop_path(self.dropout(self.conv(self.activation(self.norm(x)))))
        if not self.residual:
            return h
        return (F.pad(x, (0, 0, 0, self.more)) if self.more else x) + h
