"""Files of `torch.save` (.pth .pt .bin .ckpt): state dicts, bare or in a Lightning checkpoint; never code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError
from .source import Held

INSIDE = ("state_dict", "model_state_dict", "model", "weights")  # where checkpoints keep theirs


class TorchFile(Held):
    """One file of `torch.save`, mapped where its format allows, so that what is not asked for is not read.

    Only tensors and plain containers are unpickled (`weights_only=True`); anything else is refused.
    """

    def __init__(self, file: Path):
        content = _loaded(file)
        super().__init__(_state(file, content), str(file))


def _loaded(file: Path) -> Any:
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):  # the format before 1.6 can't be mapped
                raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{file}: refused: {_reason(str(error))}") from None
    except Exception as error:  # whatever a damaged file raises
        said = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{file}: damaged, or no file of torch.save: {said}") from None


def _reason(said: str) -> str:
    named = re.search(r"(?:GLOBAL|global|class|function)\s+([\w.]+\.[\w.]+)", said)
    if named is None:
        return "it holds more than tensors, or is damaged; weights are read without running code"
    return (
        f"it holds {named[1]}, which is no tensor: such a file can run code when it is read. If you trust where it "
        "comes from, load it elsewhere and save its state_dict by safetensors"
    )


def _state(file: Path, content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file}: holds a {type(content).__name__}, wanted a state dict")
    if any(isinstance(value, Tensor) for value in content.values()):
        return content
    for name in INSIDE:
        inner = content.get(name)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return inner
    found = ", ".join(map(repr, list(content)[:8])) or "nothing"
    raise WeightsError(f"{file}: holds no tensors by name, at the top or in {', '.join(INSIDE)}; it has {found}")
