"""Recipe to model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from .model import GraphModel
from .resolve import resolve
from .resolved import Resolved


def build(
    recipe: str | Path | Mapping[str, Any] | Resolved,
    *overrides: str,
    keep: Iterable[str] = (),
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
) -> GraphModel:
    """Build a model from a recipe (path, shipped name, text, dict, or resolved).

    `build("alphagenome", "tower.depth=4")`: an override is 'node.argument=value'. `keep` are patterns of edges to keep
    though no head reads them. `device="meta"` allocates nothing. `seed` draws the weights without touching torch's own
    random state. Raises RecipeError with everything that is wrong, before a weight is allocated.
    """
    if not isinstance(recipe, Resolved):
        recipe = resolve(recipe, *overrides, keep=keep)
    elif overrides or tuple(keep):
        recipe = resolve(recipe.recipe, *overrides, keep=keep)
    with _seeded(seed, device), torch.device(device) if device is not None else nullcontext():
        model = GraphModel(recipe)
    return model.to(dtype) if dtype is not None else model


def _seeded(seed: int | None, device: str | torch.device | None) -> Any:
    if seed is None:
        return nullcontext()
    kind = torch.device(device or "cpu").type
    fork = torch.random.fork_rng(devices=None if kind == "cuda" else [])
    return _Seeded(fork, seed)


class _Seeded:
    def __init__(self, fork: Any, seed: int):
        self.fork, self.seed = fork, seed

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *details: Any) -> None:
        self.fork.__exit__(*details)
