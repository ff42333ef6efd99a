"""Values on their way into or out of a file: finite, and of a kind that fits where they go."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import AdapterFileError
from .fingerprint import dtype_name


def refuse_not_finite(where: str | Path, key: str, value: Tensor) -> None:
    """Raise `AdapterFileError` for NaN and infinities."""
    if value.is_floating_point() and not value.is_meta and not bool(torch.isfinite(value).all()):
        raise AdapterFileError(f"{where}: {key!r} holds values that are not finite")


def suited(where: str | Path, key: str, value: Tensor, like: Tensor) -> Tensor:
    """A file's tensor in the type of where it goes.

    Raises `AdapterFileError` where one is of whole and the other of floating numbers, or complex; and for values that
    are not finite, in the file or in that type.
    """
    if value.is_complex() or value.is_floating_point() != like.is_floating_point():
        raise AdapterFileError(f"{where}: {key!r} is {dtype_name(value)}, which is no kind of {dtype_name(like)}")
    refuse_not_finite(where, key, value)
    made = value.to(like.dtype)
    if made is not value and made.is_floating_point() and not bool(torch.isfinite(made).all()):
        raise AdapterFileError(f"{where}: {key!r} holds values in {dtype_name(value)} beyond {dtype_name(like)}")
    return made
