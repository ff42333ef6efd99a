"""One kind of adapter with its arguments on one model of the zoo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor

from ..adapters import Adapted, AdapterError, AdapterSpec, Kind, adapt
from ..errors import AgblocksError
from .adapter_zoo import Bench, benches
from .arguments import arguments
from .contract import Broken

DRAWN = 3  # sets of arguments drawn, beside the defaults


@dataclass(frozen=True)
class Trial:
    """`Trial("lora", "conv", {"rank": 2}).check("merge")` shows a counter-example again."""

    kind: str
    bench: str
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> Bench:
        """The model it sits in."""
        return next(bench for bench in benches() if bench.name == self.bench)

    @property
    def spec(self) -> AdapterSpec:
        """The adapter as data."""
        return AdapterSpec(self.kind, glob=[self.place.site], **self.args)

    def adapted(self, dtype: torch.dtype = torch.float64, **options: Any) -> Adapted:
        """The model with the adapter as it starts."""
        return adapt(self.place.model(dtype), [self.spec], **options)

    def moved(self, dtype: torch.dtype = torch.float64, **options: Any) -> Adapted:
        """The model with the adapter as if it had been trained: every parameter somewhere else."""
        adapted = self.adapted(dtype, **options)
        move(adapted)
        return adapted

    def check(self, contract: str) -> None:
        """Try one contract; raises `Broken`."""
        from .adapter_contracts import named

        named(contract).check(self)


def move(adapted: Adapted, seed: int = 3) -> None:
    """Put every parameter of the adapters a little elsewhere, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.2 * drawn).to(parameter))


def trials(kind: Kind) -> list[Trial]:
    """A kind on every model where it can sit, with its defaults; and with drawn arguments where it can at first."""
    found = [trial for bench in benches() if _fits(trial := Trial(kind.name, bench.name))]
    if not found:
        raise Broken(f"{kind.name!r} can sit on nothing in the zoo with its defaults")
    made = list(found)
    for index, args in enumerate(_drawn(kind)):
        trial = Trial(kind.name, found[index % len(found)].bench, args)
        if _fits(trial):
            made.append(trial)
    return made


def _drawn(kind: Kind) -> Iterator[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    @settings(
        max_examples=8 * DRAWN, phases=[Phase.generate], derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(arguments(kind))  # type: ignore[arg-type]
    def collect(args: dict[str, Any]) -> None:
        if args not in made:
            made.append(args)

    if kind.annotations:
        collect()
    yield from made[1 :: max(1, len(made) // DRAWN)][:DRAWN]


_fitting: dict[str, bool] = {}  # by trial as it prints: each is tried once, for all contracts


def _fits(trial: Trial) -> bool:
    key = repr(trial)
    if key not in _fitting:
        try:
            trial.adapted()
            _fitting[key] = True
        except (AdapterError, AgblocksError):
            _fitting[key] = False
    return _fitting[key]


def outputs(model: Any, x: Tensor) -> Tensor:
    """What a model gives, without gradients."""
    with torch.no_grad():
        made: Tensor = model(x)
    return made


def gradients(adapted: Adapted, x: Tensor, call: Any = None) -> dict[str, Tensor]:
    """Gradients of a fixed sum of the outputs, by parameter."""
    y = (adapted if call is None else call)(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(y)
    adapted.zero_grad(set_to_none=True)
    (y * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}
    adapted.zero_grad(set_to_none=True)
    return found
