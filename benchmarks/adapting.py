"""Every way to adapt a model, on real data: `python -m benchmarks.adapting out/ [--rows 300] [--report]`.

`mpra_attention` is trained on the STARR-seq sample, then adapted to the lentiMPRA sample: each method on three folds
with three seeds (the base's too), its learning rate chosen on the first's validation fold. Every cell is a file of
its own, written whole, so a run that was stopped goes on where it was. Memory is what one epoch takes at its peak, in a
process of its own. `out/table.md` and `out/adapting.png` are what docs/results.md shows. Needs AGBLOCKS_DATA.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import agblocks
from agblocks.adapters import AdapterSpec, adapt, kinds
from agblocks.data import Table, load, one_hot, split_by_fold
from agblocks.training.baseline.ridge import fit_ridge
from agblocks.training.scores.metrics import pearson
from agblocks.training.sources import read_construct

RECIPE = "mpra_attention"
FOLDS = ("0", "3", "6")
SEEDS = (0, 1, 2)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
EPOCHS, BATCH, ROWS = 15, 32, 500
PRETRAINED = {"data": "drosophila_starrseq_3k", "construct": "starrseq:none"}
WANTED = {"data": "human_lentimpra_3k", "construct": "lentimpra:none"}


@dataclass(frozen=True)
class Method:
    """A way to adapt: adapters, and what else of the base trains beside the new head."""

    name: str
    specs: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    fresh: bool = False  # the base as it is drawn, not as it was trained
    decay: float = 1.0  # of the learning rate, by layer
    quantized: bool = False
    needs: tuple[str, ...] = field(default=())


QKVO, ALL = "role=attn.q+attn.k+attn.v+attn.out", "role=attn.q+attn.k+attn.v+attn.out+mlp.up+mlp.down"
METHODS = (
    Method("from scratch", train=("**",), fresh=True),
    Method("random, frozen: head", fresh=True),
    Method("head"),
    Method("full", train=("**",)),
    Method("full, rates decay by layer (0.65)", train=("**",), decay=0.65),
    Method("last layer", train=("tower.layer2",)),
    Method("both layers", train=("tower.layer1", "tower.layer2")),
    Method("lora q v", ("lora:rank=8",)),
    Method("lora all six", (f"lora:{ALL},rank=8",)),
    Method("lora+ all six", (f"lora:{ALL},rank=8,lr_ratio=16.0",)),
    Method("rslora all six", (f"lora:{ALL},rank=8,rslora=true",)),
    Method("pissa all six", (f"lora:{ALL},rank=8,init=pissa",)),
    Method("dora all six", (f"dora:{ALL},rank=8",)),
    Method("qlora all six", (f"lora:{ALL},rank=8",), quantized=True),
    Method("locon", ("locon:rank=4,alpha=4.0",)),
    Method("lora + locon", (f"lora:{QKVO},rank=8", "locon:rank=4,alpha=4.0")),
    Method("ia3", ("ia3",)),
    Method("ia3 + ia3_ff", ("ia3", "ia3_ff")),
    Method("ia3 on convolutions", ("ia3:role=conv.main",)),
    Method("bitfit", ("bitfit:role=conv.main+attn.out+mlp.up+mlp.down",)),
    Method("norm", ("norm",)),
    Method("houlsby", ("houlsby",)),
    Method("houlsby + norm", ("houlsby", "norm")),
    Method("houlsby on convolutions (squeeze-excite)", ("houlsby_se",)),
    Method("pfeiffer", ("pfeiffer",)),
    Method("parallel", ("parallel",)),
    Method("adapter_plus", ("adapter_plus",)),
    Method("compacter", ("compacter",)),
    Method("nice on the stem", ("nice:glob=encoder.stage1",)),
    Method("prefix", ("prefix:length=10",)),
    Method("condition", ("condition",)),
    Method("flank", ("flank:glob=encoder.stage1",)),
    Method("tower prefix", ("tower_prefix:glob=tower.layer*",)),
    Method("loreft", ("loreft:rank=4",)),
    Method("noreft", ("noreft:rank=4",)),
    Method("direft", ("direft:rank=4",)),
    Method("all four", (f"lora:{QKVO},rank=8", "locon:rank=4,alpha=4.0", "ia3:role=mlp.up", "houlsby")),
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """A data set as tensors: both its parts and its scaled targets."""

    x: Tensor
    y: Tensor  # as measured
    parts: dict[str, Tensor]

    def scaled(self) -> Tensor:
        """Targets with mean 0 and deviation 1 over the rows that train."""
        own = self.y[self.parts["train"]]
        return (self.y - own.mean(0)) / own.std(0)


def rows(source: dict[str, str], fold: str, most: int | None = None, seed: int = 0) -> tuple[Rows, Table, Any]:
    table, construct = load(source["data"]), read_construct(source["construct"])
    splits = split_by_fold(table, valid=str((int(fold) + 1) % 10), test=fold)
    x = one_hot([construct.assemble(sequence) for sequence in table.sequences])
    parts = {part: torch.from_numpy(index) for part, index in splits.parts().items()}
    if most is not None:
        order = torch.randperm(len(parts["train"]), generator=torch.Generator().manual_seed(seed))
        parts["train"] = parts["train"][order[:most]]
    return Rows(x, torch.from_numpy(table.targets).float(), parts), table, splits


def train(model: nn.Module, data: Rows, groups: list[dict[str, Any]], rate: float, seed: int, epochs: int) -> None:
    """One cycle of AdamW on both strands; everything random depends on the seed alone."""
    optimizer = torch.optim.AdamW(groups, lr=rate)
    steps = epochs * math.ceil(len(data.parts["train"]) / BATCH)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=0.15)
    generator, y = torch.Generator().manual_seed(seed), data.scaled()
    torch.manual_seed(seed)
    weights = [p for group in groups for p in group["params"]]
    model.train()
    for _ in range(epochs):
        order = data.parts["train"][torch.randperm(len(data.parts["train"]), generator=generator)]
        for index in order.split(BATCH):
            if len(index) < 2:
                continue
            x = data.x[index]
            turned = torch.rand(len(index), 1, 1, generator=generator) < 0.5
            x = torch.where(turned, x.flip(1, 2), x)
            made = model(dna=x, outputs=model.loss_outputs)
            loss = model.loss(made, {"activity": y[index]})
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    parts = [(model(dna=p)["activity"] + model(dna=p.flip(1, 2))["activity"]) / 2 for p in x.split(256)]
    return torch.cat(parts)


def r(model: nn.Module, data: Rows, part: str) -> float:
    index = data.parts[part]
    return float(pearson(predict(model, data.x[index])[:, 0].double().numpy(), data.y[index][:, 0].double().numpy()))


def pretrain(out: Path, seed: int) -> Path:
    """The base: trained on STARR-seq, both its targets."""
    path = out / f"base-{seed}.pt"
    if not path.exists():
        data, _, _ = rows(PRETRAINED, "9")
        model = agblocks.build(RECIPE, "activity.targets=2", seed=seed)
        train(model, data, [{"params": list(model.parameters()), "weight_decay": 0.02}], 1e-2, seed, 15)
        torch.save({"state": model.state_dict(), "r": r(model, data, "test")}, beside := path.with_suffix(".part"))
        beside.rename(path)
    return path


def ready(out: Path, method: Method, seed: int) -> nn.Module:
    """The model that a method starts from, with a head of its own."""
    model = agblocks.build(RECIPE, seed=100 + seed)
    if not method.fresh:
        kept = torch.load(pretrain(out, seed), weights_only=True)["state"]
        model.load_state_dict(
            {**model.state_dict(), **{k: v for k, v in kept.items() if not k.startswith("activity.")}}
        )
    if method.quantized:
        from agblocks.adapters import quantize

        quantize(model)
    return model


def cell(out: Path, method: Method, fold: str, seed: int, rate: float, most: int | None) -> dict[str, Any]:
    """Adapt and score once, in this process."""
    torch.set_num_threads(1)
    data, _, _ = rows(WANTED, fold, most, seed)
    model = ready(out, method, seed)
    adapted = adapt(model, method.specs, train=("activity", *method.train), seed=seed)
    start = time.process_time()
    train(adapted, data, list(_groups(adapted, method, rate)), rate, seed, EPOCHS)
    seconds = time.process_time() - start
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    head = sum(p.numel() for p in model.activity.parameters())
    return {
        "method": method.name, "fold": fold, "seed": seed, "rate": rate, "rows": len(data.parts["train"]),
        "valid": r(adapted, data, "valid"), "test": r(adapted, data, "test"), "seconds": seconds,
        "trained": trained, "beside_head": trained - head,
    }  # fmt: skip


def memory(out: Path, method: Method, most: int | None) -> dict[str, Any]:
    """Megabytes that one epoch takes at its peak, above the model as it stood. Linux."""
    import torch._dynamo  # an optimiser loads it

    torch.set_num_threads(1)
    data, _, _ = rows(WANTED, FOLDS[0], most)
    model = ready(out, method, SEEDS[0])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    adapted = adapt(model, method.specs, train=("activity", *method.train))
    train(adapted, data, list(_groups(adapted, method, RATES[0])), RATES[0], 0, 1)
    return {"memory_mb": (_status("VmHWM") - before) / 1024}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def _groups(adapted: Any, method: Method, rate: float) -> Iterator[dict[str, Any]]:
    spared, rates = adapted.no_weight_decay(), adapted.learning_rates()
    depth = adapted.base.group_matcher() if method.decay != 1 else None
    names = [n for n, p in adapted.named_parameters() if p.requires_grad]
    deepest = max((depth(n.removeprefix("base.")) for n in names), default=0) if depth else 0
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            scale = rates.get(name, 1.0)
            if depth:
                scale *= method.decay ** (deepest - depth(name.removeprefix("base.")))
            decay = 0.0 if parameter.ndim <= 1 or name in spared else 0.02
            yield {"params": [parameter], "weight_decay": decay, "lr": rate * scale}


def once(out: Path, method: Method, fold: str, seed: int, rate: float, most: int | None) -> dict[str, Any]:
    """The result of a cell, from its file or from a process of its own."""
    said = [method.name, method.specs, method.train, method.fresh, method.decay, method.quantized]
    said += [fold, seed, rate, most, EPOCHS, BATCH, agblocks.resolve(RECIPE).digest]
    path = out / "cells" / f"{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}.json"
    pretrain(out, seed)
    return _kept(path, cell, (out, method, fold, seed, rate, most)) or {"method": method.name, "failed": True}


def _kept(path: Path, work: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> dict[str, Any]:
    """What a process of its own finds, or found before; nothing where it failed."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        worker = multiprocessing.get_context("fork").Process(target=_write, args=(path, work, args))
        worker.start()
        worker.join()
    return json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, work: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    beside = path.with_suffix(f".{os.getpid()}.part")
    beside.write_text(json.dumps(work(*args)))
    beside.rename(path)


def compare(out: Path, methods: list[Method], most: int | None, share: tuple[int, int]) -> list[dict[str, Any]]:
    """Every method: its rate by validation on the first fold and seed, then all folds and seeds with that."""
    cells = []
    for index, method in enumerate(methods):
        if index % share[1] != share[0]:
            continue
        tried = [once(out, method, FOLDS[0], SEEDS[0], rate, most) for rate in RATES]
        good = [one for one in tried if "failed" not in one]
        if not good:
            print(f"{method.name}: failed", flush=True)
            continue
        best = max(good, key=lambda one: one["valid"])["rate"]
        made = [once(out, method, fold, seed, best, most) for fold in FOLDS for seed in SEEDS]
        cells += [one for one in made if "failed" not in one]
        mean = statistics.mean(one["test"] for one in made if "failed" not in one)
        print(f"{method.name}: rate {best:g}, r {mean:.3f}", flush=True)
    return cells


def ridge(out: Path, most: int | None) -> list[float]:
    """K-mer ridge on the same rows."""
    found = []
    for fold in FOLDS:
        data, table, splits = rows(WANTED, fold, most)
        construct = read_construct(WANTED["construct"])
        if most is not None:
            splits = type(splits)(data.parts["train"].numpy(), splits.valid, splits.test)
        fitted = fit_ridge(table, splits, construct=construct)
        made = fitted.predict(table.take(splits.test))[:, 0]
        found.append(float(pearson(made, table.targets[splits.test][:, 0])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS, help="train on so many rows, 0 for all")
    parser.add_argument("--only", default="", help="methods by name, with commas")
    parser.add_argument("--share", default="0/1", help="this process's part of the methods, like 0/2 and 1/2")
    parser.add_argument("--report", action="store_true", help="write the table and the plot from what is there")
    given = parser.parse_args()
    part, of = map(int, given.share.split("/"))
    known = set(kinds())
    methods = [m for m in METHODS if all(s.partition(":")[0] in known for s in m.specs)]
    if given.only:
        methods = [m for m in methods if m.name in given.only.split(",")]
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for method in methods:
        for spec in method.specs:
            AdapterSpec.parse(spec)
    most = given.rows or None
    cells = compare(given.out, methods, most, (part, of))
    if given.report:
        from .adapting_report import report

        taken = {
            method.name: _kept(given.out / "memory" / f"{i}.json", memory, (given.out, method, most))
            for i, method in enumerate(methods)
        }
        report(given.out, cells, taken, ridge(given.out, most), given.rows)


if __name__ == "__main__":
    main()
