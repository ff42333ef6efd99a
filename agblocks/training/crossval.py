"""Cross-validation over folds, beside a k-mer ridge on the same rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Construct, DataError, Table, split_by_fold
from .adapting import Specs
from .baseline.ridge import fit_ridge
from .errors import RunError
from .fit import fit
from .parallel.processes import is_first
from .scores.evaluate import BOOTSTRAP, evaluate
from .scores.metrics import Score, score
from .seen import check_seen
from .settings import Settings
from .tuning.loads import Load
from .tuning.transfer import Transfer, said_once
from .write import write_whole

MODEL, RIDGE = "model", "ridge"


@dataclass(frozen=True)
class Fold:
    """Scores on one held-out fold: of the model and of ridge, one a target."""

    test: str
    valid: str
    scores: Mapping[str, tuple[Score, ...]]


@dataclass(frozen=True)
class CrossValidation:
    """Scores of all folds; and of all held-out rows pooled, with bootstrap intervals."""

    folds: tuple[Fold, ...]
    pooled: Mapping[str, tuple[Score, ...]]
    targets: tuple[str, ...]

    def pearson(self, what: str, target: int = 0) -> list[float]:
        """Pearson of each fold."""
        return [fold.scores[what][target].pearson for fold in self.folds if what in fold.scores]

    def summary(self) -> list[dict[str, Any]]:
        """One mapping for each target and method: mean, spread over folds, pooled; and folds won against ridge."""
        rows = []
        for i, target in enumerate(self.targets):
            base = self.pearson(RIDGE, i)
            for what, pooled in self.pooled.items():
                values = np.array(self.pearson(what, i))
                row: dict[str, Any] = {
                    "target": target, "method": what, "mean": _number(values.mean()),
                    "sd": _number(values.std(ddof=1)) if len(values) > 1 else None,
                    "least": _number(values.min()), "most": _number(values.max()), "pooled": pooled[i].to_dict(),
                }  # fmt: skip
                if what != RIDGE and base:
                    difference = values - np.array(base)
                    row["over_ridge"] = _number(difference.mean())
                    row["over_ridge_sd"] = _number(difference.std(ddof=1)) if len(values) > 1 else None
                    row["folds_won"] = int((difference > 0).sum())
                rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        folds = [
            {"test": f.test, "valid": f.valid, **{w: [s.to_dict() for s in ss] for w, ss in f.scores.items()}}
            for f in self.folds
        ]
        return {"summary": self.summary(), "folds": folds}


def crossval(
    recipe: str | Path | Mapping[str, Any],
    table: Table,
    out: str | Path,
    settings: Settings | None = None,
    *,
    overrides: Sequence[str] = (),
    construct: Construct | None = None,
    heads: Mapping[str, Sequence[str]] | None = None,
    inputs: Mapping[str, int] | None = None,
    transfer: Transfer | Mapping[str, Any] | None = None,
    weights: Any = None,
    weights_into: str | Sequence[str] | None = None,
    adapters: Specs | None = None,
    id_suffix: str | None = None,
    only: Sequence[str] | None = None,
    kmer: int = 6,
    overwrite: bool = False,
    progress: bool = False,
    told: Callable[[Fold], None] | None = None,
    planned: Callable[[str], None] | None = None,
) -> CrossValidation:
    """Each fold in turn is held out for test, the next one for validation, the rest trains.

    Every fold is a run folder (`fold-<name>`) that is skipped when finished and taken up where it stands when not.
    Ridge on `kmer`-mers (0: none) sees the same training rows and chooses its alpha on the same validation rows.
    transfer, weights, weights_into: where every fold's training starts (see `fit`); weights must not have seen the test
        rows. adapters: as `fit` takes them.
    only: these test folds instead of all. told: called with each fold's scores as they come. planned: called before
        the first fold trains with what `fit` tells, which holds for all of them.
    Writes crossval.json, crossval.tsv and crossval.png.
    Errors: as `fit`; `RunError` without folds.
    """
    if table.fold is None:
        raise RunError("cross-validation needs folds: name the column, or deal them with data.fold_groups")
    names = sorted(set(table.fold.tolist()), key=lambda f: (len(f), f))
    chosen = names if only is None else [str(f) for f in only]
    if unknown := [f for f in chosen if f not in names]:
        raise RunError(f"there is no fold {unknown[0]!r}; there are {', '.join(names)}")
    if len(names) < 3:
        raise RunError(f"there are {len(names)} folds; wanted at least 3: one each for test, validation and training")
    loads = said_once(transfer, settings or Settings(), weights, weights_into, adapters)[1]
    _check_seen(loads, table, chosen, construct or Construct())
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    first = is_first(settings or Settings())  # of several processes that a cluster started
    folds: list[Fold] = []
    held: dict[str, list[Any]] = {}
    for name in chosen:
        valid = names[(names.index(name) + 1) % len(names)]
        splits = split_by_fold(table, valid=valid, test=name)
        run = fit(
            recipe, table, splits, folder / f"fold-{name}", settings, overrides=overrides, construct=construct,
            heads=heads, inputs=inputs, transfer=transfer, weights=weights, weights_into=weights_into,
            adapters=adapters, id_suffix=id_suffix, resume=not overwrite, overwrite=overwrite, progress=progress,
            told=None if folds else planned,
        )  # fmt: skip
        made = evaluate(run, table, splits.test)
        predicted = {MODEL: made.predicted}
        if kmer:
            ridge = fit_ridge(table, splits, k=kmer, construct=construct)
            predicted[RIDGE] = ridge.predict(table.take(splits.test))
        observed = table.targets[splits.test]
        scores = {
            what: tuple(score(values, observed, table.target_names, bootstrap=BOOTSTRAP))
            for what, values in predicted.items()
        }
        folds.append(Fold(name, valid, scores))
        for what, values in {**predicted, "observed": observed}.items():
            held.setdefault(what, []).append(values)
        if told is not None and first:
            told(folds[-1])
    pooled = {
        what: tuple(
            score(np.concatenate(held[what]), np.concatenate(held["observed"]), table.target_names, bootstrap=BOOTSTRAP)
        )
        for what in held
        if what != "observed"
    }
    found = CrossValidation(tuple(folds), pooled, table.target_names)
    if first:
        _write(folder, found)
    return found


def _check_seen(loads: Sequence[Load], table: Table, folds: Sequence[str], construct: Construct) -> None:
    """Before any fold trains: weights must not have seen its rows. Errors: `DataError` with the folds that would do."""
    assert table.fold is not None
    problems: dict[str, str] = {}
    for name in folds:
        try:
            check_seen(loads, table, np.flatnonzero(table.fold == name), construct)
        except DataError as error:
            problems[name] = str(error)
    if problems:
        first, said = next(iter(problems.items()))
        left = [name for name in folds if name not in problems]
        would = f"; --only {','.join(left)} would do" if left else ""
        raise DataError(f"fold {first}: {said} ({len(problems)} of {len(folds)} folds{would})")


def _write(folder: Path, found: CrossValidation) -> None:
    from .scores.plots import bars

    write_whole(folder / "crossval.json", (json.dumps(found.to_dict(), indent=1) + "\n").encode())
    text = io.StringIO()
    print("test_fold", "valid_fold", "target", "method", "n", "pearson", "spearman", "mse", sep="\t", file=text)
    for fold in found.folds:
        for what, scores in fold.scores.items():
            for s in scores:
                print(
                    fold.test, fold.valid, s.target, what, s.n, *(f"{v:.5f}" for v in (s.pearson, s.spearman, s.mse)),
                    sep="\t", file=text,
                )  # fmt: skip
    write_whole(folder / "crossval.tsv", text.getvalue().encode())
    series = {what: found.pearson(what) for what in found.pooled}
    bars(folder / "crossval.png", [fold.test for fold in found.folds], series, f"test Pearson r, {found.targets[0]}")


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
