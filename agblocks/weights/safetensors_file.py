"""Safetensors files: any tensor by itself, read from its place straight into memory of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError
from .source import DTYPES, Entry, Source


class SafetensorsFile(Source):
    """One safetensors file.

    The library checks the file when it is opened; tensors are then read from the ranges that the header names, into
    memory that the model keeps. (Mapped pages would cost the same memory while they are in use, and a model whose
    file is replaced or cut would change or crash.)
    """

    owned = True

    def __init__(self, file: Path):
        super().__init__(str(file))
        self._metadata_checked(file)
        try:
            self._handle = open(file, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from None
        length = int.from_bytes(self._handle.read(8), "little")
        header: dict[str, Any] = json.loads(self._handle.read(length))
        header.pop("__metadata__", None)
        self._ranges: dict[str, int] = {}  # key -> where its bytes begin
        for key, value in header.items():
            dtype = DTYPES.get(value["dtype"])
            if dtype is None:
                self.close()
                raise WeightsError(f"{file}: {key!r} is {value['dtype']}; weights are {', '.join(DTYPES)}")
            self.entries[key] = Entry(tuple(value["shape"]), dtype)
            self._ranges[key] = 8 + length + int(value["data_offsets"][0])

    def _metadata_checked(self, file: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as opened:
                self.metadata = opened.metadata() or {}
        except OSError as error:
            raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from None
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{file}: damaged, or no safetensors file: {error}") from None

    def _read(self, key: str) -> Tensor:
        start = self._ranges[key]
        entry = self.entries[key]
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        if tensor.numel() == 0:
            return tensor
        octets: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        into = memoryview(octets)
        self._handle.seek(start)
        while len(into):
            read = self._handle.readinto(into)
            if not read:
                raise WeightsError(f"{self.label}: ends inside {key!r}: the file was cut after it was opened")
            into = into[read:]
        return tensor

    def close(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.close()


class Shards(Source):
    """Several files as one, as an index of shards names them."""

    def __init__(self, index: Path):
        super().__init__(str(index))
        try:
            places = json.loads(index.read_text())["weight_map"]
            files = {name: SafetensorsFile(index.parent / os.path.basename(name)) for name in set(places.values())}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"{index}: cannot be read as an index of shards: {error}") from None
        self._files = {key: files[name] for key, name in places.items()}
        for key, file in self._files.items():
            if key not in file.entries:
                raise WeightsError(f"{index}: {key!r} is not in {file.label}")
            self.entries[key] = file.entries[key]

    owned = True

    def _read(self, key: str) -> Tensor:
        return self._files[key].read(key)

    def close(self) -> None:
        for file in set(self._files.values()):
            file.close()
