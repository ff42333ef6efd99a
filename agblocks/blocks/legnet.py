"""MPRALegNet's stage: a squeeze-excite inverted bottleneck beside its input, then a mixing convolution."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from agblocks.graph import Block, Misfit, register
from agblocks.graph.types import Odd, Positive, Probability
from agblocks.layers import (
    Activation,
    GroupedNorm,
    Initial,
    MaxPool,
    SqueezeExcite,
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


@register("conv.legnet", "x: B C L>=pool -> out: B channels floor(L/pool)")
class LegNetStage(Block):
    """Pool, then `[bottleneck(x), x]` side by side, then a convolution that mixes them.

    The bottleneck is pointwise to `expand * C` channels, depthwise, squeeze-excite with a quarter of the expanded
    channels, pointwise back; each with norm and activation, none with a bias. (Autosome's stage in the DREAM nets
    expands by the channels that come out, `expand_from`, convolves two channels a `group`, squeezes to a quarter of
    those that go in, `squeeze_from`, and puts the input in front.) The pool comes first and leaves out a
    rest, so a stage's output is the last track of its stride; MPRALegNet pools after each stage, its first stage here
    has `pool: 1`, and a `pool.max_floor` follows the last.

    Shapes: x (batch, C, length) -> (batch, channels, floor(length / pool)). Source: MPRALegNet (kernel 9, batch norm).
    `drop_path` (timm's, on the bottleneck) and the other norms are additions. Costs: sees the whole length, through the
    squeeze-excite.
    """

    def __init__(
        self,
        C: int,
        *,
        channels: Positive,
        kernel: Odd = 9,
        pool: Positive = 1,
        expand: Positive = 4,
        norm: GroupedNorm = "batch",
        activation: Activation = "silu",
        dropout: Probability = 0.0,
        drop_path: Probability = 0.0,
        expand_from: Literal["in", "out"] = "in",
        group: Positive = 1,
        squeeze_from: Literal["expanded", "in"] = "expanded",
        input_first: bool = False,
        initial: Initial = "torch",
    ):
        super().__init__()
        role(self, "block.out")
        inner = expand * (C if expand_from == "in" else channels)
        squeezed = max(1, (C if squeeze_from == "in" else inner) // 4)
        self.input_first, self.initial = input_first, initial

        def step(conv: nn.Conv1d, width: int) -> nn.Sequential:
            role(conv, "conv.main" if conv.groups == 1 else "conv.depthwise")
            return nn.Sequential(conv, role(channel_norm(norm, width), "norm"), activation_by_name(activation))

        self.pool = MaxPool(pool, rest=False)
        self.expand = step(nn.Conv1d(C, inner, 1, bias=False), inner)
        self.depthwise = step(
            nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner // group, bias=False), inner
        )
        self.excite = SqueezeExcite(inner, squeezed)
        self.reduce = step(nn.Conv1d(inner, C, 1, bias=False), C)
        self.drop_path = timm_drop_path(drop_path)
        self.mix = step(nn.Conv1d(2 * C, channels, kernel, padding=kernel // 2, bias=False), channels)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    @classmethod
    def check(cls, C: int, *, channels: int, expand: int, expand_from: str, group: int, **_: Any) -> None:
        inner = expand * (C if expand_from == "in" else channels)
        if inner % group:
            raise Misfit(f"groups of {group} channels do not share out the {inner} of the bottleneck")

    def reset_parameters(self) -> None:
        """By the rule of `initial`."""
        draw_initial(self, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        h = self.reduce(self.excite(self.depthwise(self.expand(x))))
        h = self.drop_path(h)
        return self.dropout(self.mix(torch.cat((x, h) if self.input_first else (h, x), 1)))
