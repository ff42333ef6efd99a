"""An encoder from the list of stages that the recipe gives."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from annotated_types import Len
from typing_extensions import TypedDict

from agblocks.graph import Edge, Nodes, composite


class Stage(TypedDict):
    """One entry of `stages`."""

    block: str
    args: NotRequired[dict[str, Any]]


Stage.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]


@composite("encoder.stack", "x: B C L")
def stack(x: Edge, *, stages: Annotated[list[Stage], Len(1, 64)]) -> Nodes:
    """Blocks one after the other, `stage1`, `stage2`, ...: any with one input track, from any registered family.

    Every track goes into the pyramid by its stride (of several at one stride the last), so a decoder can skip from it.
    Use when: an encoder of one's own is wanted without writing a composite.

        encoder: {block: encoder.stack, in: dna, args: {stages: [
          {block: conv.stem, args: {channels: 64}},
          {block: conv.down, args: {growth: 32}}]}}
    """
    nodes = Nodes()
    for index, stage in enumerate(stages):
        x = nodes.add(
            f"stage{index + 1}",
            stage["block"],
            {"": x},
            place=("stages", index),
            arguments=stage.get("args", {}),
        )
        nodes.stage(x)
    nodes.out(x)
    return nodes
