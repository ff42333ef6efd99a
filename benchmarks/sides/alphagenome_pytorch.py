"""The peer alphagenome-pytorch 0.3.1. Runs in the peer's own environment, without this project."""

from __future__ import annotations

import torch
from alphagenome_pytorch import AlphaGenome
from alphagenome_pytorch.config import DtypePolicy
from torch import nn


def drawn(model: nn.Module) -> nn.Module:
    """No weight left at zero: the published initialisation has dead convolutions."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


def dna(batch: int, length: int) -> torch.Tensor:
    return torch.eye(4)[torch.randint(4, (batch, length))]


def encoder(batch: int, half: bool):
    policy = DtypePolicy.mixed_precision() if half else DtypePolicy.full_float32()
    model, x, organism = drawn(AlphaGenome(dtype_policy=policy)).eval(), dna(batch, 256), torch.zeros(batch, dtype=int)

    def work():
        with torch.inference_mode():
            model.predict(x, organism, encoder_only=True)

    return work


def encoder_step():
    model = drawn(AlphaGenome()).train()
    x, organism = dna(32, 256), torch.zeros(32, dtype=int)

    def work():
        model.zero_grad(set_to_none=True)
        model(x, organism, encoder_only=True)["encoder_output"].square().mean().backward()

    return work


def embeddings():
    model, x, organism = drawn(AlphaGenome()).eval(), dna(1, 131072), torch.zeros(1, dtype=int)

    def work():
        with torch.inference_mode():
            model(x, organism, embeddings_only=True)

    return work


def backward(checkpointing: bool):
    model = drawn(AlphaGenome(gradient_checkpointing=checkpointing)).eval()
    x, organism = dna(1, 16384), torch.zeros(1, dtype=int)

    def work():
        model.zero_grad(set_to_none=True)
        found = model(x, organism, embeddings_only=True)
        sum(v.square().mean() for v in found.values() if v.requires_grad).backward()

    return work


def tower(positions: int, training: bool):
    model = AlphaGenome(gradient_checkpointing=training)
    part = drawn(model.tower).eval()
    del model
    x = torch.randn(1, positions, 1536, requires_grad=training)

    def work():
        with torch.set_grad_enabled(training):
            track, pair = part(x)
            if training:
                part.zero_grad(set_to_none=True)
                (track.square().mean() + pair.square().mean()).backward()

    return work


WORK = {
    "encoder 1 x 256 bp, f32": lambda: encoder(1, False),
    "encoder 1 x 256 bp, bf16": lambda: encoder(1, True),
    "encoder 32 x 256 bp, f32": lambda: encoder(32, False),
    "encoder 32 x 256 bp, bf16": lambda: encoder(32, True),
    "encoder train step 32 x 256 bp": encoder_step,
    "encoder train step 32 x 256 bp, ours with batch statistics": encoder_step,
    "embeddings 131,072 bp": embeddings,
    "backward 16,384 bp": lambda: backward(True),
    "backward 16,384 bp, peer without checkpointing": lambda: backward(False),
    "tower 8,192 positions": lambda: tower(8192, False),
    "tower train step 2,048 positions": lambda: tower(2048, True),
}
