"""The demonstration: the shipped small model against k-mer ridge, on rows neither has seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..data import PUBLIC, DataError, Table
from .baseline.ridge import fit_ridge
from .errors import RunError
from .fit import fit
from .presets import PRESETS
from .scores.evaluate import BOOTSTRAP, evaluate
from .scores.metrics import Score, score
from .sources import SIMULATED, Source, read_construct, read_data, split
from .write import write_whole

REAL = "human_lentimpra_3k"


@dataclass(frozen=True)
class Demo:
    """Scores on the held-out fold by method, and where the rows came from."""

    title: str
    test_fold: str
    scores: Mapping[str, tuple[Score, ...]]
    seconds: float


def demo(out: str | Path, data: str = "auto", *, resume: bool = False, say: Callable[[str], None] = print) -> Demo:
    """Train `mpra_small` with its preset, fit ridge on the same rows, score both on the same held-out fold.

    data: "auto" takes the lentiMPRA sample where it can be had (the folder AGBLOCKS_DATA, pooch's cache, a download)
        and the simulated assay otherwise, and says which. A finished demo is trained anew unless `resume`.
    Costs: under four minutes on two cores.
    """
    begun = time.monotonic()
    if data not in ("auto", REAL, SIMULATED):
        raise RunError(f"--data {data}: wanted auto, {REAL} or {SIMULATED}")
    chosen = PRESETS["mpra_small"]
    source, table, title = _rows(data, say)
    settings, around = chosen.settings, read_construct(chosen.construct if source.data == (REAL,) else "none")
    splits = split(source, table)
    say(f"{title}: {len(splits.train):,} rows train, {len(splits.valid)} validate, {len(splits.test)} are held out")
    run = fit(
        chosen.recipe, table, splits, out, settings, construct=around, source=source.to_dict(),
        id_suffix=source.id_suffix, resume=resume, overwrite=not resume, progress=True,
    )  # fmt: skip
    ridge = fit_ridge(table, splits, construct=around)
    observed = table.targets[splits.test]
    scores = {
        f"{chosen.recipe}": evaluate(run, table, splits.test).scores,
        f"ridge, {ridge.k}-mers": tuple(
            score(ridge.predict(table.take(splits.test)), observed, table.target_names, bootstrap=BOOTSTRAP)
        ),
    }
    made = Demo(title, source.test_folds[0], scores, time.monotonic() - begun)
    _write(Path(out), made)
    return made


def _rows(data: str, say: Callable[[str], None]) -> tuple[Source, Table, str]:
    if data != SIMULATED:
        source = Source((REAL,))
        try:
            return source, read_data(source), PUBLIC[REAL].title
        except DataError as error:
            if data == REAL:
                raise
            say(f"the lentiMPRA sample cannot be had, so the demo takes the simulated assay ({error})")
    source = Source((SIMULATED,))
    return source, read_data(source), "simulated MPRA: 3,000 sequences with planted motifs"


def _write(folder: Path, made: Demo) -> None:
    from .scores.plots import bars

    labels = [s.target for s in next(iter(made.scores.values()))]
    bars(
        folder / "comparison.png", labels, {name: [s.pearson for s in scores] for name, scores in made.scores.items()},
        f"Pearson r, held-out fold {made.test_fold}",
    )  # fmt: skip
    content = {
        "data": made.title,
        "test_fold": made.test_fold,
        "scores": {name: [s.to_dict() for s in scores] for name, scores in made.scores.items()},
    }
    write_whole(folder / "demo.json", (json.dumps(content, indent=1) + "\n").encode())
