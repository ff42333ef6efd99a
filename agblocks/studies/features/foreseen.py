"""Whether a training's frozen part will run once, told before anything is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...graph.build import build
from ...graph.resolve import resolve
from ...training.adapting import tuned, with_adapters
from ...training.settings import Settings
from ...training.tuning.transfer import said_once
from .usable import needed_variants, usable


def foreseen(recipe: Mapping[str, Any], settings: Mapping[str, Any], transfer: Mapping[str, Any]) -> str | None:
    """Why a training, as `fit` takes it, will run its frozen part in every step, or has none; None where it runs once.

    Nothing is allocated, and no weights are read.
    Errors: as `fit` for what cannot be resolved, or names that fit nothing.
    """
    said = {key: value for key, value in transfer.items() if key != "weights"}
    plain = {**settings, "seed": 0}
    return _foreseen(*(json.dumps(part, sort_keys=True) for part in (recipe, plain, said)))


@lru_cache(maxsize=512)
def _foreseen(recipe: str, settings: str, transfer: str) -> str | None:
    chosen, _, adapters = said_once(json.loads(transfer), Settings.from_dict(json.loads(settings)))
    made = with_adapters(resolve(json.loads(recipe)), adapters)
    chosen = tuned(chosen, made)
    return usable(build(made, device="meta"), chosen, needed_variants(chosen))
