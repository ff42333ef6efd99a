"""Where tensors are read from, one at a time: what every kind of file offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError

#: the types that weights have, by their names in safetensors files
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Source(ABC):
    """Named tensors of a file or a mapping. Names, shapes and types are known before anything is read.

    label: for messages. entries: by key. metadata: what the file says of itself. others: keys that hold no tensor.
    revision: of a hub's repository. read_bytes: read so far, of tensors.
    """

    def __init__(self, label: str):
        self.label = label
        self.entries: dict[str, Entry] = {}
        self.metadata: Mapping[str, Any] = {}
        self.others: tuple[str, ...] = ()
        self.revision: str | None = None
        self.read_bytes = 0

    def read(self, key: str) -> Tensor:
        """One tensor, on the CPU."""
        tensor = self._read(key)
        self.read_bytes += tensor.nbytes
        return tensor

    @abstractmethod
    def _read(self, key: str) -> Tensor: ...

    #: whether what `read` gives is nobody else's memory
    owned = False

    def close(self) -> None:  # noqa: B027 (most have nothing to let go of)
        """Let go of the file."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Held(Source):
    """Tensors that are in memory: a state dict, of torch or NumPy."""

    def __init__(self, tensors: Mapping[str, Any], label: str = "the state dict"):
        super().__init__(label)
        self._tensors = {key: value for key, value in tensors.items() if isinstance(value, Tensor) or is_array(value)}
        self.others = tuple(str(key) for key in tensors if key not in self._tensors)
        for key, value in self._tensors.items():
            if not isinstance(key, str):
                raise WeightsError(f"{label}: keys are names, found {key!r} ({type(key).__name__})")
            self.entries[key] = Entry(tuple(value.shape), as_tensor(value, 0).dtype)

    def _read(self, key: str) -> Tensor:
        tensor = as_tensor(self._tensors[key])
        if tensor.is_meta or tensor.layout != torch.strided or tensor.dtype not in DTYPES.values():
            place = "on the meta device" if tensor.is_meta else f"{tensor.layout}, {tensor.dtype}"
            raise WeightsError(f"{self.label}: {key!r} is {place}; weights are dense: {', '.join(DTYPES)}")
        return tensor.detach()


def as_tensor(value: Any, most: int | None = None) -> Tensor:
    """A tensor of a tensor or an array, of an array's first `most` numbers alone where that is said."""
    import numpy as np

    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    return torch.from_numpy(array.copy() if most is None else array.reshape(-1)[:most].copy())


def is_array(value: object) -> bool:
    """Whether it is a NumPy array (or number) of a type that torch has."""
    import numpy as np

    return isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "fiub"
