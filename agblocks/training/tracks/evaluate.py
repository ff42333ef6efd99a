"""Scores of a model on windows of a genome, on one strand or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.tracks import GenomeTracks, Layout, WindowLoader, Windows, separate
from ...data.tracks.windows import Whole
from ..errors import RunError
from ..run import Model, Run, load_run
from ..settings import Settings, Strands
from .module import moments, turned
from .moments import AcrossScore, TrackScore, back
from .source import GenomeSource
from .wiring import TrackWiring

BLOCK = 10_000  # bases of a block that the bootstrap draws
BOOTSTRAP = 1000


@dataclass(frozen=True)
class TrackEvaluation:
    """Scores by track, and across tracks, of the windows of one part."""

    part: str
    windows: int
    tracks: tuple[TrackScore, ...]
    across: tuple[AcrossScore, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "windows": self.windows,
            "tracks": [score.to_dict() for score in self.tracks],
            "across": [score.to_dict() for score in self.across],
        }

    @classmethod
    def from_dict(cls, part: str, values: Mapping[str, Any]) -> TrackEvaluation:
        """What `to_dict` wrote of a part."""
        tracks = tuple(TrackScore(**back(score)) for score in values["tracks"])
        return cls(part, values["windows"], tracks, tuple(AcrossScore(**back(score)) for score in values["across"]))


def evaluate_windows(
    models: Sequence[Model],
    wiring: TrackWiring,
    data: GenomeTracks,
    windows: Windows,
    rows: Whole,
    settings: Settings,
    *,
    part: str = "test",
    strands: Strands | None = None,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    device: str | None = None,
) -> TrackEvaluation:
    """Predict windows and score every track over all of their bins; members of an ensemble are averaged.

    strands: "both" averages the window and its other strand; default: as the settings say. bootstrap: resamples of
    blocks of 10,000 bases (a window is in the block of its start). Where windows overlap each bin counts once.
    """
    sums = moments(wiring)
    blocks = block_numbers(windows)
    seen = {head: bins_seen(windows, rows, layout.layout) for head, layout in wiring.of.items()}
    for batch, predicted in predictions(models, wiring, data, windows, rows, settings, strands=strands, device=device):
        index = batch["index"].numpy()
        for head, part_sums in sums.items():
            part_sums.add(predicted[head], unseen(batch["targets"][head], seen[head][index]), blocks[index])
    found = [part_sums.scores(bootstrap, seed) for part_sums in sums.values()]
    across = tuple(score for _, score in found if score is not None)
    return TrackEvaluation(part, len(rows), tuple(s for scores, _ in found for s in scores), across)


def predictions(
    models: Sequence[Model],
    wiring: TrackWiring,
    data: GenomeTracks,
    windows: Windows,
    rows: Whole,
    settings: Settings,
    *,
    strands: Strands | None = None,
    device: str | None = None,
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Batches of windows in order, and for each head what is predicted there, as measured, on the CPU.

    Shapes: head -> (batch, tracks, bins).
    """
    both = (settings.strands if strands is None else strands) == "both"
    if both:
        wiring.check_strands()
    if device is None:
        device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    layouts = {head: layout.layout for head, layout in wiring.of.items()}
    loader = WindowLoader(data, windows, rows, layouts, batch_size=settings.batch_size, ambiguous=settings.ambiguous)
    for model in models:
        model.to(device).eval()
    with torch.inference_mode():
        for batch in loader:
            shown = [_predicted(models, wiring, batch, device)]
            if both:
                shown.append(wiring.turned(_predicted(models, wiring, turned(batch, wiring), device)))
            yield batch, {head: torch.stack([of[head] for of in shown]).mean(0) for head in layouts}


def block_numbers(windows: Windows, size: int = BLOCK) -> NDArray[np.int64]:
    """The bootstrap's block of each window. Shapes: -> (n,)."""
    return windows.chromosome * (1 << 40) + np.maximum(windows.start, 0) // size


def bins_seen(windows: Windows, rows: Whole, layout: Layout) -> Whole:
    """How many of a window's first bins those of these rows before it have too, in whole or in part. Shapes: -> (n,).

    A window that is there twice has all of its bins seen.
    """
    seen = np.zeros(len(windows), dtype=np.int64)
    at, until = -1, 0  # the chromosome, and where what was counted of it ends
    for row in rows[np.lexsort((windows.start[rows], windows.chromosome[rows]))].tolist():
        start = int(windows.start[row])
        shared = until - start if windows.chromosome[row] == at else 0
        seen[row] = min(max(-(-shared // layout.resolution), 0), layout.bins)
        if seen[row] < layout.bins:
            at, until = int(windows.chromosome[row]), start + layout.bins * layout.resolution
    return seen


def unseen(targets: Tensor, seen: Whole) -> Tensor:
    """Targets with NaN for bins that were seen. Shapes: (batch, tracks, bins), (batch,) -> (batch, tracks, bins)."""
    known = torch.arange(targets.shape[-1]) >= torch.from_numpy(seen)[:, None, None]
    return torch.where(known, targets, torch.nan)


def evaluate_run(
    path: str | Path,
    source: GenomeSource | None = None,
    *,
    part: str = "test",
    strands: Strands | None = None,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    device: str | None = None,
) -> tuple[Run, TrackEvaluation]:
    """Score a run on the windows that it held out; or on those of another source (another genome, other bigWigs).

    part: train | valid | test, of the run's own windows. Of another source all windows that it holds out as `part`
    count. Tracks are found by name. Errors: `RunError` for a run of sequences, tracks that are not there, or an empty
    part; `DataError`.
    Use when: another source holds out what the run held out too: nothing checks what the run has seen there.
    """
    run = load_run(path)
    wiring = run.wiring
    if not isinstance(wiring, TrackWiring):
        raise RunError(f"{path}: a run of measured sequences: `agblocks evaluate`")
    source = source or GenomeSource.from_dict(run.data.get("genome") or {})
    data = source.data()
    names = {track.name: i for i, track in enumerate(data.tracks)}
    if lacking := [name for layout in wiring.layouts for name in layout.names if name not in names]:
        raise RunError(f"{source.tracks}: there is no track {lacking[0]!r}, which the run predicts")
    windows = source.windows(data.genome)
    if windows.length != wiring.window:
        raise RunError(f"windows of {windows.length:,} bases; the run was trained on {wiring.window:,}")
    splits, _ = separate(windows, source.labels(windows), wiring.sight(run.resolved, run.settings.shift))
    if part not in splits.parts():
        raise RunError(f"part is {part!r}; there are train, valid and test")
    rows = splits.parts()[part]
    if not len(rows):
        raise RunError(f"no windows are held out as {part}")
    made = evaluate_windows(
        run.models, renumbered(wiring, names), data, windows, rows, run.settings, part=part, strands=strands,
        bootstrap=bootstrap, seed=seed, device=device,
    )  # fmt: skip
    return run, made


def renumbered(wiring: TrackWiring, names: Mapping[str, int]) -> TrackWiring:
    """The wiring with tracks numbered as in another table."""
    layouts = tuple(replace(e, tracks=tuple(names[name] for name in e.names)) for e in wiring.layouts)
    return replace(wiring, layouts=layouts)


def _predicted(
    models: Sequence[Model], wiring: TrackWiring, batch: Mapping[str, Any], device: str
) -> dict[str, Tensor]:
    inputs = {name: value.to(device) for name, value in wiring.inputs(batch["inputs"]).items()}
    made = [wiring.measured(model(**inputs, outputs=list(wiring.of))) for model in models]
    return {head: torch.stack([of[head] for of in made]).mean(0).cpu() for head in wiring.of}
