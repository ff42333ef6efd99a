"""A folder as `agblocks study run` leaves it, made without any model: believable numbers, failures and gaps."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import polars

from agblocks.training.scores.metrics import score

TARGETS = {"lentimpra": ["HepG2"], "starrseq": ["Dev_log2_enrichment", "Hk_log2_enrichment"]}
CONTROLS = ("random", "kmer", "full")
NOISE = {"probe": 0.9, "frozen": 0.85, "finetune": 0.7}
MISSING_REASON = "encoder.stage2: the loss of step 17 is nan <img src=x onerror=alert(1)>"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def address(document):
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def document(labels, control):
    """What a cell is: the controls leave out what they do not depend on, so that several entries share one."""
    kept = {"kmer": ("data", "fold"), "full": ("data", "encoder", "fold", "seed")}.get(control, tuple(labels))
    return {"control": control, **{k: v for k, v in labels.items() if k in kept}}


def make(
    out,
    *,
    encoders=("alphagenome", "enformer"),
    stages=4,
    ways=("probe", "frozen", "finetune"),
    data=("lentimpra", "starrseq"),
    folds=("0", "3", "6"),
    seeds=("0", "1"),
    rows=80,
    name="stage_transfer",
    about="Which stage of an encoder carries what transfers?",
    controls=CONTROLS,
    failed=5,
    missing=7,
    predictions=True,
    bootstrap=50,
    signal=True,
):
    """Writes the folder; gives back {"failed": ids, "missing": ids, "entries": n, "cells": n}."""
    out = Path(out)
    axes = {
        "data": data, "encoder": encoders, "tap": [f"encoder.stage{i + 1}" for i in range(stages)], "way": ways,
        "fold": folds, "seed": seeds,
    }  # fmt: skip
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    entries = [
        {"cell": address(document(labels, control)), "labels": labels, "control": control}
        for labels in grid
        for control in (None, *controls)
    ]
    write(
        out / "plan.json",
        {
            "format": "agblocks-study", "version": 1, "name": name, "about": about, "digest": "0123456789abcdef",
            "command": f"agblocks study run {name} -o out", "agblocks": "0.1.0",
            "axes": [{"name": k, "options": list(v)} for k, v in axes.items()],
            "entries": entries, "reference": {"way": ways[0], "tap": "encoder.stage1"},
            "report": {"x": "tap", "line": "way", "panel": ["data", "encoder"], "over": ["fold", "seed"]},
            "similarity": ["stages", "architectures", "never_made"],
        },
    )  # fmt: skip
    unique = {}
    for entry in entries:
        unique.setdefault(entry["cell"], entry)
    rng = np.random.default_rng(7)
    own = [cell for cell, entry in unique.items() if entry["control"] is None]
    bad = [own[i] for i in rng.permutation(len(own))[: failed + missing]]
    observed = {(d, f): rng.normal(size=(rows, len(TARGETS[d]))) for d in data for f in folds}
    for cell, entry in unique.items():
        if cell in bad[failed:]:
            continue
        write(out / "cells" / cell / "cell.json", document(entry["labels"], entry["control"]))
        if cell in bad[:failed]:
            write(
                out / "cells" / cell / "failed.json",
                {"cell": cell, "error": MISSING_REASON, "where": "encoder.stage2", "traceback": "Traceback ...\nnan"},
            )
            continue
        labels, control = entry["labels"], entry["control"]
        seen = observed[labels["data"], labels["fold"]]
        predicted = seen + _noise(rng, labels, control, signal, stages) * rng.normal(size=seen.shape)
        _result(out, cell, labels, control, seen, predicted, predictions, bootstrap)
    _costs(out, encoders, stages)
    _similarity(out, stages, encoders)
    return {"failed": bad[:failed], "missing": bad[failed:], "entries": len(entries), "cells": len(unique)}


def _noise(rng, labels, control, signal, stages):
    """How far predictions are off: stage 3 carries most, fine-tuning more than probing, controls less."""
    if not signal:
        return 2.0
    stage = int(labels["tap"].removeprefix("encoder.stage"))
    if control == "kmer":
        return 2.4
    if control == "full":
        return 0.65
    base = NOISE.get(labels["way"], 0.8) + 0.25 * abs(stage - min(3, stages)) + 0.1 * (labels["encoder"] == "enformer")
    return (base + 1.2 if control == "random" else base) * (1 + 0.04 * rng.normal())


def _result(out, cell, labels, control, observed, predicted, predictions, bootstrap):
    names = TARGETS[labels["data"]]
    scores = [s.to_dict() for s in score(predicted, observed, names, bootstrap=bootstrap)]
    stage = labels["tap"].removeprefix("encoder.stage")
    key = None if control == "kmer" else f"{labels['encoder']}-{stage if control is None else 'all'}"
    write(
        out / "cells" / cell / "result.json",
        {
            "format": "agblocks-cell", "version": 1, "cell": cell, "seconds": 12.5, "peak_mb": 801.0,
            "rows": {"train": 2400, "valid": 300, "test": len(observed)},
            "scores": {"test": scores, "valid": scores}, "chosen": {"penalty": 31.6},
            "parameters": {"all": 250_000, "trained": 3_000} if control != "kmer" else {"all": 5440, "trained": 5440},
            "recipe": None if control == "kmer" else "4a1a0792adbc", "weights": None if control else "f" * 64,
            "cost": key, "command": f"agblocks study run study.yaml -o out --only {cell}", "agblocks": "0.1.0",
            "host": "made",
        },
    )  # fmt: skip
    if predictions:
        columns = {"id": [f"{labels['data']}-{labels['fold']}-{i}" for i in range(len(observed))]}
        for i, target in enumerate(names):
            columns[f"observed_{target}"] = observed[:, i]
            columns[f"predicted_{target}"] = predicted[:, i]
        polars.DataFrame(columns).write_parquet(out / "cells" / cell / "predictions.parquet")


def _costs(out, encoders, stages):
    for i, encoder in enumerate(encoders):
        for stage in range(1, stages + 1):
            cost = _cost(2.0**i * 20_000 * stage**1.5)
            write(out / "costs" / f"{encoder}-{stage}.json", cost)
        write(out / "costs" / f"{encoder}-all.json", cost)


def _cost(macs):
    return {
        "parameters": int(3 * macs), "macs_per_base": int(macs), "bases": 281, "latency_1_ms": 0.4 + macs / 30_000,
        "latency_32_ms": macs / 60_000, "peak_mb": 40 + macs / 9000,
        "quartiles": {"latency_1_ms": [0.3 + macs / 30_000, 0.6 + macs / 30_000]}, "threads": 1, "device": "cpu",
    }  # fmt: skip


def _similarity(out, stages, encoders):
    names = [f"{e} stage{i + 1}" for e in encoders for i in range(stages)]
    place = np.array([[e * 2.5, i] for e in range(len(encoders)) for i in range(stages)])
    matrix = np.exp(-np.abs(place[:, None] - place[None]).sum(-1) / 3)
    for name, rows in (("stages", stages), ("architectures", len(names))):
        write(
            out / "similarity" / f"{name}.json",
            {
                "title": f"Linear CKA, {name}", "rows": names[:rows], "columns": names[:rows],
                "matrix": [[None if r == c == 0 else float(v) for c, v in enumerate(line)] for r, line in enumerate(matrix[:rows, :rows])],
                "sequences": 512, "about": "unbiased, pooled over positions",
            },
        )  # fmt: skip
