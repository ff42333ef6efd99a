from __future__ import annotations

import csv
import os
import signal

import torch
from training_helpers import QUICK, table_and_splits, two_targets

from agblocks.data import Splits
from agblocks.training.fit import OnSequences
from agblocks.training.parallel.processes import rank

# Batch norms over tracks and over vectors, AlphaGenome's norm, two targets with holes. No dropout, whose draws differ;
# and no bias right before a norm over batches: it has no gradient but rounding, of which Adam makes whole steps.
NORMS = {
    "recipe": 1,
    "name": "norms",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "stem": {"block": "conv.stem", "in": "dna", "args": {"channels": 8, "kernel": 7, "norm": "batch"}},
        "block": {"block": "conv.block", "in": "stem", "args": {"kernel": 3, "norm": "rms_batch"}},
        "bent": {"block": "activate.elements", "in": "block"},
    },
    "heads": {
        "activity": {
            "block": "head.scalar",
            "in": "bent",
            "args": {"pool": "max", "norm": "batch", "norm_at": "pooled", "hidden": [8], "targets": 2},
        }
    },
}
SETTINGS = QUICK


def rows():
    table, splits = table_and_splits()
    return two_targets(table), splits


def leaving(splits, left):
    """With fewer training rows, so that the last batch has so many."""
    n = len(splits.train)
    return Splits(splits.train[: n - (n - left) % SETTINGS.batch_size], splits.valid, splits.test)


def history(folder, member=0):
    with (folder / "members" / f"{member}.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def difference(one, other):
    """The largest difference of any weight, relative to the largest weight of its tensor."""
    a, b = one.state_dict(), other.state_dict()
    assert list(a) == list(b)
    return max(float((a[k].double() - b[k].double()).abs().max() / (a[k].double().abs().max() + 1e-3)) for k in a)


def _before_step(step, what):
    from agblocks.training.module import Fitting

    begin = Fitting.on_train_batch_start

    def counted(self, batch, batch_idx):
        if self.global_step == step and rank() == 1:
            what()
        begin(self, batch, batch_idx)

    Fitting.on_train_batch_start = counted


class Killed(OnSequences):
    """The second process is killed before its eighth step, in the second epoch."""

    def train(self, *args):
        _before_step(7, lambda: os.kill(os.getpid(), signal.SIGKILL))
        return super().train(*args)


def _fails():
    raise torch.cuda.OutOfMemoryError("only here")


class Failing(OnSequences):
    """The second process fails before its eighth step."""

    def train(self, *args):
        _before_step(7, _fails)
        return super().train(*args)
