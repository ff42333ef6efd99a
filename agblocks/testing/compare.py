"""How far results of two ways are apart, and what is done before they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError
from .case import Inputs
from .contract import Broken


def device_for(work: Callable[[str], object]) -> str:
    """The meta device where that work runs there, else the CPU."""
    try:
        work("meta")
    except InputError:
        return "meta"
    except (RuntimeError, NotImplementedError):
        return "cpu"
    return "meta"


def randomise(module: nn.Module) -> None:
    """Draw parameters that are zero throughout, so that what hangs on them shows."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() and not bool(parameter.any()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    module.train(module.training)  # what was computed from the old values is dropped


def apart(left: Tensor, right: Tensor, tolerance: float = 1e-4) -> str | None:
    """How far two tensors are apart, in words, or None."""
    if left.shape != right.shape:
        return f"{list(left.shape)} and {list(right.shape)}"
    if torch.equal(left, right):
        return None
    left, right = left.double(), right.double()
    if bool((left.isnan() != right.isnan()).any()):
        return "NaN in one, none in the other"
    left, right = left.nan_to_num(), right.nan_to_num()
    scale = max(float(left.abs().max()), 1e-3) if left.numel() else 1.0
    largest = float((left - right).abs().max()) if left.numel() else 0.0
    return f"by {largest:.3g}, where values are up to {scale:.3g}" if largest > tolerance * scale else None


def same(
    left: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    what: str,
    *,
    tolerance: float = 1e-4,
    lost: Iterable[str] = (),
) -> None:
    """Raise `Broken` where two sets of tensors differ."""
    if left.keys() != right.keys():
        raise Broken(f"{what} differ: {sorted(left.keys() ^ right.keys())}")
    for name in left:
        if message := apart(left[name], right[name], tolerance):
            note = f"; not in the state_dict: {', '.join(lost)}" if lost else ""
            raise Broken(f"{what} differ in {name!r}: {message}{note}")


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, persistent or not."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def rows_of(inputs: Inputs) -> int:
    """Rows in the batch."""
    return next(len(v) for v in inputs.values() if v is not None)


def brief(value: Tensor) -> str:
    """The first values of a tensor."""
    flat = value.detach().flatten()[:4].tolist()
    return f"[{', '.join(f'{x:.4g}' for x in flat)}{', ...' if value.numel() > 4 else ''}]"
