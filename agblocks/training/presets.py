"""Settings that suit shipped recipes, in one place: for the demonstration and for cross-validation.

They were chosen on validation folds of the lentiMPRA sample, never on a test fold.
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
        construct="lentimpra:none",
        settings=Settings(
            epochs=15, batch_size=32, lr=1e-2, weight_decay=0.02, schedule="onecycle", warmup=0.15, patience=0,
            keep="last", ema=0.99, reverse_complement=0.5, strands="both",
        ),
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """A preset by name. Errors: `RunError` with near names."""
    if name not in PRESETS:
        raise RunError(f"there is no preset {name!r}; {near(name, PRESETS)}")
    return PRESETS[name]
