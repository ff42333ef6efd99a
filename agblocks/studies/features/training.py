"""Training what reads a frozen part, on features of that part which were computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data import Loader
from ...data.sequence import Codes
from ...graph.build import build
from ...graph.cut import Cut, cut
from ...graph.model import GraphModel
from ...graph.resolved import Resolved
from ...training import Evaluation, RunError, Settings, evaluate
from ...training.fit import OnSequences
from ...training.predict import loader
from ...training.tuning.frozen import Frozen
from ...training.tuning.groups import groups_of
from ...training.wiring import Wiring
from .extract import extract
from .key import row_keys
from .store import Keeps, NoRoom
from .tap import Features, Tap
from .usable import frozen_edges, needed_variants, usable
from .variants import Variants

if TYPE_CHECKING:
    from ...training.keeper import Keeper
    from ...training.run import Model, Run

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class OnFeatures(OnSequences):
    """Training on rows of measured sequences whose frozen part runs once a sequence; else as `OnSequences`.

    `fit(..., work=partial(OnFeatures, store=Store("features")))` trains as `fit` does, and gives the same run folder:
    the weights that train see the same rows in the same batches with the same dropout. Only the part behind the cut is
    run, on tracks from the store, kept in the type they were computed in. Where that would not be the same training
    (`usable` says why) everything runs as usual.
    store: see `Store`. variants: shifts and strands that are kept; by default those that the settings need, if that is
        no more than both strands. told: called with what was cut and from where features came, or why nothing was.
    evaluations: filled with the scored parts, "valid" and "test".
    Use when: heads, their sizes, rates or seeds are tried on one frozen encoder.
    """

    def __init__(
        self, *rows: Any, store: Keeps, variants: Variants | None = None, told: Callable[[str], None] | None = None,
        evaluations: dict[str, Evaluation] | None = None,
    ):  # fmt: skip
        super().__init__(*rows)
        self.store, self.variants, self.told = store, variants, told or (lambda said: None)
        self.evaluations: dict[str, Evaluation] = {} if evaluations is None else evaluations
        self._parts: list[Behind | None] = []

    def train(self, model: Model, settings: Settings, checkpoint: Path, logs: Path, progress: bool) -> Keeper:
        variants = self.variants or needed_variants(settings)
        reason = usable(model, settings, variants)
        if reason is None:
            assert isinstance(model, GraphModel)
            part, reason = behind(model, settings)
            if part is not None:
                self._parts.append(part)
                return self._train(model, part, variants, settings, checkpoint, logs, progress)
        self._parts.append(None)
        self.told(f"features are not kept: {reason}")
        return super().train(model, settings, checkpoint, logs, progress)

    def _train(
        self, model: GraphModel, part: Behind, variants: Variants, settings: Settings, checkpoint: Path, logs: Path,
        progress: bool,
    ) -> Keeper:  # fmt: skip
        from ...training.data import Batches
        from ...training.module import Fitting
        from ...training.train import run_training

        def made() -> tuple[Batches, Fitting]:
            batches = Batches(self.table, self.splits, self.construct, self.wiring, settings, settings.seed)
            try:
                tracks = self._tracks(model, part, variants, settings, (self.splits.train, self.splits.valid))
            except NoRoom as error:
                self._parts[-1] = None
                self.told(f"features are not kept: {error}")
                steps = settings.epochs * len(batches.train)
                return batches, Fitting(model, self.wiring, settings, steps, settings.seed)
            for each in (batches.train, *batches.valid):
                each.instead = _Kept(tracks, each, part.suffix.resolved, self.wiring).inputs
            frozen, trained = (len(resolved.nodes) for resolved in (part.cut.prefix, part.cut.suffix))
            self.told(
                f"cut at {', '.join(part.cut.edges)}: {frozen} frozen nodes run once for each of "
                f"{len(self.splits.train) + len(self.splits.valid):,} sequences, {trained} train on what they gave"
            )
            wiring = CutWiring.of(self.wiring, part.cut)
            steps = settings.epochs * len(batches.train)
            return batches, Fitting(part.suffix, wiring, part.settings, steps, settings.seed)

        return run_training(made, part.settings, checkpoint, logs, progress)

    def evaluated(self, run: Run, rows: NDArray[np.int64], part: str) -> Evaluation:
        made = self._evaluated(run, rows, part) or super().evaluated(run, rows, part)
        self.evaluations[part] = made
        return made

    def _evaluated(self, run: Run, rows: NDArray[np.int64], part: str) -> Evaluation | None:
        """Scores on features; None where a member has none, or trained in another precision than it predicts in."""
        settings = run.settings
        if run.settings.precision != "32-true" or len(self._parts) != len(run.models) or None in self._parts:
            return None
        variants, both = self.variants or needed_variants(settings), settings.strands == "both"
        out = np.zeros((len(self.table), len(run.targets)))
        try:
            for model, behind_it in zip(run.models, self._parts, strict=True):
                assert behind_it is not None and isinstance(model, GraphModel)
                tracks = self._tracks(model, behind_it, variants, settings, (rows,))
                wiring, suffix = CutWiring.of(self.wiring, behind_it.cut), behind_it.suffix.eval()
                suffix.to(device := _device(settings))
                for turned in (False, True) if both else (False,):
                    shown = (self.table, rows, self.construct, self.wiring, settings)
                    batches = loader(*shown, turned=turned, measured=False)
                    batches.instead = _Kept(tracks, batches, suffix.resolved, self.wiring).inputs
                    with torch.inference_mode():
                        for batch in batches:
                            given = {n: x.to(device) for n, x in wiring.inputs(batch["inputs"]).items()}
                            made = suffix(**given, outputs=list(wiring.heads))
                            out[batch["index"].numpy()] += wiring.outputs(made)
                suffix.cpu()
        except NoRoom:
            return None
        predicted = out[rows] / (len(run.models) * (2 if both else 1))
        return evaluate(run, self.table, rows, part=part, predicted=predicted)

    def _tracks(
        self, model: GraphModel, part: Behind, variants: Variants, settings: Settings,
        parts: Sequence[NDArray[np.int64]],
    ) -> dict[str, Features]:  # fmt: skip
        rows = np.concatenate(list(parts)).tolist()
        tracks = extract(
            model.to(_device(settings)), {edge: Tap(edge, "none") for edge in part.cut.edges},
            [self.table.sequences[row] for row in rows], self.construct, self.store, variants=variants,
            inputs=dict(self.wiring.constants), ambiguous=settings.ambiguous, dtype=None,
            autocast=_AUTOCAST[settings.precision],
        )  # fmt: skip
        model.cpu()
        return tracks


@dataclass(frozen=True)
class Behind:
    """The part of a model that is trained on features: its modules are the model's own."""

    cut: Cut
    suffix: GraphModel
    settings: Settings  # with what trains said by names that the suffix has


def behind(model: GraphModel, settings: Settings) -> tuple[Behind | None, str | None]:
    """The part of a model behind what is frozen, or why training it would not be the same training."""
    found = cut(model.resolved, frozen_edges(model, settings))
    suffix = part_of(model, found.suffix)
    try:
        own = _by_name(model, settings)
        same = _trained(model, settings) == _trained(suffix, own)
    except RunError as error:
        return None, f"the settings speak of what lies before the cut at {', '.join(found.edges)}: {error}"
    if not same:
        return None, f"learning rates are counted from what lies before the cut at {', '.join(found.edges)}"
    return Behind(found, suffix, own), None


def part_of(model: GraphModel, part: Resolved) -> GraphModel:
    """A graph model of a part of a recipe (`cut`) over the same modules: what trains there trains in the whole.

    Errors: AttributeError where the part has a node that the model does not have.
    """
    made = build(part, device="meta")
    for name in part.nodes:
        parent, _, child = name.rpartition(".")
        made.get_submodule(parent)._modules[child] = model.get_submodule(name)
    return made.train(model.training)


@dataclass(frozen=True)
class CutWiring(Wiring):
    """The wiring of a part behind a cut: tracks go in by their names, other inputs as in the whole."""

    given: tuple[str, ...] = ()

    @classmethod
    def of(cls, wiring: Wiring, cut: Cut) -> CutWiring:
        """The whole's wiring, for the suffix of a cut."""
        return cls(wiring.dna, wiring.reverse, wiring.constants, wiring.targets, tuple(cut.suffix.inputs))

    def inputs(self, loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: loaded[name] for name in self.given if name in loaded}


def _device(settings: Settings) -> torch.device:
    accelerated = settings.device != "cpu" and torch.accelerator.is_available()
    return (torch.accelerator.current_accelerator() if accelerated else None) or torch.device("cpu")


class _Kept:
    """What a loader gives instead of one-hot: tracks of the store, and of the model's own inputs what is still read."""

    def __init__(self, tracks: Mapping[str, Features], loader: Loader, suffix: Resolved, wiring: Wiring):
        self.tracks, self.loader, self.suffix, self.wiring = tracks, loader, suffix, wiring
        own = (wiring.dna, wiring.reverse, *(name for name, _ in wiring.constants))
        self.whole = [name for name in own if name is not None and name in suffix.inputs]

    def inputs(self, codes: Codes, turned: NDArray[np.bool_]) -> dict[str, Tensor]:
        keys = row_keys(codes, turned)
        made = {edge: kept.store.get(kept.space, keys) for edge, kept in self.tracks.items()}
        if self.whole:
            whole = self.wiring.inputs(self.loader.inputs(codes, turned))
            made |= {name: whole[name] for name in self.whole}
        return made


def _by_name(model: GraphModel, settings: Settings) -> Settings:
    """The settings with what trains from the start by parameters' names: a suffix may lack what they name."""
    if settings.tuning.is_full or settings.tuning.later:
        return settings
    frozen = Frozen(model, settings.tuning)
    frozen.restore()
    return replace(settings, tune="+".join(n for n, p in model.named_parameters() if frozen.when(p) is not None))


def _trained(model: nn.Module, settings: Settings) -> list[tuple[Any, ...]]:
    """The optimiser's groups by names, and when each parameter begins to train."""
    names = {id(p): name for name, p in model.named_parameters()}
    frozen = Frozen(model, settings.tuning)
    try:
        with frozen.ever():
            groups = groups_of(model, settings)
        return [
            (group["lr_scale"], group["weight_decay"], [(names[id(p)], frozen.when(p)) for p in group["params"]])
            for group in groups
        ]
    finally:
        frozen.restore()


__all__ = ["Behind", "OnFeatures", "behind", "part_of"]
