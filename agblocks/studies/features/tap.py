"""Where features are taken from, and features that were: rows in a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import WorkError
from .pool import Pool
from .store import Keeps
from .variants import PLAIN, Variant


@dataclass(frozen=True)
class Tap:
    """An edge that features are taken from, and how its positions are pooled; `none` keeps whole tracks.

    window: so many positions in the middle are pooled, None for all.
    """

    edge: str
    pool: Pool = "mean"
    window: int | None = None

    @property
    def way(self) -> str:
        """The pool in words, as keys have it."""
        return self.pool if self.window is None else f"{self.pool} of the middle {self.window}"


@dataclass(frozen=True)
class Features:
    """Features of some sequences at one tap, in their order; rows lie in the store until they are asked for."""

    tap: Tap
    space: str
    keys: Mapping[Variant, Sequence[bytes]] = field(repr=False)
    store: Keeps = field(repr=False)

    def __len__(self) -> int:
        return len(next(iter(self.keys.values())))

    def tensor(self, rows: Sequence[int] | NDArray[np.int64] | None = None, variant: Variant = PLAIN) -> Tensor:
        """Rows (default: all) of one shape, as they are stored. Shapes: n rows -> (n, ...).

        Errors: `WorkError` for a variant that was not asked for, and for tracks of different lengths; `Gone`.
        """
        if variant not in self.keys:
            known = "; ".join(map(str, self.keys))
            raise WorkError(f"tap {self.tap.edge!r}: there are no features {variant}; there are: {known}")
        keys = self.keys[variant]
        return self.store.get(self.space, keys if rows is None else [keys[row] for row in rows])

    @cached_property
    def array(self) -> NDArray[np.float32]:
        """All rows in place, for a probe. Shapes: -> (rows, features), float32."""
        return self.averaged((PLAIN,))

    def averaged(self, variants: Sequence[Variant] | None = None) -> NDArray[np.float32]:
        """All rows, each the mean over variants (default: all). Shapes: -> (rows, features), float32."""
        chosen = tuple(self.keys) if variants is None else tuple(variants)
        total = sum(self.tensor(variant=variant).double() for variant in chosen)
        assert isinstance(total, Tensor)
        return (total / len(chosen)).to(torch.float32).flatten(1).numpy()
