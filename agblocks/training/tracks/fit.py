"""Fit a recipe to tracks along a genome, into a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data import Construct, Splits
from ...data.tracks import GenomeTracks, Windows, separate
from ...graph.model import GraphModel
from ...graph.resolve import Resolved, resolve
from ..adapting import Specs, tuned, with_adapters
from ..errors import RunError
from ..run import Model, Run
from ..settings import Settings
from ..tuning.initial import Initial
from ..tuning.transfer import Transfer, as_transfer, said_once
from ..work import Work, carry_out
from ..write import write_whole
from .evaluate import evaluate_windows
from .ridge import RidgeOnBins, fit_bins
from .source import GenomeSource
from .wiring import TrackWiring, wire_tracks

if TYPE_CHECKING:
    from ..keeper import Keeper

KMER = 4
COUNTS = ("head.tracks", "head.coverage")  # their losses are of counts


def fit_tracks(
    recipe: str | Path | Mapping[str, Any] | Resolved,
    source: GenomeSource,
    out: str | Path,
    settings: Settings | None = None,
    *,
    overrides: Sequence[str] = (),
    heads: Mapping[str, Sequence[str]] | None = None,
    inputs: Mapping[str, int] | None = None,
    transfer: Transfer | Mapping[str, Any] | None = None,
    weights: Any = None,
    weights_into: str | Sequence[str] | None = None,
    adapters: Specs | None = None,
    kmer: int = KMER,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    told: Callable[[str], None] | None = None,
) -> Run:
    """Train a recipe's model on windows of a genome, keep the best epoch by the validation ones, score the test ones.

    recipe, overrides, transfer, weights, weights_into, adapters, resume, overwrite: as `fit`. source: the genome, its
    tracks, windows, and which are held out. Windows that would show in training what is held out are left out, and
    counted (`data.tracks.separate`, with the receptive field of the heads and the shift of the settings).
    heads, inputs: as `wire_tracks`.
    settings: of them `shift` moves a window along the genome, its targets with it; `reverse_complement` shows the other
        strand, with bins backwards and paired tracks swapped; `standardise` divides targets by their track's mean over
        the training windows, for heads that have no scale of their own (AlphaGenome's take the means as `track_means`).
        `shift_mode` and `shift_scope` have no meaning here.
    kmer: a ridge on counts of k-mers around each bin is fitted to the same windows and scored beside; 0 for none.
    out: the run folder, as `fit` leaves it, with windows.tsv in place of rows.tsv and no predictions.tsv. metrics.json
        has for "valid" and "test" scores by track and across tracks, for "ridge" those of the ridge.

    Errors: `RunError`, `DataError` and `RecipeError` as `fit`; for windows, tracks and heads that don't go together.
    Use when: from Python; `agblocks tracks fit` is the command.
    """
    settings, loads, adapters = said_once(transfer, settings or Settings(), weights, weights_into, adapters)
    resolved = recipe if isinstance(recipe, Resolved) and not overrides else resolve(
        recipe.recipe if isinstance(recipe, Resolved) else recipe, *overrides
    )  # fmt: skip
    resolved = with_adapters(resolved, adapters)
    if transfer is not None:
        as_transfer(transfer).check(resolved)
    settings = tuned(settings, resolved)
    source = source.absolute()
    data = source.data()
    windows = source.windows(data.genome)
    wiring = wire_tracks(resolved, data.tracks, windows.length, heads, inputs)
    if settings.strands == "both":
        wiring.check_strands()
    splits, dropped = separate(windows, source.labels(windows), wiring.sight(resolved, settings.shift))
    if not len(splits.valid) and any(step.latest is None for step in settings.tuning.plateaus):
        raise RunError("unfreeze: a plateau of the validation score needs validation windows, and there are none")
    counts = any(resolved.nodes[head].entry.name in COUNTS for head in resolved.heads)
    wiring = wiring.with_means(data.means(windows, splits.train, counts=counts), settings.standardise)
    work = OnTracks(data, windows, splits, wiring, source, len(dropped), kmer)
    if told is not None:
        told(work.said)
    return carry_out(
        work, resolved, Path(out), settings, Initial(resolved, loads), resume=resume, overwrite=overwrite,
        progress=progress, told=told,
    )  # fmt: skip


class OnTracks(Work):
    """Training on windows of a genome."""

    wiring: TrackWiring

    def __init__(
        self,
        data: GenomeTracks,
        windows: Windows,
        splits: Splits,
        wiring: TrackWiring,
        source: GenomeSource,
        dropped: int,
        kmer: int,
    ):
        self.tracks, self.windows, self.splits, self.wiring = data, windows, splits, wiring
        self.source, self.dropped, self.kmer = source, dropped, kmer
        self.construct = Construct()

    @property
    def said(self) -> str:
        """How many windows there are of each part, and what is missing."""
        parts = ", ".join(f"{len(rows)} {part}" for part, rows in self.splits.parts().items())
        lines = [
            f"windows of {self.windows.length:,} bases: {parts}; {self.dropped} left out, too close to held-out ones"
        ]
        if self.windows.dropped:
            lines.append(f"{self.windows.dropped} windows pass a chromosome's end and are left out")
        lines += [f"{name}: no values on {', '.join(gone[:5])}" for name, gone in self.tracks.missing.items()]
        return "\n".join(lines)

    def ready(self, model: GraphModel) -> None:
        self.wiring.ready(model)

    def start(self) -> dict[str, Any]:
        layouts = [layout.layout for layout in self.wiring.layouts]
        parts = self.splits.parts().items()
        return {
            "windows": {p: self.tracks.fingerprint(self.windows, layouts, rows) for p, rows in parts},
            "kmer": self.kmer,
        }

    def note(self, folder: Path) -> None:
        lines = ["part\tchromosome\tstart\tstop"]
        for part, rows in self.splits.parts().items():
            for row in rows.tolist():
                start = int(self.windows.start[row])
                name = self.windows.names[self.windows.chromosome[row]]
                lines.append(f"{part}\t{name}\t{start}\t{start + self.windows.length}")
        write_whole(folder / "windows.tsv", ("\n".join(lines) + "\n").encode())

    def train(self, model: Model, settings: Settings, checkpoint: Path, logs: Path, progress: bool) -> Keeper:
        from ..train import run_training
        from .module import TrackBatches, TrackFitting

        def made() -> tuple[TrackBatches, TrackFitting]:
            batches = TrackBatches(self.tracks, self.windows, self.splits, self.wiring, settings, settings.seed)
            steps = settings.epochs * len(batches.train)
            return batches, TrackFitting(model, self.wiring, settings, steps, settings.seed)

        return run_training(made, settings, checkpoint, logs, progress)

    def data(self) -> dict[str, Any]:
        rows = {part: len(rows) for part, rows in self.splits.parts().items()}
        tracks = [
            {**track.to_dict(), "mean": mean} for track, mean in zip(self.tracks.tracks, self._means(), strict=True)
        ]
        return {"genome": self.source.to_dict(), "tracks": tracks, "rows": {**rows, "left_out": self.dropped}}

    def score(self, run: Run, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in ("valid", "test"):
            rows = self.splits.parts()[part]
            if len(rows):
                made = evaluate_windows(
                    run.models, self.wiring, self.tracks, self.windows, rows, run.settings, part=part
                )  # fmt: skip
                found[part] = made.to_dict()
        if self.kmer and len(self.splits.valid) and len(self.splits.test):
            found["ridge"] = self.ridge().evaluate(self.splits.test).to_dict()
        write_whole(folder / "scores.json", (json.dumps(found, indent=1) + "\n").encode())
        return found

    def ridge(self) -> RidgeOnBins:
        """The baseline on the same windows."""
        return fit_bins(self.tracks, self.windows, self.splits, self.wiring, k=self.kmer)

    def _means(self) -> list[float]:
        """Of each track by base, as the units say it."""
        found = [float("nan")] * len(self.tracks.tracks)
        for layout in self.wiring.layouts:
            for track, unit, aggregation in zip(layout.tracks, layout.unit, layout.aggregation, strict=True):
                found[track] = unit / (layout.resolution if aggregation == "sum" else 1)
        return found
