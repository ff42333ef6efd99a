"""Probing seven stages of 3,000 sequences: one pass feeds every tap. At most 1.3 times a forward pass plus the fits.

Beside it the plain way, which runs the encoder once a stage, and a second time with everything in the cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agblocks import build
from agblocks.data import Loader, simulate_mpra, split_by_fold
from agblocks.graph.model import GraphModel
from agblocks.studies.features import Store, Tap, extract
from agblocks.studies.features.training import OnFeatures
from agblocks.training import Settings, fit, fit_ridge_features

from .timing import Timing, pair

ROWS, LENGTH, BATCH = 3000, 230, 64
STAGES = [f"encoder.stage{i}" for i in range(1, 8)]


def encoder(channels: int = 48, growth: int = 16) -> dict[str, Any]:
    """AlphaGenome's seven stages with few channels, all of them kept."""
    node = {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": channels, "growth": growth}}
    return {"recipe": 1, "name": "stages", "inputs": {"dna": "B 4 L"}, "nodes": {"encoder": node}, "keep": STAGES}


def main(repeats: int = 3) -> None:
    torch.set_num_threads(1)
    table, _ = simulate_mpra(ROWS, LENGTH, seed=0)
    model = build(encoder(), seed=0).eval()
    loader = Loader(table, targets={}, batch_size=BATCH)
    targets = table.targets[:, 0].astype(np.float64)
    train, valid = np.arange(2400), np.arange(2400, ROWS)

    def fits(features: Mapping[str, NDArray[np.float32]]) -> None:
        for x in features.values():
            fit_ridge_features(x[train], targets[train], x[valid], targets[valid])

    def forward(stages: list[str]) -> dict[str, NDArray[np.float32]]:
        found: dict[str, list[torch.Tensor]] = {stage: [] for stage in stages}
        with torch.inference_mode():
            for batch in loader:
                made = model(dna=batch["inputs"]["dna"], outputs=stages)
                for stage in stages:
                    found[stage].append(made[stage].mean(-1))
        return {stage: torch.cat(parts).numpy() for stage, parts in found.items()}

    def one_pass() -> None:
        """A forward pass to the last stage, and seven fits, to features that cost nothing."""
        with torch.inference_mode():
            for batch in loader:
                model(dna=batch["inputs"]["dna"], outputs=STAGES[-1:])
        fits(there)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fits(_extracted(model, table.sequences, Path(folder)))

    def plain() -> None:
        """A run a stage."""
        for stage in STAGES:
            fits(forward([stage]))

    there = forward(STAGES)
    with tempfile.TemporaryDirectory() as folder:
        first = _extracted(model, table.sequences, Path(folder))
        for stage in STAGES:
            np.testing.assert_allclose(first[stage], there[stage], rtol=1e-4, atol=1e-5)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*"))
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{ROWS:,} sequences of {LENGTH} bp, 7 stages of {parameters:,} parameters, {size / 1e6:.1f} MB of features"
        )
        _told("one pass for all taps", "a forward pass and the fits", *pair(ours, one_pass, repeats, 1, timer=cpu))
        _told("one pass for all taps", "one run a stage", *pair(ours, plain, repeats, 0, timer=cpu))
        again = pair(lambda: fits(_extracted(model, table.sequences, Path(folder))), one_pass, repeats, 0, timer=cpu)
        _told("all from the cache", "a forward pass and the fits", *again)
    training()


def training(repeats: int = 1, rows: int = 1000, epochs: int = 5) -> None:
    """A head by gradient on the frozen encoder: plainly, on features made first, and on features that are there."""
    table, _ = simulate_mpra(rows, LENGTH, seed=0)
    splits = split_by_fold(table, valid="1", test="0")
    head = {"activity": {"block": "head.scalar", "in": "encoder.stage7", "args": {"hidden": [64]}}}
    recipe = {key: part for key, part in {**encoder(), "heads": head}.items() if key != "keep"}
    settings = Settings(epochs=epochs, tune="head", patience=0, device="cpu")

    def run(store: Store | None) -> None:
        work = None if store is None else partial(OnFeatures, store=store)
        with tempfile.TemporaryDirectory() as folder:
            fit(recipe, table, splits, Path(folder) / "run", settings, work=work)

    def fresh() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(Store(folder))

    what = f"{epochs} epochs on {rows:,} sequences, head of the last stage"
    with tempfile.TemporaryDirectory() as kept:
        run(Store(kept))
        for name, ours in (("features made first", fresh), ("features there", lambda: run(Store(kept)))):
            mine, theirs, ratio = pair(ours, lambda: run(None), repeats, 0, timer=cpu)
            print(f"{what}, all that `fit` does: {name}: {mine}; plainly: {theirs}; ratio {ratio.values[0]:.3f}")


def cpu() -> float:
    """Seconds of this process on one thread: others on the machine don't count."""
    return time.process_time()


def _extracted(model: GraphModel, sequences: tuple[str, ...], folder: Path) -> dict[str, NDArray[np.float32]]:
    """A store of its own each time: what is on the disk is there, what was opened before is not."""
    made = extract(model, {stage: Tap(stage) for stage in STAGES}, sequences, store=Store(folder), batch_size=BATCH)
    return {stage: features.array for stage, features in made.items()}


def _told(ours: str, other: str, mine: Timing, theirs: Timing, ratio: object) -> None:
    print(f"{ours} and the fits: {mine}; {other}: {theirs}; ratio {ratio}", flush=True)


if __name__ == "__main__":
    main()
