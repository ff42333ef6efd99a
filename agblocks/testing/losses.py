"""What a head's loss promises: one finite number, and nothing from what is masked or missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..graph.block import Head
from .case import Case, run
from .compare import apart
from .contract import Broken


def loss(case: Case) -> None:
    """Finite and scalar; NaN targets and masked positions count for nothing; a batch of one works."""
    for at in (case, case.resized({"B": 1})):
        module = at.build().eval()
        assert isinstance(module, Head)
        outputs = _outputs(module, at)
        target = _target(module, outputs)
        _value(module, outputs, target, None, "plain targets")
        _learns(module, at)
        if target.is_floating_point():
            _missing(module, outputs, target)
            _masked(module, outputs, target)


def _outputs(module: Head, case: Case, seed: int | None = None) -> dict[str, Tensor]:
    """The outputs its loss needs, as leaves, so that gradients show what counts."""
    names = [port.name for port in case.entry.signature.outputs]
    with torch.no_grad():
        made = dict(zip(names, run(module, case.inputs(seed=seed)).values(), strict=True))
    for port in module.loss_ports:
        if port not in made:
            raise Broken(f"loss_ports names {port!r}, which is no output: {', '.join(names)}")
    return {port: made[port].requires_grad_(made[port].is_floating_point()) for port in module.loss_ports}


def _target(module: Head, outputs: dict[str, Tensor]) -> Tensor:
    """Targets of the first output's shape, not negative; a head with others has `example_target(outputs)`."""
    example: Any = getattr(module, "example_target", None)
    if example is not None:
        made: Tensor = example(outputs)
        return made
    first = next(iter(outputs.values()))
    return torch.rand(first.shape, generator=torch.Generator().manual_seed(9)) * 4


def _value(module: Head, outputs: dict[str, Tensor], target: Tensor, mask: Tensor | None, what: str) -> Any:
    for value in outputs.values():
        value.grad = None
    found = module.loss(outputs, target, mask)
    if found.dim() != 0:
        raise Broken(f"the loss with {what} is {list(found.shape)}, not one number")
    if not bool(found.isfinite()):
        raise Broken(f"the loss with {what} is {found.item()}")
    if found.requires_grad:
        found.backward()
    gradients = {name: v.grad for name, v in outputs.items() if v.grad is not None}
    for name, gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise Broken(f"the gradient of {name!r} with {what} is not finite")
    return found.detach(), gradients


def _learns(module: Head, case: Case) -> None:
    """A gradient reaches the outputs, for some inputs at least: a head may find nothing to predict in others."""
    for seed in (None, *range(15)):
        outputs = _outputs(module, case, seed)
        _, gradients = _value(module, outputs, _target(module, outputs), None, "plain targets")
        if any(bool(g.any()) for g in gradients.values()):
            return
    raise Broken("no gradient of the loss reaches the outputs")


def _gaps(target: Tensor) -> Tensor:
    """Where targets are missing: here and there, or one of them."""
    gaps = torch.rand(target.shape, generator=torch.Generator().manual_seed(13)) < 0.4
    gaps.view(-1)[0] = True
    return gaps


def _missing(module: Head, outputs: dict[str, Tensor], target: Tensor) -> None:
    gaps = _gaps(target)
    holed = target.masked_fill(gaps, torch.nan)
    found, gradients = _value(module, outputs, holed, None, "NaN among the targets")
    first = next(iter(outputs))
    gradient = gradients.get(first)
    if gradient is not None and gradient.shape == target.shape and bool(gradient[gaps].any()):
        raise Broken("a NaN target counts: the loss has a gradient at its output")
    garbage = torch.where(gaps, torch.full_like(target, 3e3), target)
    masked, _ = _value(module, outputs, garbage, ~gaps, "a mask")
    if message := apart(found, masked, 1e-5):
        raise Broken(f"NaN targets and the same positions masked give different losses: {message}")
    _value(module, outputs, torch.full_like(target, torch.nan), None, "NaN for all targets")


def _masked(module: Head, outputs: dict[str, Tensor], target: Tensor) -> None:
    whole, _ = _value(module, outputs, target, None, "plain targets")
    full, _ = _value(module, outputs, target, torch.ones_like(target, dtype=torch.bool), "a mask that is all True")
    if message := apart(whole, full, 1e-5):
        raise Broken(f"a mask that is all True changes the loss: {message}")
    _value(module, outputs, target, torch.zeros_like(target, dtype=torch.bool), "a mask that is all False")
