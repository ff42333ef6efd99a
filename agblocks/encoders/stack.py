"""An encoder from a list of stages that the recipe itself gives."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from ..graph import Edge, Nodes, composite


class Stage(BaseModel):
    """One stage: a registered block with one track in and one out, and its arguments."""

    model_config = ConfigDict(strict=True, extra="forbid")

    block: str
    args: dict[str, Any] = {}


@composite("encoder.stack", "x: B C L")
def stack(x: Edge, *, stages: list[Stage]) -> Nodes:
    """Stages one after the other: `stage1`, `stage2`, ...; the encoder's own edge is the last one's.

    The last track at each stride is a level of the pyramid, so a U-Net decoder takes its skips from any stack.
    Use when: an encoder is a chain of blocks, each reading the one before.
    """
    nodes = Nodes()
    for index, stage in enumerate(stages):
        x = nodes.add(
            f"stage{index + 1}", stage["block"], {"x": x}, place=("stages", index), arguments=stage["args"]
        )
        nodes.stage(x)
    nodes.out(x)
    return nodes
