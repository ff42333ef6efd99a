"""Embeddings: an organism's vector, and the tracks and pair maps that heads read."""

from __future__ import annotations

from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Positive
from agblocks.layers import LayerNorm, OrganismEmbedding, QuickGELU, RMSBatchNorm, Statistics, role


@register("embed.organism", "x: B C L, organism: B < organisms -> out: B C L", reach="")
class Organism(Block):
    """Add a learnt vector of the organism to every position.

    Shapes: x (batch, channels, length), organism (batch,) -> (batch, channels, length).
    Source: AlphaGenome, before the tower (human 0, mouse 1).
    """

    def __init__(self, C: int, *, organisms: Positive = 2):
        super().__init__()
        self.embedding = OrganismEmbedding(organisms, C)

    def forward(self, x: Tensor, organism: Tensor) -> Tensor:
        return x + self.embedding(organism)[:, :, None]


@register(
    "embed.track",
    "x: B C L, organism: B < organisms, coarse?: B S L/factor -> out: B channels|2*C L",
    reach={"x": "", "coarse": "up(factor)"},
)
class TrackEmbedding(Block):
    """What track heads read: project, add a coarser embedding, norm, add the organism's vector, activate.

    Shapes: x (batch, C, length), organism (batch,), coarse (batch, S, length / factor) or none ->
    (batch, channels or 2 C, length). The coarse track is projected without bias and repeated.
    Source: AlphaGenome's output embedders: at 128 bp without a coarse track, at 1 bp with the finished 128-bp one.
    """

    def __init__(
        self,
        C: int,
        S: int | None = None,
        *,
        channels: Positive | None = None,
        factor: Positive = 128,
        organisms: Positive = 2,
        statistics: Statistics = "batch",
    ):
        super().__init__()
        out = 2 * C if channels is None else channels
        self.factor = factor
        self.project = role(nn.Conv1d(C, out, 1), "conv.main")
        self.project_coarse = None if S is None else role(nn.Conv1d(S, out, 1, bias=False), "conv.main")
        self.norm = role(RMSBatchNorm(out, mode=statistics), "norm")
        self.embedding = OrganismEmbedding(organisms, out)
        self.activation = QuickGELU()

    def forward(self, x: Tensor, organism: Tensor, coarse: Tensor | None = None) -> Tensor:
        h = self.project(x)
        if self.project_coarse is not None:
            h = h + self.project_coarse(coarse).repeat_interleave(self.factor, -1)
        return self.activation(self.norm(h) + self.embedding(organism)[:, :, None])


@register("embed.pair", "x: B P P C, organism: B < organisms -> out: B P P C")
class PairEmbedding(Block):
    """What pair heads read: the symmetric part of a pair map, normed, with the organism's vector, activated.

    Shapes: x (batch, P, P, channels), organism (batch,) -> the same as x. Source: AlphaGenome.
    """

    def __init__(self, C: int, *, organisms: Positive = 2):
        super().__init__()
        self.norm = role(LayerNorm(C, rms=True), "norm")
        self.embedding = OrganismEmbedding(organisms, C)
        self.activation = QuickGELU()

    def forward(self, x: Tensor, organism: Tensor) -> Tensor:
        h = self.norm((x + x.transpose(1, 2)) * 0.5)
        return self.activation(h + self.embedding(organism)[:, None, None])
