"""Training what reads a frozen part, on features of that part which were computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from ...training import RunError, Settings
from ...training.fit import OnSequences
from ...training.frozen import Frozen
from ...training.groups import groups_of
from ...training.wiring import Wiring
from .extract import extract
from .key import row_keys
from .store import Keeps, NoRoom
from .tap import Features, Tap
from .usable import frozen_edges, needed_variants, usable
from .variants import Variants

if TYPE_CHECKING:
    from ...training.keeper import Keeper
    from ...training.run import Model

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class OnFeatures(OnSequences):
    """Training on rows of measured sequences whose frozen part runs once a sequence; else as `OnSequences`.

    `fit(..., work=partial(OnFeatures, store=Store("features")))` trains as `fit` does, and gives the same run folder:
    the weights that train see the same rows in the same batches with the same dropout. Only the part behind the cut is
    run, on tracks from the store, kept in the type they were computed in. Where that would not be the same training
    (`usable` says why) everything runs as usual.
    store: see `Store`. variants: shifts and strands that are kept; by default those that the settings need, if that is
        no more than both strands. told: called with what was cut and from where features came, or why nothing was.
    Use when: heads, their sizes, rates or seeds are tried on one frozen encoder.
    """

    def __init__(
        self, *rows: Any, store: Keeps, variants: Variants | None = None, told: Callable[[str], None] | None = None
    ):
        super().__init__(*rows)
        self.store, self.variants, self.told = store, variants, told or (lambda said: None)

    def train(self, model: Model, settings: Settings, checkpoint: Path, logs: Path, progress: bool) -> Keeper:
        variants = self.variants or needed_variants(settings)
        reason = usable(model, settings, variants)
        if reason is None:
            assert isinstance(model, GraphModel)
            part, reason = behind(model, settings)
            if part is not None:
                return self._train(model, part, variants, settings, checkpoint, logs, progress)
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
                tracks = self._tracks(model, part, variants, settings)
            except NoRoom as error:
                self.told(f"features are not kept: {error}")
                steps = settings.epochs * len(batches.train)
                return batches, Fitting(model, self.wiring, settings, steps, settings.seed)
            for loader in (batches.train, *batches.valid):
                loader.instead = _Kept(tracks, loader, part.suffix.resolved, self.wiring).inputs
            wiring = CutWiring.of(self.wiring, part.cut)
            steps = settings.epochs * len(batches.train)
            return batches, Fitting(part.suffix, wiring, part.settings, steps, settings.seed)

        return run_training(made, part.settings, checkpoint, logs, progress)

    def _tracks(self, model: GraphModel, part: Behind, variants: Variants, settings: Settings) -> dict[str, Features]:
        rows = np.concatenate([self.splits.train, self.splits.valid]).tolist()
        accelerated = settings.device != "cpu" and torch.accelerator.is_available()
        device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
        tracks = extract(
            model.to(device), {edge: Tap(edge, "none") for edge in part.cut.edges},
            [self.table.sequences[row] for row in rows], self.construct, self.store, variants=variants,
            inputs=dict(self.wiring.constants), ambiguous=settings.ambiguous, dtype=None,
            autocast=_AUTOCAST[settings.precision],
        )  # fmt: skip
        model.cpu()
        frozen, trained = (len(resolved.nodes) for resolved in (part.cut.prefix, part.cut.suffix))
        self.told(
            f"cut at {', '.join(part.cut.edges)}: {frozen} frozen nodes run once for each of {len(rows):,} sequences, "
            f"{trained} train on what they gave"
        )
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
