"""What reach promises: no output hangs on more of its input than declared, nor on less."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..case import Case, run
from ..compare import randomise
from ..contract import Broken, NotHere


def reach(case: Case) -> None:
    """A changed position moves outputs within the declared reach only, and moves them at both of its ends."""
    from ...graph.reach import Field, follow, steps

    chains = {port: chain for port, chain in case.entry.reach.items() if port in case.shapes and chain != "all"}
    if not chains:
        raise NotHere
    for port, chain in chains.items():
        if len(case.shapes[port]) != 3:
            continue
        field = follow(Field(), chain, {**case.values, **case.full_args})
        if field is None:  # `center`, which hangs on the length
            words = steps(chain, {**case.values, **case.full_args})
            sized = _long_enough(case, port, words[0][1][0] + 5)
            field = Field().shift((sized.shapes[port][2] - words[0][1][0]) // 2)
            for word, numbers in words[1:]:
                field = getattr(field, word)(*numbers)
        else:
            sized = _long_enough(case, port, field.width + 2 * math.ceil(field.stride) + 2)
        for index, moved in _moved(sized, port).items():
            _within(moved, field, f"{chain!r}" if chain else "'' (pointwise)", port, index)


def _long_enough(case: Case, port: str, least: int) -> Case:
    """The case with its open lengths grown until the port is at least so long."""
    solution = case.solution()
    names = [s for s in solution.symbols if not solution.channels(s)]
    for low in (least * f for f in (1, 2, 4, 8)):
        values = {name: solution.lengths(name, low, 1)[0] for name in names}
        sized = case.resized({**values, "B": 1})
        if sized.shapes[port][2] >= least:
            return sized if sized.shapes[port][2] <= 4096 else case.resized({"B": 1})
    return case.resized({"B": 1})


def _moved(case: Case, port: str) -> dict[int, Tensor]:
    """For every track among the outputs: which output positions (columns) move with which input position (rows)."""
    length = case.shapes[port][2]
    wide = case.resized({"B": length})
    module = case.build().double().eval()
    randomise(module)
    one = {name: None if v is None else v[:1] for name, v in case.inputs(dtype=torch.float64).items()}
    repeated = {n: None if v is None else v.repeat(length, *(1,) * (v.dim() - 1)) for n, v in one.items()}
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        still = run(module, one)
        for kind in ("value", "nan"):
            changed = dict(repeated)
            value = repeated[port]
            assert value is not None
            value = value.clone()
            for i in range(length):
                value[i, :, i] = math.nan if kind == "nan" else value[i, :, i].roll(1, 0) * 3 + 1
            changed[port] = value
            for index, (key, made) in enumerate(run(module, changed).items()):
                if made.dim() != 3 or made.shape[0] != length:
                    continue
                differs = ((made - still[key]).abs() > 1e-9) | (made.isnan() != still[key].isnan())
                found[index] = found.get(index, torch.tensor(False)) | differs.any(1)
    assert wide.batch == length
    return found


def _within(moved: Tensor, field: Any, chain: str, port: str, index: int) -> None:
    length, positions = moved.shape
    low_end = high_end = interior = False
    for i in range(positions):
        first, last = math.ceil(field.stride * i + field.low), math.floor(field.stride * i + field.high)
        seen = moved[:, i].nonzero().flatten().tolist()
        for j in seen:
            if not first <= j <= last:
                raise Broken(
                    f"output {index} at position {i} moves with {port!r} at {j}, but the reach {chain} "
                    f"is from {first} to {last}"
                )
        if first >= 0 and last < length:
            interior = True
            low_end |= first in seen
            high_end |= last in seen
    if interior and not (low_end and high_end):
        end = "left" if not low_end else "right"
        raise Broken(f"the reach {chain} of {port!r} is too large: no output {index} moves with its {end} end")
