"""How often a 95 % interval of the difference of two equal methods leaves out zero: `python -m benchmarks.intervals`.

Each study is one data set of its own. Its targets are linear in two sets of features that matter equally much, with
noise; a method is ridge on one of them, so that neither is better than the other in expectation. Some of ten folds are
held out in turn, one validates, the others train, so training sets overlap. With several seeds a method sees a random
projection of its features: another in each fold, or (`shared`) one for all folds.

The intervals: of held-out rows alone; of the folds' means, Student's t with Nadeau and Bengio's correction; and of
rows, folds and seeds, as `agblocks.studies.statistics` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agblocks.studies.statistics import Unit
from agblocks.studies.statistics.family import half_width
from agblocks.studies.statistics.tables import lay

FOLDS, WIDTH, STUDIES = 10, 60, 400


@dataclass(frozen=True)
class Setting:
    rows: int
    held: int
    seeds: int
    shared: bool = False

    def __str__(self) -> str:
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds, {'shared' if self.shared else 'each its own'}"
        return f"{self.rows} rows, {self.held} folds, {seeds}"


SETTINGS = (
    Setting(1000, 3, 1), Setting(1000, 10, 1), Setting(1000, 3, 3), Setting(600, 5, 3), Setting(1000, 3, 3, True),
    Setting(600, 5, 3, True), Setting(600, 10, 3, True), Setting(3000, 3, 3, True), Setting(3000, 10, 3, True),
)  # fmt: skip


def study(rng: np.random.Generator, setting: Setting) -> dict[str, list[Unit]]:
    """Two equal methods on one data set."""
    x = rng.normal(size=(2, setting.rows, WIDTH))
    weights = rng.normal(size=(2, WIDTH))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    y = np.einsum("gnp,gp->n", x, weights) + rng.normal(size=setting.rows)
    fold = np.arange(setting.rows) % FOLDS
    shared = [[_projection(rng) for _ in range(setting.seeds)] for _ in range(2)]
    found: dict[str, list[Unit]] = {"one": [], "other": []}
    for group, units in enumerate(found.values()):
        for f in range(setting.held):
            test, train = fold == f, (fold != f) & (fold != (f + 1) % FOLDS)
            for s in range(setting.seeds):
                drawn = shared[group][s] if setting.shared else _projection(rng)
                seen = x[group] @ drawn if setting.seeds > 1 else x[group]
                t = seen[train]
                fitted = np.linalg.solve(t.T @ t + 20 * np.eye(t.shape[1]), t.T @ (y[train] - y[train].mean()))
                ids = [str(i) for i in np.flatnonzero(test)]
                units.append(Unit(str(f), str(s), ids, y[test], seen[test] @ fitted))
    return found


def _projection(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(WIDTH, WIDTH // 2)))[0]


def left_out(setting: Setting, studies: int, seed: int) -> list[float]:
    """How many of 100 intervals of each kind leave out zero."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(3)
    for _ in range(studies):
        table = lay(study(rng, setting), [("one", "other")], "pearson", 400, seed)[0]
        found, mean = table.spread(), abs(table.mean())
        by_rows = half_width(found.rows**0.5, found.freedom * 1e6, 0.95)
        corrected = found.folds * (1 + setting.held / (FOLDS - 2))
        by_folds = half_width(corrected**0.5, setting.held - 1, 0.95)
        wrong += mean > np.array([by_rows, by_folds, half_width(found.error, found.freedom, 0.95)])
    return (100 * wrong / studies).tolist()


def main() -> None:
    print(f"of 100 intervals leave out zero ({STUDIES} studies): rows | folds | rows, folds and seeds")
    for setting in SETTINGS:
        found = left_out(setting, STUDIES, 0)
        print(f"{setting!s:44}" + "".join(f"{v:8.1f}" for v in found), flush=True)


if __name__ == "__main__":
    main()
