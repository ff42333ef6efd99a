"""Settings that suit shipped recipes, in one place: for the demonstration and for cross-validation.

They were chosen on validation folds only.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import near
from .errors import RunError
from .settings import Settings


@dataclass(frozen=True)
class Preset:
    """What a recipe was tuned with: the construct by name, and the settings."""

    recipe: str
    construct: str
    settings: Settings


PRESETS = {
    "mpra_small": Preset(
        recipe="mpra_small",
        construct="lentimpra:adapters",
        settings=Settings(
            epochs=16, batch_size=64, lr=2e-3, weight_decay=0.05, schedule="onecycle", warmup=0.3, patience=0,
            ema=0.99, reverse_complement=0.5, shift=15, shift_mode="flanks", strands="both",
        ),
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """A preset by name. Errors: `RunError` with near names."""
    if name not in PRESETS:
        raise RunError(f"there is no preset {name!r}; {near(name, PRESETS)}")
    return PRESETS[name]
