"""A ConvNeXt stage over positions, its pointwise half from timm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Odd, Positive, Probability
from agblocks.layers import LayerNorm, role
from agblocks.layers import drop_path as timm_drop_path


@register("conv.next", "x: B C L -> out: B C L", reach="conv(kernel)")
class ConvNextStage(Block):
    """Depthwise convolution, layer norm, pointwise MLP, layer scale, residual.

    Shapes: x (batch, channels, length) -> the same. Use when: a wide kernel is wanted cheaply; pool and change channels
    with other blocks. Source: ConvNeXt (Liu et al. 2022); MLP and DropPath are timm's. `scale` is the layer scale's
    start; 0 leaves it out.
    """

    def __init__(
        self,
        C: int,
        *,
        kernel: Odd = 7,
        expand: Positive = 4,
        scale: Probability = 1e-6,
        dropout: Probability = 0.0,
        drop_path: Probability = 0.0,
    ):
        super().__init__()
        role(self, "block.out")
        from agblocks._torchvision import mend

        mend()
        from timm.layers import Mlp

        self.start = scale
        self.depthwise = role(nn.Conv1d(C, C, kernel, padding=kernel // 2, groups=C), "conv.depthwise")
        self.norm = role(LayerNorm(C, eps=1e-6), "norm")
        self.mlp = Mlp(C, expand * C, drop=dropout)
        role(self.mlp.fc1, "mlp.up")
        role(self.mlp.fc2, "mlp.down")
        self.scale = nn.Parameter(torch.empty(C)) if scale else None
        self.drop_path = timm_drop_path(drop_path)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The layer scale starts at `scale`."""
        if self.scale is not None:
            nn.init.constant_(self.scale, self.start)

    def forward(self, x: Tensor) -> Tensor:
        h = self.mlp(self.norm(self.depthwise(x).transpose(1, 2)))
        if self.scale is not None:
            h = h * self.scale
        return x + self.drop_path(h).transpose(1, 2)
