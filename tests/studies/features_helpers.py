"""Small models and sequences for the tests of features."""

from __future__ import annotations

import numpy as np

import agblocks
from agblocks.data import simulate_mpra, split_by_fold

NET = {
    "recipe": 1,
    "name": "net",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "stem": {"block": "conv.stem", "in": "dna", "args": {"channels": 8, "kernel": 7, "norm": "batch"}},
        "down": {"block": "conv.down", "in": "stem", "args": {"growth": 4}},
        "deep": {"block": "conv.down", "in": "down", "args": {"growth": 4}},
    },
    "heads": {
        "activity": {"block": "head.scalar", "in": "deep", "args": {"hidden": [8], "dropout": 0.2}},
    },
}


def net(seed=0, **more):
    return agblocks.build({**NET, **more}, seed=seed)


def sequences(count=20, lengths=(40,), seed=0):
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list("ACGT"), lengths[i % len(lengths)])) for i in range(count)]


def table_and_splits(rows=120, length=40, seed=0):
    table, _ = simulate_mpra(rows, length, seed=seed, sites=2.0)
    return table, split_by_fold(table, valid="1", test="0")
