"""DeepSTARR's convolutions."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Len
from typing_extensions import TypedDict

from agblocks.graph import Edge, Nodes, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Eps, Initial


class Stage(TypedDict):
    """One convolution."""

    channels: Positive
    kernel: Odd


Stage.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]


@composite("encoder.deepstarr", "x: B C L")
def deepstarr(
    x: Edge,
    *,
    stages: Annotated[list[Stage], Len(1, 16)] = [  # noqa: B006
        {"channels": 256, "kernel": 7},
        {"channels": 60, "kernel": 3},
        {"channels": 60, "kernel": 5},
        {"channels": 120, "kernel": 3},
    ],
    eps: Eps = 1e-3,
    initial: Initial = "glorot",
) -> Nodes:
    """Convolution with bias, batch norm and ReLU for each of `stages`, a max-pool after each.

    Shapes: x (batch, C, L) -> (batch, channels of the last stage, L / 2 ** stages, rounded down at each pool). Stage i
    has stride 2 ** (i - 1), and `pool<i>` follows it. Source: DeepSTARR (Keras: eps 0.001, Glorot uniform).
    """
    nodes = Nodes()
    for index, stage in enumerate(stages, 1):
        x = nodes.add(
            f"stage{index}", "conv.stem", {"x": x}, place=("stages", index - 1),
            channels=stage["channels"], kernel=stage["kernel"], activation="relu", bias=True, eps=eps, initial=initial,
        )  # fmt: skip
        nodes.stage(x)
        x = nodes.add(f"pool{index}", "pool.max_floor", {"x": x}, pool=2)
    nodes.out(x)
    return nodes
