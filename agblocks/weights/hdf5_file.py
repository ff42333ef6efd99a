"""Keras weights in HDF5: keys are `<layer>.<variable>`, whatever the version of Keras wraps around them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError, told
from .source import Entry, Source

_NORM = re.compile(r"^batch_normalization(?:_([0-9]{1,9}))?\.")


class Hdf5File(Source):
    """One Keras file with its layers' names: `.h5`, of weights alone or of a whole model.

    Not `.weights.h5` of Keras 3, which calls layers by their classes and says no names. Keras numbers its batch norms
    over a whole session (`batch_normalization_7`); here they count from 1 in their order.
    """

    owned = True

    def __init__(self, file: Path):
        import h5py

        super().__init__(str(file))
        try:
            self._file = h5py.File(file, "r")
        except OSError as error:
            raise WeightsError(f"{file}: damaged, or no HDF5 file: {error}") from None
        try:
            found: dict[str, str] = {}
            self._file.visititems(lambda path, item: found.update({path: path}) if _is_data(item) else None)
            if any("/vars/" in path for path in found):
                raise WeightsError(
                    f"{file}: is of Keras 3, which calls layers by their classes here; model.save('model.h5') keeps "
                    "their names"
                )
            self._paths = _named(found)
            for key, path in self._paths.items():
                with told(f"{file}: {key!r} is no tensor of weights"):
                    data = self._file[path]
                    self.entries[key] = Entry(tuple(data.shape), _dtype(data))
        except BaseException:
            self.close()
            raise

    def _read(self, key: str) -> Tensor:
        return torch.from_numpy(self._file[self._paths[key]][()].reshape(self.entries[key].shape))

    def close(self) -> None:
        self._file.close()


def _is_data(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu"


def _dtype(data: Any) -> torch.dtype:
    import numpy as np

    return torch.from_numpy(np.empty(0, data.dtype)).dtype


def _named(paths: dict[str, str]) -> dict[str, str]:
    """`layer.variable` -> path in the file; optimisers' variables left out."""
    found: dict[str, str] = {}
    for path in paths:
        parts = path.removesuffix(":0").split("/")
        if parts[0] in ("optimizer_weights", "optimizer") or len(parts) < 2:
            continue
        layer, variable = parts[-2:]
        found[f"{layer}.{variable}"] = path
    order = sorted({int(m[1] or 0) for key in found if (m := _NORM.match(key))})
    count = {number: place for place, number in enumerate(order, 1)}
    return {
        _NORM.sub(lambda m: f"batch_normalization_{count[int(m[1] or 0)]}.", key): path for key, path in found.items()
    }
