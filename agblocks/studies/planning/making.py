"""From the values of a cell to the cell: recipe resolved, rows read, weights found, everything checked but not run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data import Splits, check_leaks
from ...data.augment import check_augment
from ...errors import AgblocksError, near
from ...graph.resolved import Resolved
from ...training.presets import preset
from ...training.seen import seen
from ...training.settings import CAME_LATER, Settings
from ...training.sources import stripping
from ...training.wiring import Wiring, check_fits, model_inputs, wire
from ..cost.costing import cost_name
from ..errors import WorkError
from ..features.pool import check_pool
from ..file.form import DEFAULTS, EACH, OF_EACH
from ..file.study import Study
from . import models
from .cell import FORM, Cell, digest
from .rows import Rows, described, parts, read_rows
from .starting import Start, redrawing, started, tuning

# How a training is run, not what comes out of it.
_NOT_SAID = ("device", "devices", "nodes", "strategy", "seed", "tune", "unfreeze", "reinit", "rates")


@dataclass
class Maker:
    """Makes the cells of one study; what several share is worked out once.

    Errors: of `cell`: `AgblocksError` of every kind that recipes, rows, settings and weights have.
    """

    study: Study
    scored: bool = True  # whether something is held out, which weights must not have seen
    trained: dict[str, Cell] = field(default_factory=dict)  # pretrained models, by id
    _pretrained: dict[str, Cell] = field(default_factory=dict)
    _used: dict[str, frozenset[str]] = field(default_factory=dict)
    _checked: set[Any] = field(default_factory=set)
    _unread: dict[str, AgblocksError] = field(default_factory=dict)  # rows that can't be had, and why

    def cell(self, values: Mapping[str, Any]) -> Cell:
        """The cell of these values, by path."""
        values = {**DEFAULTS, **{path: value for path, value in values.items() if value is not None}}
        rows, spec = self._rows(values)
        test, valid = self._folds(values, rows)
        document: dict[str, Any] = {
            "form": FORM, "fit": values["fit"], "data": rows.sha256, "construct": rows.construct.to_dict(),
            "test": test, "valid": valid, "rows": values["rows"],
        }  # fmt: skip
        given: dict[str, Any] = {"data": spec}
        splits = parts(rows, test, valid, values["rows"], values["seed"])
        self._check_rows(rows, splits)
        if values["rows"] != "all":
            document["drawn"] = values["seed"]
        if values["fit"] == "kmer":
            document["kmer"] = values["kmer"]
            share = digest(["kmer", rows.key, values["kmer"]])
            return Cell(document, given, share=share)
        return self._with_model(values, rows, splits, document, given)

    def _with_model(
        self, values: Mapping[str, Any], rows: Rows, splits: Splits, document: dict[str, Any], given: dict[str, Any]
    ) -> Cell:
        if "recipe" not in values:
            raise WorkError("there is no recipe: say cell.recipe")
        resolved = models.whole(values["recipe"], under(values, "set"), self.study.folder)
        inputs, head = under(values, "inputs"), under(values, "head")
        tap = values.get("tap")
        probe = values["fit"] == "ridge"
        if probe:
            tap = tap or models.read_edge(resolved)
            if tap is None:
                raise WorkError("a probe reads one edge: say which (tap)")
            made = models.tapped(resolved, (tap,))
            edges: tuple[str, ...] = (tap,)
            model_inputs(made, inputs)
        else:
            length = rows.lengths[0] if len(rows.lengths) == 1 else None
            made = models.headed(resolved, tap, head, len(rows.table.target_names), length)
            edges = tuple(made.heads)
            wiring = wire(made, rows.table.target_names, None, inputs)
            self._check_lengths(made, wiring, rows)
        settings = self.settings(values)
        transfer = under(values, "transfer")
        sources = transfer.pop("weights", None)
        start = started(sources, made, edges, self, values) if sources not in (None, []) else Start()
        self._check_seen(start, rows, splits)
        document["nodes"] = models.node_digests(made, edges)
        if inputs:
            document["inputs"] = inputs
        if start.said:
            document["weights"] = start.said
        given |= {"recipe": resolved.recipe if probe else made.recipe, "weights": start.found}
        if probe and tap is not None:
            pool = {key: head[key] for key in ("pool", "window") if key in head}
            given["tap"] = tap
            document["tap"] = made.info(tap).digest[:16]
            document["pool"] = {"pool": "mean", **pool}
            check_pool(document["pool"]["pool"], tap, made.info(tap))
            if document["pool"]["pool"] == "flatten" and len(rows.lengths) > 1:
                raise WorkError("head.pool is flatten, but the sequences have several lengths; mean or max pool any")
            if start.said and (redrawn := redrawing(transfer, made)):
                document["reinit"] = redrawn
            if not start.all or "reinit" in document:
                document["seed"] = values["seed"]
            model = {key: document.get(key) for key in ("weights", "reinit", "seed", "inputs", "data", "construct")}
            given |= {"bases": rows.lengths[-1], "cost": cost_name(made, edges, rows.lengths[-1])}
            share = digest([{**resolved.recipe, "name": ""}, model])
            return Cell(document, given, start.needs, share)
        around = rows.construct
        check_augment(settings.augment, around.flank_left, around.flank_right, padded=around.pad != "none")
        tuned = tuning(transfer, made, settings)
        document |= {"recipe": made.digest[:16], "seed": values["seed"], "training": said(settings), **tuned.said}
        given |= {"settings": settings.to_dict(), "transfer": tuned.found, "parameters": tuned.parameters}
        cost = cost_name(made, edges, rows.lengths[-1], tuned.found.get("adapters"))
        given |= {"bases": rows.lengths[-1], "cost": cost}
        if "weights" in self.study.keep:
            given["keep"] = True
        return Cell(document, given, start.needs, "")

    def pretrained(self, name: str, values: Mapping[str, Any]) -> Cell | None:
        """The cell that trains a model of `pretrain:`, for a cell of these values; None where it has weights only."""
        if name not in self.study.pretrain:
            return None
        own: dict[str, Any] = {path: tree.plain() for path, tree in self.study.pretrain[name].items()}
        if set(own) <= {"transfer.weights"}:
            return None
        if own.get("recipe") == EACH:
            own = {**{path: value for path, value in values.items() if path.startswith("set.")}, **own}
        for path in OF_EACH:
            if own.get(path) == EACH:
                own[path] = values.get(path, DEFAULTS.get(path))
        key = digest([name, own])
        if key not in self._pretrained:
            cell = self.cell({"fit": "gradient", **own})
            self.trained[cell.id] = self._pretrained[key] = replace(cell, given={**cell.given, "keep": True})
        return self._pretrained[key]

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """`training:` as `Settings`, with the cell's seed."""
        chosen = under(values, "training")
        base = preset(chosen.pop("preset")).settings if "preset" in chosen else Settings()
        return replace(base, **chosen, seed=values["seed"])

    def _rows(self, values: Mapping[str, Any]) -> tuple[Rows, dict[str, Any]]:
        name = values.get("data")
        if name is None:
            raise WorkError("there are no rows: say cell.data")
        if name not in self.study.data:
            raise WorkError(f"there are no rows called {name!r}; {near(str(name), self.study.data)}")
        if name in self._unread:
            raise self._unread[name]
        spec = described({k: t.plain() for k, t in self.study.data[name].items()}, self.study.folder)
        try:
            return read_rows(spec), spec
        except AgblocksError as error:
            self._unread[name] = error  # told of every cell, looked for once
            raise

    def _folds(self, values: Mapping[str, Any], rows: Rows) -> tuple[list[str], list[str]]:
        """Names of the test folds, and of the validation folds: by default the one after the last test fold."""
        names = rows.folds
        if "fold" not in values:
            raise WorkError(f"say which fold is held out (cell.fold); there are {', '.join(names)}")
        test = listed(values["fold"])
        valid = listed(values["valid_fold"]) if "valid_fold" in values else []
        if not valid and test[-1] in names:
            rest = [name for name in names if name not in test]
            after = [name for name in names[names.index(test[-1]) + 1 :] if name in rest]
            valid = (after or rest)[:1]
        return test, valid

    def _once(self, *key: Any) -> bool:
        """Whether something is to be checked for the first time."""
        new = key not in self._checked
        self._checked.add(key)
        return new

    def _check_rows(self, rows: Rows, splits: Splits) -> None:
        if self._once("leaks", rows.key, *(part.tobytes() for part in splits.parts().values())):
            check_leaks(rows.table, splits.parts(), construct=stripping(rows.construct), id_suffix=rows.id_suffix)

    def _check_lengths(self, resolved: Resolved, wiring: Wiring, rows: Rows) -> None:
        if self._once("lengths", resolved.digest, rows.lengths):
            check_fits(resolved, wiring, rows.table, np.arange(len(rows.table)), rows.construct)

    def _check_seen(self, start: Start, rows: Rows, splits: Splits) -> None:
        """Weights must not have seen the rows that are held out, neither in training nor in choosing an epoch."""
        held, many = splits.test, len(splits.test)
        if not self.scored or not self._once("seen", start.needs, start.folders, rows.key, held.tobytes()):
            return
        for folder in start.folders:
            if n := int(seen(folder, rows.table.take(held), rows.construct).sum()):
                self._checked.clear()  # told of every cell that it is true of
                raise WorkError(f"the weights of {folder} were trained on {n} of the {many} rows held out here")
        before = [self.trained[need] for need in start.needs]
        while before:
            cell = before.pop()
            if n := len(self._inserts(cell).intersection(rows.inserts[held].tolist())):
                self._checked.clear()
                raise WorkError(
                    f"a model that it starts from is trained on {n} of the {many} sequences that are held out here; "
                    "give that model the same fold (fold: each)"
                )
            before += [self.trained[need] for need in cell.needs]

    def _inserts(self, cell: Cell) -> frozenset[str]:
        """What a pretrained model is trained and validated on."""
        if cell.id not in self._used:
            rows, said = read_rows(cell.given["data"]), cell.document
            splits = parts(rows, said["test"], said["valid"], said["rows"], said.get("drawn", 0))
            used = np.concatenate([splits.train, splits.valid])
            self._used[cell.id] = frozenset(rows.inserts[used].tolist())
        return self._used[cell.id]


def under(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """What a cell says in a section: `training.lr` as `lr`."""
    prefix = f"{section}."
    return {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}


def listed(value: Any) -> list[str]:
    """A fold or several as a list of names."""
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def said(settings: Settings) -> dict[str, Any]:
    """Of the settings, what a result depends on: what differs from what was always done."""
    values = settings.to_dict()
    usual = {**{f.name: f.default for f in fields(Settings)}, **CAME_LATER}
    return {k: v for k, v in values.items() if k not in _NOT_SAID and not (k in CAME_LATER and v == usual[k])}


def file_sum(path: Path) -> str:
    """sha256 of a file."""
    held = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            held.update(block)
    return held.hexdigest()
