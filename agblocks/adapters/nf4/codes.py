"""NF4: four bits a weight, at the quantiles of a normal distribution, with a scale for each block of weights.

Sixteen values: eight positive and seven negative normal quantiles and zero, divided by the largest. Each block of 64
weights, in the order they lie in memory, is divided by its largest magnitude (`absmax`) and rounded to the nearest of
them; two codes make a byte, the first in the high four bits. That is 4.5 bits a weight. Double quantisation takes the
mean off the block scales and stores them in 8 bits, again by blocks, of 256: 4.127 bits a weight.

Bit-equal to bitsandbytes 0.50.2 on a CPU, whose ways were measured, not read: an `absmax` below 1e-38 divides as 1e-38;
the 8 bits are not linear but 127 values of each sign over seven decades (`DYNAMIC`), and a number is rounded to one of
65,536 steps from -1 to 1 before the nearest of them is sought.

Source: Dettmers et al. 2023 (QLoRA); Dettmers et al. 2022 (the dynamic 8 bits).
"""

from __future__ import annotations

import importlib
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AdapterError

BLOCK = 64  # weights that share an absmax
SCALES = 256  # absmax that share a scale in double quantisation
TINY = 1e-38
STEPS = 65_535
ROUTED = 4096  # weights from which bitsandbytes serves, if asked for; odd numbers it would first compile, for seconds
CHUNK = 1 << 20  # weights quantised at once, which bounds the memory that takes
TAIL = 0.9677083  # the outermost quantile: halfway between 1 - 1/30 and 1 - 1/32


def _normal_values() -> Tensor:
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in torch.linspace(TAIL, 0.5, 9)[:-1].tolist()]
    below = [-quantile(p) for p in torch.linspace(TAIL, 0.5, 8)[:-1].tolist()]
    values = torch.tensor(sorted([*below, 0.0, *above]))
    return values / values.max()


def _dynamic_values() -> Tensor:
    """Decade by decade 1, 2, 4, ... 64 values, in the middle of equal parts; and 0 and 1."""
    values = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (i - 6)).tolist()
        values += [*middles, *(-m for m in middles)]
    return torch.tensor(sorted(values))


with torch.device("cpu"):
    NF4 = _normal_values()
    DYNAMIC = _dynamic_values()
    BETWEEN = (NF4[1:] + NF4[:-1]) / 2
    # Both values of each byte, as one number of eight bytes: three times as quick to look up as two of four.
    PAIRS = torch.stack([NF4.repeat_interleave(16), NF4.repeat(16)], 1).view(torch.int64).view(-1)
    NEAREST = torch.bucketize(torch.arange(STEPS + 1) * 2 / STEPS - 1, (DYNAMIC[1:] + DYNAMIC[:-1]) / 2).to(torch.uint8)

_tables: dict[tuple[str, torch.device], Tensor] = {}
_route: dict[str, Any] = {"bitsandbytes": None}


class Packed(NamedTuple):
    """Weights in NF4.

    codes: uint8 (ceil(weights / 2),). absmax: (ceil(weights / block),), float32, or uint8 after double quantisation;
    then scale is float32 (ceil(len(absmax) / 256),), and offset, a float32 number, the mean that was taken off.
    """

    codes: Tensor
    absmax: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None


class NF4Error(AdapterError):
    """Weights that NF4 cannot hold, or a use that packed weights don't allow."""


@torch.no_grad()
def pack(weight: Tensor, *, block: int = BLOCK, double: bool = True) -> Packed:
    """Quantise a tensor of any shape and floating type, in float32, in the order of its elements.

    Raises `NF4Error` for a block that is no power of two of at least 16, other types, and values that are not finite.
    """
    if not isinstance(block, int) or block < 16 or block & (block - 1):
        raise NF4Error(f"a block should be a power of two, 16 or more (64 is usual), not {block!r}")
    if not weight.is_floating_point() or weight.numel() == 0:
        raise NF4Error(f"NF4 holds floating numbers, at least one; these are {tuple(weight.shape)} of {weight.dtype}")
    flat = weight.detach().reshape(-1)
    if weight.device.type == "meta":
        return _meta(flat, block, double)
    parts = [_pack(part.float(), block) for part in flat.split(max(CHUNK, block))]  # whole blocks, but for the last
    codes, absmax = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if not bool(torch.isfinite(absmax).all()):
        raise NF4Error("NF4 holds finite numbers, and there is an infinite one or a NaN (in float32) among the weights")
    return Packed(codes, *_squeezed(absmax)) if double else Packed(codes, absmax)


def _pack(flat: Tensor, block: int) -> tuple[Tensor, Tensor]:
    size = flat.numel()
    rows = F.pad(flat, (0, -size % block)).view(-1, block)
    absmax = rows.abs().amax(1)
    divisor = absmax.clamp(min=TINY)
    codes = torch.bucketize(rows * (1 / divisor)[:, None], _on(flat, "BETWEEN"), out_int32=True).view(-1, 2)
    if size % block:  # of a block that is not full, bitsandbytes stores what it divides by
        absmax[-1] = divisor[-1]
    return (codes[:, 0] * 16 + codes[:, 1]).to(torch.uint8)[: (size + 1) // 2], absmax


def _squeezed(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The second quantisation: 8 bits, a scale for 256, and the mean."""
    offset = absmax.mean()
    size = absmax.numel()
    rows = F.pad(absmax - offset, (0, -size % SCALES)).view(-1, SCALES)
    scale = rows.abs().amax(1)
    # Where all are the mean the scale is 0, the quotient NaN and the step 0: restored, 0 times whatever.
    step = ((rows * (1 / scale)[:, None] + 1) * (STEPS / 2) + 0.5).nan_to_num(nan=0.0).clamp(0, STEPS).int()
    return _on(absmax, "NEAREST").index_select(0, step.view(-1)[:size]), scale, offset


def _meta(flat: Tensor, block: int, double: bool) -> Packed:
    size = -(-flat.numel() // block)
    codes = flat.new_empty((flat.numel() + 1) // 2, dtype=torch.uint8)
    if not double:
        return Packed(codes, flat.new_empty(size, dtype=torch.float32))
    scale = flat.new_empty(-(-size // SCALES), dtype=torch.float32)
    return Packed(codes, flat.new_empty(size, dtype=torch.uint8), scale, flat.new_empty((), dtype=torch.float32))


def absmax(packed: Packed) -> Tensor:
    """The magnitudes that blocks were divided by, float32, out of 8 bits if need be."""
    if packed.scale is None or packed.offset is None:
        return packed.absmax
    values = _on(packed.codes, "DYNAMIC").index_select(0, packed.absmax.int())
    return values * packed.scale.repeat_interleave(SCALES)[: len(values)] + packed.offset


@torch.no_grad()
def unpack(packed: Packed, size: int, *, block: int = BLOCK, dtype: torch.dtype = torch.float32) -> Tensor:
    """The `size` weights that packed ones stand for, flat: value times absmax in float32, rounded once to `dtype`."""
    served = size >= ROUTED and size % 2 == 0 and dtype in (torch.float32, torch.bfloat16, torch.float16)
    if _route["bitsandbytes"] is not None and served:
        return _by_bitsandbytes(packed, size, block, dtype)
    values = _on(packed.codes, "PAIRS").index_select(0, packed.codes.int()).view(torch.float32)[:size]
    if size % block:
        values = F.pad(values, (0, -size % block))
    return values.view(-1, block).mul_(absmax(packed)[:, None]).view(-1)[:size].to(dtype)


@torch.no_grad()
def unpack_rows(packed: Packed, rows: Tensor, width: int, *, block: int = BLOCK) -> Tensor:
    """Some rows (any shape) of a matrix of that width, float32 (*rows.shape, width): nothing else is restored."""
    at = rows[..., None] * width + torch.arange(width, device=rows.device)
    both = _on(packed.codes, "PAIRS").view(torch.float32)
    values = both[packed.codes[at // 2].long() * 2 + at % 2]
    return values * absmax(packed)[at // block]


def use_bitsandbytes(flag: bool) -> None:
    """Let bitsandbytes (the extra `qlora`) restore large weights from now on: the same numbers, quicker. Process-wide.

    Raises `NF4Error` where it cannot be imported. Without this call it is never imported.
    """
    if not flag:
        _route["bitsandbytes"] = None
        return
    try:
        _route["bitsandbytes"] = importlib.import_module("bitsandbytes.functional")
    except ImportError as error:
        raise NF4Error(f"bitsandbytes cannot be imported ({error}); pip install 'agblocks[qlora]'") from error


def _by_bitsandbytes(packed: Packed, size: int, block: int, dtype: torch.dtype) -> Tensor:
    library = _route["bitsandbytes"]
    state = library.QuantState(
        absmax=absmax(packed), shape=torch.Size([size]), dtype=dtype, blocksize=block, quant_type="nf4",
        code=_on(packed.codes, "NF4"),
    )  # fmt: skip
    restored: Tensor = library.dequantize_4bit(packed.codes[:, None], state)
    return restored.reshape(-1)


def _on(like: Tensor, name: str) -> Tensor:
    """A table of this file on a tensor's device."""
    table: Tensor = globals()[name]
    if like.device.type in ("cpu", "meta"):
        return table.to(like.device)
    key = (name, like.device)
    if key not in _tables:
        _tables[key] = table.to(like.device)
    return _tables[key]
