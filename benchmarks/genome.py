"""Whole-chromosome prediction against the bare model on the same windows: at most 1.1 times, bigWigs written.

Small models on one thread and one made chromosome; processor seconds, as others may use the machine. What overlap costs
on top is told as bases read for each base of the chromosome.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from agblocks import GraphModel, build
from agblocks.data import one_hot_codes
from agblocks.training.genome import Predicted, predict_genome, reads, tile

from .timing import pair

LENGTH = 300_000
ENCODER = """
recipe: 1
name: encoder
inputs: {dna: B 4 L}
nodes: {encoder: {block: encoder.alphagenome, in: dna, args: {channels: 32, growth: 8}}}
heads: {coverage: {block: head.coverage, in: encoder, args: {tracks: 5}}}
"""
CASES: dict[str, tuple[str, dict[str, int], int | None]] = {
    "the encoder alone (cropped by its reach)": (ENCODER, {}, None),
    "yeast_alphagenome, windows of 16,384": ("yeast_alphagenome", {"organism": 0}, 16_384),
    "yeast_enformer, windows of 16,384": ("yeast_enformer", {"organism": 0}, 16_384),
}


def bare(model: GraphModel, codes: np.ndarray, window: int, batch: int, inputs: dict[str, int]) -> None:
    """The model on as many batches, and nothing else."""
    with torch.inference_mode():
        for at in range(0, len(codes), batch):
            dna = one_hot_codes(codes[at : at + batch])
            model(dna=dna, **{name: torch.full((len(dna),), value) for name, value in inputs.items()})


def measure(title: str, recipe: str, inputs: dict[str, int], window: int | None, folder: Path, repeats: int) -> None:
    """Time one model."""
    model = build(recipe, seed=0).eval()
    how = reads(model.resolved, tuple(model.resolved.heads), "dna")
    size = window or how.usual()
    batch = max(1, (1 << 17) // size)

    def ours() -> Predicted:
        return predict_genome(model, folder / "made.fa", folder / "out", window=size, inputs=inputs or None)

    report = ours().report
    windows = tile(LENGTH, size, how.shape, report["overlap"]).windows
    codes = np.random.default_rng(1).integers(0, 4, (len(windows), size), np.uint8)
    mine, other, ratio = pair(
        ours, lambda: bare(model, codes, size, batch, inputs), repeats, 1, timer=time.process_time
    )  # fmt: skip
    print(
        f"{title}: {LENGTH / mine.median:,.0f} bases/s; the bare model {len(windows) * size / other.median:,.0f}, of "
        f"which it reads {report['bases_read'] / LENGTH:.2f} for each; ratio on the same windows {ratio}",
        flush=True,
    )


def main(repeats: int = 5) -> None:
    torch.set_num_threads(1)
    sequence = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", np.uint8), LENGTH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "made.fa").write_bytes(b">made\n" + sequence.tobytes() + b"\n")
        for title, (recipe, inputs, window) in CASES.items():
            measure(title, recipe, inputs, window, folder, repeats)


if __name__ == "__main__":
    main()
