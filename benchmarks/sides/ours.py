"""Our side of the comparisons with peers: the same work by recipes."""

from __future__ import annotations

import torch

import agblocks


def dna(batch: int, length: int) -> torch.Tensor:
    return torch.eye(4)[torch.randint(4, (batch, length))].mT.contiguous()


def kept(nodes: dict, keep: list[str], inputs: dict | None = None) -> torch.nn.Module:
    """A model of some nodes without heads."""
    return agblocks.build({"recipe": 1, "inputs": inputs or {"dna": "B 4 L"}, "nodes": nodes, "keep": keep})


def encoder(batch: int, half: bool):
    model, x = kept({"encoder": {"block": "encoder.alphagenome", "in": "dna"}}, ["encoder"]).eval(), dna(batch, 256)

    def work():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(dna=x)

    return work


def encoder_step(statistics: str):
    encoder = {"block": "encoder.alphagenome", "in": "dna", "args": {"statistics": statistics}}
    model, x = kept({"encoder": encoder}, ["encoder"]).train(), dna(32, 256)

    def work():
        model.zero_grad(set_to_none=True)
        model(dna=x)["encoder"].square().mean().backward()

    return work


EMBEDDINGS = ["embed_128bp", "embed_1bp", "embed_pair"]


def trunk() -> torch.nn.Module:
    """AlphaGenome up to its embeddings."""
    recipe = {"recipe": 1, "name": "trunk", "base": "alphagenome", "remove": ["heads.*"], "keep": EMBEDDINGS}
    return agblocks.build(recipe).eval()


def embeddings():
    model, x, organism = trunk(), dna(1, 131072), torch.zeros(1, dtype=int)

    def work():
        with torch.inference_mode():
            model(dna=x, organism=organism, outputs=EMBEDDINGS)

    return work


def backward():
    model, x, organism = trunk(), dna(1, 16384), torch.zeros(1, dtype=int)
    model.set_grad_checkpointing()

    def work():
        model.zero_grad(set_to_none=True)
        found = model(dna=x, organism=organism, outputs=EMBEDDINGS)
        sum(v.square().mean() for v in found.values()).backward()

    return work


def tower(positions: int, training: bool):
    keep = ["tower", "tower.pair"]
    model = kept({"tower": {"block": "tower.alphagenome", "in": "x"}}, keep, {"x": "B 1536 L"}).eval()
    if training:
        model.set_grad_checkpointing()
    x = torch.randn(1, 1536, positions, requires_grad=training)

    def work():
        with torch.set_grad_enabled(training):
            found = model(x=x, outputs=keep)
            if training:
                model.zero_grad(set_to_none=True)
                sum(v.square().mean() for v in found.values()).backward()

    return work


def enformer_encoder():
    model, x = kept({"encoder": {"block": "encoder.enformer", "in": "dna"}}, ["encoder"]).eval(), dna(32, 256)

    def work():
        with torch.inference_mode():
            model(dna=x)

    return work


def enformer():
    model, x = agblocks.build("enformer").eval(), dna(1, 196608)

    def work():
        with torch.inference_mode():
            model(dna=x)

    return work


WORK = {
    "encoder 1 x 256 bp, f32": lambda: encoder(1, False),
    "encoder 1 x 256 bp, bf16": lambda: encoder(1, True),
    "encoder 32 x 256 bp, f32": lambda: encoder(32, False),
    "encoder 32 x 256 bp, bf16": lambda: encoder(32, True),
    "encoder train step 32 x 256 bp": lambda: encoder_step("frozen"),  # as the peer's, whose statistics never move
    "encoder train step 32 x 256 bp, ours with batch statistics": lambda: encoder_step("batch"),
    "embeddings 131,072 bp": embeddings,
    "backward 16,384 bp": backward,
    "backward 16,384 bp, peer without checkpointing": backward,
    "tower 8,192 positions": lambda: tower(8192, False),
    "tower train step 2,048 positions": lambda: tower(2048, True),
    "tower train step 8,192 positions": lambda: tower(8192, True),
    "Enformer encoder 32 x 256 bp": enformer_encoder,
    "Enformer 196,608 bp": enformer,
}
