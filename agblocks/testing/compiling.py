"""Compiled and exported, a block computes the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .case import AnyCase, Inputs, run
from .compare import apart, randomise, same
from .contract import Broken


def compiled(case: AnyCase) -> None:
    """`torch.compile(fullgraph=True)` with the backend `aot_eager`: same outputs, same gradients."""
    _compiled(case, "aot_eager")


def inductor(case: AnyCase) -> None:
    """`torch.compile(fullgraph=True)` with inductor: same outputs, same gradients."""
    _compiled(case, "inductor")


def _compiled(case: AnyCase, backend: str) -> None:
    module = case.build().eval()
    randomise(module)
    breaks = getattr(getattr(getattr(case, "entry", None), "target", None), "graph_breaks", None)
    torch._dynamo.reset()
    quick = torch.compile(module, backend=backend, fullgraph=not breaks)
    inputs = case.inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, plain_gradients = _with_gradients(module, inputs, module)
        made, made_gradients = _with_gradients(quick, inputs, module)
    same(plain, made, "plain and compiled outputs", tolerance=1e-3)
    # Terms that cancel (a bias on keys) leave the rounding of the largest ones, in another order another rounding.
    rounding = 1e-6 * max((float(g.abs().max()) for g in plain_gradients.values() if g.numel()), default=0.0)
    for name, gradient in plain_gradients.items():
        close = torch.allclose(gradient, made_gradients[name], rtol=0, atol=rounding)
        if not close and (message := apart(gradient, made_gradients[name], 1e-3)):
            raise Broken(f"plain and compiled gradients of {name!r} differ: {message}")
    torch._dynamo.reset()


def _with_gradients(call: Any, inputs: Inputs, module: nn.Module) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    outputs = run(call, inputs)
    parts = [value.float().square().sum() for value in outputs.values() if value.requires_grad]
    weights = [p for p in module.parameters() if p.requires_grad]
    if parts and weights:
        torch.stack(parts).sum().backward()
    found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in outputs.items()}, found


def exported(case: AnyCase) -> None:
    """`torch.export` takes it, and the exported program computes the same."""
    module, inputs = case.build().eval(), case.inputs()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tuple(inputs.values()), strict=False)
        same(run(module, inputs), run(program.module(), inputs), "plain and exported outputs", tolerance=1e-3)
