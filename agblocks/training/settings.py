"""Every number of a training, in one frozen place that is stored with the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..data import Augment, DataError
from ..errors import near
from .errors import RunError
from .tuning.rates import Rates, as_rates, rates_text
from .tuning.terms import FULL, Terms, as_terms
from .tuning.tune import Tune

Schedule = Literal["constant", "cosine", "onecycle"]
Keep = Literal["best", "last"]
Monitor = Literal["pearson", "loss"]
Strands = Literal["one", "both"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Device = Literal["auto", "cpu", "gpu"]
Strategy = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True)
class Settings:
    """How a model is trained. The recipe says what the model is (dropout too); this says everything else.

    epochs, batch_size, lr, weight_decay: of AdamW; norms and biases don't decay.
    tune: what trains: full | head | last:2 | from:encoder.stage4 | patterns of names, joined by + (see `Tune`); by
        default everything, but beside adapters the heads.
    unfreeze: what joins later, like "3=encoder.stage6+encoder.stage7,6=full": after 3 epochs, and after 6; or
        "plateau=full": once validation stops improving, from the best weights until then (see `Unfreeze`).
    reinit: what of loaded weights is drawn anew, as a fresh model of the seed has it; terms as of `tune`.
    rates: learning rates of parts, like "encoder.**=0.01,head=2"; each is multiplied with what layer_decay and head_lr
        come to. Where several name a parameter, the one that names the fewest parameters counts.
    layer_decay: learning rate of each layer below the heads, as a fraction of that of the layer above; 1 for none.
    head_lr: learning rate of the heads, as a multiple of `lr`. min_scale: least fraction that layer_decay comes to.
    schedule: constant | cosine (warm-up over the fraction `warmup` of all steps, then down to `final_lr` * lr) |
        onecycle (up over `warmup`, then down to `final_lr` * lr; AdamW's first beta moves against it, .95 to .85).
    clip: largest norm of the gradient of what trains, 0 for none.
    patience: epochs without a better validation score before training stops, 0 to go through all epochs; those before
        the last part joins (`unfreeze`) don't count. Where `unfreeze` has plateaus it is that of the last stage.
    keep: the weights of the "best" epoch on the validation rows, or of the "last" one: the choice for schedules that
        end low, where an epoch in the middle scores well by luck of a few hundred rows.
    monitor: what counts as better on the validation rows: mean Pearson over the targets that
        vary there, or the loss.
    ema: decay of an exponential moving average of the weights that train, warmed up; 0 for none. Where there is one,
        it is what is evaluated and kept.
    standardise: train on targets scaled to mean 0 and deviation 1 of the training rows; predictions are scaled back.
    reverse_complement, shift, shift_probability, shift_mode, shift_scope: augmentation (`data.Augment`).
    ambiguous: code of IUPAC letters other than N (`data.one_hot`).
    strands: "both" averages the predictions for both strands, in evaluation and prediction.
    ensemble: models of consecutive seeds, whose predictions are averaged.
    precision, device: as Lightning knows them. 16-mixed scales the loss; a step whose gradients are not
        finite is skipped, and the schedule and the moving average with it.
    devices, nodes: processes that train together, devices on each of so many machines; several nodes need a cluster's
        srun or torchrun. Each takes its share of the same batches, norms over batches see all of them, and the result
        is that of one process but for rounding and the draws of dropout.
    strategy: ddp, a whole model on each device; fsdp, parts of it on each, for models too large for one; auto is ddp.
    seed: of the initial weights, the order of batches, augmentation and dropout.

    Errors: `RunError` with everything that is wrong.
    """

    epochs: int = 50
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    tune: str = ""
    unfreeze: str = ""
    reinit: str = ""
    rates: str = ""
    layer_decay: float = 1.0
    head_lr: float = 1.0
    min_scale: float = 0.0
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    final_lr: float = 0.01
    clip: float = 1.0
    patience: int = 10
    keep: Keep = "best"
    monitor: Monitor = "pearson"
    ema: float = 0.0
    standardise: bool = True
    reverse_complement: float = 0.0
    shift: int = 0
    shift_probability: float = 1.0
    shift_mode: Literal["n", "roll", "flanks"] = "n"
    shift_scope: Literal["construct", "insert"] = "construct"
    ambiguous: Literal["zeros", "fraction"] = "zeros"
    strands: Strands = "one"
    ensemble: int = 1
    precision: Precision = "32-true"
    device: Device = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Strategy = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = []
        for name, (kind, low, high, words) in _LIMITS.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            good = whole or (kind is float and isinstance(value, float) and math.isfinite(value))
            if not good or not low <= value <= high:
                wrong.append(f"{name} is {value!r}, wanted {words}")
            elif kind is float:
                object.__setattr__(self, name, float(value))
        for name, options in _CHOICES.items():
            if getattr(self, name) not in options:
                wrong.append(f"{name} is {getattr(self, name)!r}; {near(str(getattr(self, name)), options)}")
        wrong += [
            f"{name} is {getattr(self, name)!r}, wanted a text" for name in ("tune", "unfreeze", "reinit", "rates")
            if not isinstance(getattr(self, name), str)
        ]  # fmt: skip
        if type(self.standardise) is not bool:
            wrong.append(f"standardise is {self.standardise!r}, wanted True or False")
        if not wrong:
            wrong += [f"{name} is 0, wanted a number above 0" for name in _ABOVE_0 if getattr(self, name) == 0]
            if self.keep == "last" and self.patience:
                wrong.append(f"keep is last and patience {self.patience}, which stops at the best; wanted patience 0")
            if self.ema == 1:
                wrong.append("ema is 1, which would never move; wanted a decay below 1, like 0.999")
            if self.processes > self.batch_size:
                wrong.append(f"batch_size is {self.batch_size} over {self.processes} processes, wanted a row for each")
            if self.strategy == "fsdp" and self.processes == 1:
                wrong.append("strategy is fsdp, which spreads a model over devices; wanted devices or nodes above 1")
            if self.strategy == "fsdp" and self.precision == "16-mixed":
                wrong.append("strategy is fsdp, whose parts of gradients are not scaled together; wanted bf16-mixed")
            try:
                _ = self.augment
            except DataError as error:
                wrong.append(str(error))
            try:
                later = self.tuning.later
                if late := [step.after for step in later if step.after is not None and step.after >= self.epochs]:
                    wrong.append(f"unfreeze: after {late[0]} epochs, but there are {self.epochs}")
                if not self.patience and any(step.plateau is True and step.latest is None for step in later):
                    wrong.append("unfreeze: a plateau without a patience, and patience is 0; say plateau:5")
            except RunError as error:
                wrong.append(str(error))
            for read in (lambda: self.redrawn, lambda: self.factors):
                try:
                    read()
                except RunError as error:
                    wrong.append(str(error))
        if wrong:
            raise RunError("settings: " + "; ".join(wrong))
        # One text for what is the same, however it was said: a resumed run compares texts.
        object.__setattr__(self, "unfreeze", self.tuning.unfreeze)
        object.__setattr__(self, "rates", rates_text(self.factors))

    @property
    def tuning(self) -> Tune:
        """What trains, and when."""
        return Tune.parse(self.tune or FULL, self.unfreeze)

    @property
    def redrawn(self) -> Terms:
        """What is drawn anew after loading."""
        return as_terms(self.reinit, "reinit") if self.reinit else ()

    @property
    def factors(self) -> Rates:
        """What learning rates of parts are multiplied with."""
        return as_rates(self.rates)

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.devices * self.nodes

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds parts of the model."""
        return self.strategy == "fsdp"

    @property
    def augment(self) -> Augment:
        """The augmentation of training rows."""
        return Augment(self.reverse_complement, self.shift, self.shift_probability, self.shift_mode, self.shift_scope)

    @property
    def shown_strands(self) -> tuple[bool, ...]:
        """For each time that a sequence is shown in evaluation: whether it is turned."""
        return (False, True) if self.strands == "both" else (False,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives the same settings back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The settings that `to_dict` wrote. Strict: all keys and no others; but what came later may be missing."""
        names = [f.name for f in fields(cls)]
        values = {**CAME_LATER, **values}
        for name in values:
            if name not in names:
                raise RunError(f"settings: there is no {name!r}; {near(str(name), names)}")
        if missing := [name for name in names if name not in values]:
            raise RunError(f"settings: {', '.join(missing)} missing")
        return cls(**values)


_LARGE = 10**9
_ABOVE_0 = ("lr", "layer_decay", "head_lr")
# What runs did that were written before these could be said.
CAME_LATER = {
    "tune": FULL, "unfreeze": "", "reinit": "", "rates": "", "layer_decay": 1.0, "head_lr": 1.0, "min_scale": 0.0,
    "devices": 1, "nodes": 1, "strategy": "auto",
}  # fmt: skip
ANYWHERE = ("devices", "nodes", "strategy")  # what a resumed run may say otherwise
_LIMITS: dict[str, tuple[type, float, float, str]] = {
    "epochs": (int, 1, _LARGE, "a whole number from 1"),
    "batch_size": (int, 2, _LARGE, "a whole number from 2"),
    "lr": (float, 0, 1e3, "a number above 0"),
    "weight_decay": (float, 0, 1e3, "a number from 0"),
    "layer_decay": (float, 0, 1, "a fraction above 0, up to 1 (none)"),
    "head_lr": (float, 0, 1e6, "a multiple of lr above 0"),
    "min_scale": (float, 0, 1, "a fraction of lr from 0 to 1"),
    "warmup": (float, 0, 0.9, "a fraction of all steps from 0 to 0.9"),
    "final_lr": (float, 0, 1, "a fraction of lr from 0 to 1"),
    "clip": (float, 0, _LARGE, "a number from 0 (none)"),
    "patience": (int, 0, _LARGE, "a whole number of epochs from 0 (never stop early)"),
    "ema": (float, 0, 1, "a decay from 0 (none) to below 1"),
    "reverse_complement": (float, 0, 1, "a probability"),
    "shift": (int, 0, _LARGE, "a whole number of bases from 0"),
    "shift_probability": (float, 0, 1, "a probability"),
    "ensemble": (int, 1, 1000, "a whole number from 1"),
    "devices": (int, 1, 10_000, "a whole number from 1"),
    "nodes": (int, 1, 10_000, "a whole number from 1"),
    "seed": (int, 0, 2**62, "a whole number from 0"),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": get_args(Schedule),
    "monitor": get_args(Monitor),
    "keep": get_args(Keep),
    "shift_mode": ("n", "roll", "flanks"),
    "shift_scope": ("construct", "insert"),
    "ambiguous": ("zeros", "fraction"),
    "strands": get_args(Strands),
    "precision": get_args(Precision),
    "device": get_args(Device),
    "strategy": get_args(Strategy),
}
