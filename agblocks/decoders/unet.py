"""AlphaGenome's U-Net decoder over any encoder's pyramid, down to any stride."""

from __future__ import annotations

from typing import Literal

from agblocks.graph import Edge, Misfit, Nodes, Pyramid, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Statistics


@composite("decoder.unet", "x: B C L, skips: pyramid")
def unet(
    x: Edge,
    skips: Pyramid,
    *,
    to: Positive = 1,
    channels: list[Positive] | None = None,
    kernel: Odd = 5,
    factor: Positive = 2,
    missing: Literal["refuse", "plain"] = "refuse",
    statistics: Statistics = "batch",
) -> Nodes:
    """Up stages from the stride of `x` to stride `to`, each `factor` times finer and with a skip of that stride.

    A level has its skip's channels, or those that `channels` lists from coarse to fine. A stride that the pyramid lacks
    is refused, or is a level without skip (`missing: plain`). Nodes: `up64` ... `up1`, by stride.
    Shapes: x (batch, C, length), skips -> (batch, channels of the last level, length * stride / to).
    Source: AlphaGenome, Avsec et al. 2026, Methods: 111,501,447 parameters over its own encoder.
    """
    strides = _strides(x, to, factor)
    if channels is not None and len(channels) != len(strides):
        raise Misfit(f"'channels' lists {len(channels)} widths for {len(strides)} levels, of strides {_said(strides)}")
    there = set(skips)
    lacking = [stride for stride in strides if stride not in there]
    if lacking and missing == "refuse":
        raise Misfit(
            f"{skips.source!r} has no stage at stride {_said(lacking)}; it has {_said(skips)}. "
            "'missing: plain' makes such a level without a skip"
        )
    nodes = Nodes()
    for level, stride in enumerate(strides):
        width = None if channels is None else channels[level]
        inputs = {"x": x} if stride in lacking else {"x": x, "skip": skips[stride]}
        block = "conv.up_plain" if stride in lacking else "conv.up"
        x = nodes.add(f"up{stride}", block, inputs, channels=width, kernel=kernel, factor=factor, statistics=statistics)
        nodes.stage(x)
    nodes.out(x)
    return nodes


def _strides(x: Edge, to: int, factor: int) -> list[int]:
    """The strides of the levels, from coarse to fine."""
    start = x.stride
    reached: list[int] = []
    while factor > 1 and (at := (reached[-1] if reached else start) / factor) >= 1 and at == int(at):
        reached.append(int(at))
    if to not in reached:
        would = "a larger factor would do" if factor == 1 else f"a track of stride {to * factor} would do"
        if reached:
            would = f"'to' may be {_said(reached)}"
        raise Misfit(f"from stride {start} of {x.name!r}, steps of {factor} don't come to stride {to}; {would}")
    return reached[: reached.index(to) + 1]


def _said(strides: object) -> str:
    return ", ".join(map(str, strides)) or "none"  # type: ignore[call-overload]
