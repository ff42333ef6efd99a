"""The peer enformer-pytorch 0.8.12. Runs in the peer's own environment, without this project."""

from __future__ import annotations

import torch
from enformer_pytorch import Enformer


def model():
    return Enformer.from_hparams(use_tf_gamma=False).eval()


def dna(batch: int, length: int) -> torch.Tensor:
    return torch.eye(4)[torch.randint(4, (batch, length))]


def encoder():
    whole, x = model(), dna(32, 256).mT.contiguous()
    parts = whole.stem, whole.conv_tower

    def work():
        with torch.inference_mode():
            y = x
            for part in parts:
                y = part(y)

    return work


def full():
    whole, x = model(), dna(1, 196608)

    def work():
        with torch.inference_mode():
            whole(x)

    return work


WORK = {"Enformer encoder 32 x 256 bp": encoder, "Enformer 196,608 bp": full}
