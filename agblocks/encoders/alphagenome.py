"""AlphaGenome's sequence encoder at any width and depth."""

from __future__ import annotations

from agblocks.graph import Edge, Nodes, composite
from agblocks.graph.types import NonNegative, Odd, Positive
from agblocks.layers import Statistics


@composite("encoder.alphagenome", "dna: B 4 L")
def alphagenome(
    dna: Edge,
    *,
    channels: Positive = 768,
    growth: NonNegative = 128,
    stages: Positive = 7,
    kernel: Odd = 5,
    width: Odd = 15,
    statistics: Statistics = "batch",
) -> Nodes:
    """DNA embedder and down stages, each halving the resolution and adding `growth` channels; one more pool at the end.

    Shapes: dna (batch, 4, L) -> (batch, channels + growth * (stages - 1), ceil(L / 2 ** stages)). Stage i, `stage1` on,
    has stride 2 ** (i - 1) and is what a decoder skips from.
    Source: AlphaGenome, Avsec et al. 2026, Methods: 89,972,992 parameters by default.
    """
    nodes = Nodes()
    x = nodes.add(
        "stage1", "conv.embed", {"x": dna}, channels=channels, width=width, kernel=kernel, statistics=statistics
    )
    nodes.stage(x)
    for stage in range(2, stages + 1):
        x = nodes.add(f"stage{stage}", "conv.down", {"x": x}, growth=growth, kernel=kernel, statistics=statistics)
        nodes.stage(x)
    nodes.out(nodes.add("pool", "pool.max", {"x": x}, pool=2))
    return nodes
