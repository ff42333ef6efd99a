"""Blocks with one planted bug each, and the healthy block they are made from. Registered only while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agblocks import Block, Edge, Head, Nodes, composite, register
from agblocks.graph import registry
from agblocks.graph.types import NonNegative, Odd, Positive


@contextmanager
def registered() -> Iterator[None]:
    """Whatever registers inside is forgotten afterwards."""
    registry.load()
    before = dict(registry._entries)
    try:
        yield
    finally:
        registry._entries.clear()
        registry._entries.update(before)


class Conv(Block):
    """A convolution with a residual: healthy."""

    def __init__(self, C: int, *, growth: NonNegative = 2, kernel: Odd = 3, pool: Positive = 2):
        super().__init__()
        self.conv = nn.Conv1d(C, C + growth, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm1d(C + growth)
        self.growth, self.kernel, self.pool = growth, kernel, pool

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[-1] % self.pool), value=-1e4)
        x = F.max_pool1d(x, self.pool)
        return F.pad(x, (0, 0, 0, self.growth)) + self.norm(torch.tanh(self.conv(x)))


SIGNATURE = "x: B C L -> out: B C+growth ceil(L/pool)"
REACH = "pool(pool) conv(kernel)"


def healthy() -> type[Block]:
    @register("good.conv", SIGNATURE, reach=REACH)
    class Good(Conv):
        """Healthy."""

    return Good


def wrong_length() -> type[Block]:
    @register("bad.length", "x: B C L -> out: B C floor(L/pool)+1", reach=REACH)
    class Bad(Conv):
        """Its signature promises one position too many where the pool divides the length."""

    return Bad


def in_place() -> type[Block]:
    @register("bad.inplace", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """It clamps its input where it stands."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.clamp_(-1, 1))

    return Bad


def batch_mixing() -> type[Block]:
    @register("bad.rows", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """Its norm takes statistics over the batch in evaluation too."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x / (1 + x.square().mean((0,), keepdim=True)).sqrt())

    return Bad


def dead_parameter() -> type[Block]:
    @register("bad.gradient", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """A parameter is detached."""

        def __init__(self, C: int, *, growth: NonNegative = 2, kernel: Odd = 3, pool: Positive = 2):
            super().__init__(C, growth=growth, kernel=kernel, pool=pool)
            self.scale = nn.Parameter(torch.empty(C, 1))
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.ones_(self.scale)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.scale.detach())

    return Bad


def float32_only() -> type[Block]:
    @register("bad.dtype", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """It returns float32 whatever comes in."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).float()

    return Bad


def reach_too_small() -> type[Block]:
    @register("bad.small", SIGNATURE, reach="pool(pool)")
    class Bad(Conv):
        """It forgets its convolution."""

    return Bad


def reach_too_large() -> type[Block]:
    @register("bad.large", SIGNATURE, reach="pool(pool) conv(kernel) conv(kernel)")
    class Bad(Conv):
        """It declares two convolutions."""

    return Bad


def random_in_eval() -> type[Block]:
    @register("bad.random", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """Its dropout is always on."""

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, training=True)

    return Bad


def lost_buffer() -> type[Block]:
    @register("bad.buffer", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """A running statistic is left out of the state."""

        def __init__(self, C: int, *, growth: NonNegative = 2, kernel: Odd = 3, pool: Positive = 2):
            super().__init__(C, growth=growth, kernel=kernel, pool=pool)
            self.register_buffer("size", torch.empty(C, 1), persistent=False)
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.ones_(self.size)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                with torch.no_grad():
                    self.size.lerp_(x.square().mean((0, 2))[:, None], 0.3)
            return super().forward(x / self.size)

    return Bad


def reset_forgets() -> type[Block]:
    @register("bad.reset", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """A parameter that reset_parameters does not draw."""

        def __init__(self, C: int, *, growth: NonNegative = 2, kernel: Odd = 3, pool: Positive = 2):
            super().__init__(C, growth=growth, kernel=kernel, pool=pool)
            self.scale = nn.Parameter(torch.ones(C, 1))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.scale)

    return Bad


def breaks_graph() -> type[Block]:
    @register("bad.graph", SIGNATURE, reach=REACH)
    class Bad(Conv):
        """It looks at a value in Python."""

        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x)
            if x.device.type != "meta" and torch._dynamo.is_compiling():
                print("a graph break")
            return x

    return Bad


def loose_lengths() -> type[Block]:
    @register("bad.lengths", "x: B C L -> out: B C L", reach="conv(7)")
    class Bad(Block):
        """Reflection needs more than three positions, and the signature does not say so."""

        def __init__(self, C: int, *, extra: NonNegative = 0):
            super().__init__()
            self.conv = nn.Conv1d(C, C, 7, padding=3, padding_mode="reflect")

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    return Bad


class Linear(Head):
    """A linear head with a mean squared error: healthy."""

    def __init__(self, C: int, *, targets: Positive = 2):
        super().__init__()
        self.linear = nn.Linear(C, targets)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(-1))

    def loss(self, outputs, target, mask=None):
        keep = ~target.isnan() if mask is None else mask & ~target.isnan()
        error = torch.where(keep, outputs["out"] - target.nan_to_num(), 0.0)
        return error.square().sum() / keep.sum().clamp(min=1)


HEAD = "x: B C L -> out: B targets"


def good_head() -> type[Head]:
    @register("good.head", HEAD)
    class Good(Linear):
        """Healthy."""

    return Good


def nan_as_zero() -> type[Head]:
    @register("bad.nan", HEAD)
    class Bad(Linear):
        """Missing targets count as zeros."""

        def loss(self, outputs, target, mask=None):
            return super().loss(outputs, target.nan_to_num(), mask)

    return Bad


def nan_leaks() -> type[Head]:
    @register("bad.leak", HEAD)
    class Bad(Linear):
        """Missing targets make the loss NaN."""

        def loss(self, outputs, target, mask=None):
            error = (outputs["out"] - target).square()
            return error.mean() if mask is None else error[mask].sum() / mask.sum().clamp(min=1)

    return Bad


def mask_ignored() -> type[Head]:
    @register("bad.mask", HEAD)
    class Bad(Linear):
        """The mask is not looked at."""

        def loss(self, outputs, target, mask=None):
            return super().loss(outputs, target)

    return Bad


def good_composite() -> object:
    healthy()

    @composite("good.stack", "x: B C L")
    def stack(x: Edge, *, depth: Positive = 2) -> Nodes:
        nodes = Nodes()
        for number in range(depth):
            x = nodes.add(f"stage{number}", "good.conv", {"x": x})
            nodes.stage(x)
        nodes.out(x)
        return nodes

    return stack


BUGS = {
    wrong_length: "shape",
    in_place: "inputs",
    batch_mixing: "rows",
    dead_parameter: "gradients",
    float32_only: "dtype",
    reach_too_small: "reach",
    reach_too_large: "reach",
    random_in_eval: "repeatable",
    lost_buffer: "state_dict",
    reset_forgets: "reset",
    breaks_graph: "compile",
    nan_as_zero: "loss",
    nan_leaks: "loss",
    mask_ignored: "loss",
}
