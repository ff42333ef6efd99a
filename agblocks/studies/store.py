"""The folder of a study: every file whole or absent, so that what is there was finished."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import held
from ..training.write import write_whole
from .errors import WorkError
from .features.store import Store as Features
from .planning.cell import Cell

FEATURES = "features.json"
MOST_FEATURES = 20_000_000_000  # bytes
PLAN, CELL, RESULT, FAILED, PREDICTIONS, RUN = (
    "plan.json", "cell.json", "result.json", "failed.json", "predictions.parquet", "run",
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """Test rows as a cell predicts them. Shapes: ids (rows), observed and predicted (rows, targets)."""

    ids: Sequence[str]
    names: tuple[str, ...]
    observed: NDArray[Any]
    predicted: NDArray[Any]

    def parquet(self) -> bytes:
        """Columns id, observed_<target>, predicted_<target>; a missing measurement is null."""
        import polars as pl

        columns: dict[str, Any] = {"id": list(self.ids)}
        for i, name in enumerate(self.names):
            columns[f"observed_{name}"] = pl.Series(self.observed[:, i].astype(np.float64)).fill_nan(None)
            columns[f"predicted_{name}"] = self.predicted[:, i].astype(np.float64)
        held = io.BytesIO()
        pl.DataFrame(columns).write_parquet(held)
        return held.getvalue()


class Store:
    """What has been done in a folder, and who is doing what.

    A claim is a lock that the system lets go of when its process ends, however it ends. Errors: `WorkError` for a
    folder that cannot be made or holds something else.
    """

    def __init__(self, out: str | Path):
        self.out = Path(out)

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Make the folder, and write the plan over an older one."""
        try:
            if self.out.exists() and not (self.out / PLAN).exists() and any(self.out.iterdir()):
                raise WorkError(f"{self.out}: a folder with other things in it; wanted an empty or a new one")
            (self.out / "cells").mkdir(parents=True, exist_ok=True)
            (self.out / "claims").mkdir(exist_ok=True)
            write_whole(self.out / PLAN, _json(plan))
        except OSError as error:
            raise WorkError(f"{self.out}: cannot be made: {error.strerror}") from None

    def keep_features(self, folder: str | Path | None, most: int | None) -> None:
        """Say where features of frozen models are kept (default: in the study's folder), and how many bytes at most."""
        where = "" if folder is None else str(Path(folder).absolute())
        write_whole(self.out / FEATURES, _json({"folder": where, "most": most}))

    @property
    def features(self) -> Features:
        """The cache of features, as `keep_features` said; every process of a study sees the same."""
        try:
            said = json.loads((self.out / FEATURES).read_text(encoding="utf-8"))
            folder, most = said["folder"], said["most"]
        except (OSError, ValueError, KeyError, TypeError):
            folder, most = "", MOST_FEATURES
        return Features(folder or self.out / "features", most)

    def folder(self, cell: str) -> Path:
        return self.out / "cells" / cell

    def result(self, cell: str) -> dict[str, Any] | None:
        """What a finished cell wrote; None while it is not finished."""
        return _read(self.folder(cell) / RESULT, cell)

    def failed(self, cell: str) -> dict[str, Any] | None:
        """Why a cell failed, if it did and has not been done since."""
        return None if self.result(cell) is not None else _read(self.folder(cell) / FAILED, cell)

    def weights(self, cell: str) -> Path:
        """The run of a finished cell whose weights are kept. Errors: `WorkError` where it is not there."""
        from ..training.run import FILE

        path = self.folder(cell) / RUN
        if not (path / FILE).is_file():
            raise WorkError(f"{path}: the weights of cell {cell} are not there")
        return path

    def done(self, cell: Cell) -> bool:
        """Whether a cell is finished, its weights still there if they are to be kept."""
        from ..training.run import FILE

        if self.result(cell.id) is None:
            return False
        return not cell.given.get("keep") or (self.folder(cell.id) / RUN / FILE).is_file()

    def write(self, cell: Cell, result: Mapping[str, Any], predictions: Predictions | None) -> None:
        """A finished cell; the result is written last."""
        folder = self.folder(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        if predictions is not None:
            write_whole(folder / PREDICTIONS, predictions.parquet())
        write_whole(folder / CELL, _json(cell.to_dict()))
        write_whole(folder / RESULT, _json(result))
        (folder / FAILED).unlink(missing_ok=True)
        if not cell.given.get("keep"):
            shutil.rmtree(folder / RUN, ignore_errors=True)

    def write_failed(self, cell: Cell, failed: Mapping[str, Any]) -> None:
        folder = self.folder(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CELL, _json(cell.to_dict()))
        write_whole(folder / FAILED, _json(failed))

    def forget_failure(self, cell: str) -> None:
        (self.folder(cell) / FAILED).unlink(missing_ok=True)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Whether this process may do a piece of work; nobody else may while it does.

        Errors: `WorkError` where the folder's file system can't be written to, or knows no locks.
        """
        lock = self.out / "claims" / name
        with ExitStack() as stack:
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                mine = stack.enter_context(held(lock))
            except OSError as error:
                raise WorkError(f"{lock}: cannot be written and locked: {error.strerror}") from None
            yield mine


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def _read(path: Path, cell: str) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("cell") == cell else None
