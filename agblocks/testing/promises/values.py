"""What values promise: the same again, each row by itself, inputs left alone, dtypes kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..case import AnyCase, run
from ..compare import apart, randomise, rows_of, same
from ..contract import Broken


def repeatable(case: AnyCase) -> None:
    """In evaluation a call depends on weights and inputs only, and leaves both as they were."""
    module, inputs = case.build().eval(), case.inputs()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        first, second = run(module, inputs, seed=1), run(module, inputs, seed=2)
    same(first, second, "two calls on the same inputs", tolerance=0.0)
    same(before, module.state_dict(), "the state before and after a call", tolerance=0.0)


def rows(case: AnyCase) -> None:
    """In evaluation a row of the batch does not see the other rows."""
    module, inputs, others = case.build().eval(), case.inputs(), case.inputs(seed=77)
    randomise(module)
    batch = rows_of(inputs)
    with torch.no_grad():
        whole = run(module, inputs)
        for row in range(batch):
            mixed = {
                name: None if a is None else torch.cat([(b if i != row else a)[i : i + 1] for i in range(batch)])
                for (name, a), b in zip(inputs.items(), others.values(), strict=True)
                for b in [_louder(b)]
            }
            for index, value in run(module, mixed).items():
                if value.shape[:1] != (batch,):
                    continue
                if message := apart(whole[index][row], value[row]):
                    raise Broken(f"output {index} of row {row} changes with the other rows of the batch: {message}")


def _louder(value: Tensor | None) -> Any:
    """Other rows ten times as loud, so that what leaks shows; DNA and whole numbers as they are."""
    if value is None or not value.is_floating_point() or bool(((value == 0) | (value == 1)).all()):
        return value
    return value * 10


def inputs_kept(case: AnyCase) -> None:
    """No input is written to, in training or in evaluation."""
    for training in (True, False):
        module, inputs = case.build().train(training), case.inputs()
        given = [None if v is None else v.clone() for v in inputs.values()]
        versions = [None if v is None else v._version for v in given]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module(*given)
        for (name, kept), value, version in zip(inputs.items(), given, versions, strict=True):
            if kept is not None and value is not None and (value._version != version or not torch.equal(kept, value)):
                raise Broken(f"input {name!r} is changed in place in {'training' if training else 'evaluation'}")


def dtype(case: AnyCase) -> None:
    """Inputs and weights of one type give outputs of that type, and finite ones."""
    for wanted in (torch.float64, torch.bfloat16):
        module, inputs = case.build().to(wanted), case.inputs(dtype=wanted)
        for training in (False, True):
            with torch.no_grad():
                made = run(module.train(training), inputs)
            for (index, value), whole in zip(made.items(), case.integer_outputs(), strict=True):
                if whole:
                    if value.is_floating_point():
                        raise Broken(f"output {index} is declared to be whole numbers, but is {value.dtype}")
                elif value.dtype != wanted:
                    raise Broken(f"output {index} is {value.dtype}, though inputs and weights are {wanted}")
                elif not training and not bool(value.isfinite().all()):
                    raise Broken(f"output {index} is not finite under {wanted}")
