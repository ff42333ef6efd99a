from __future__ import annotations

from dataclasses import replace

import numpy as np

from agblocks.data import simulate_mpra, split_by_fold
from agblocks.training import Settings

SMALL = {
    "recipe": 1,
    "name": "small",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "stem": {"block": "conv.stem", "in": "dna", "args": {"channels": 8, "kernel": 7, "norm": "batch"}},
    },
    "heads": {
        "activity": {
            "block": "head.scalar",
            "in": "stem",
            "args": {"pool": "max", "hidden": [8], "dropout": 0.3},
        }
    },
}

QUICK = Settings(
    epochs=3,
    batch_size=32,
    lr=1e-2,
    patience=0,
    ema=0.9,
    reverse_complement=0.5,
    shift=3,
    shift_mode="roll",
    device="cpu",
)


def table_and_splits(rows: int = 200, length: int = 40, seed: int = 0):
    table, _ = simulate_mpra(rows, length, seed=seed, sites=2.0)
    return table, split_by_fold(table, valid="1", test="0")


def two_targets(table):
    """A second target, with holes."""
    second = -table.targets[:, :1].copy()
    second[::7] = np.nan
    return replace(table, targets=np.concatenate([table.targets, second], 1), target_names=("activity", "other"))
