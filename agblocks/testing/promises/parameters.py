"""What parameters promise: each learns, all is saved and copied, and a seed draws them."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...graph.block import reset_parameters
from ..case import AnyCase, Case, run
from ..compare import brief, randomise, same, tensors_of
from ..contract import Broken, NotHere
from ..generous import generous

TINY = 1e-13  # a gradient that is nothing but rounding, in double precision


def gradients(case: AnyCase) -> None:
    """A gradient reaches every parameter, those that start at zero drawn at random first."""
    if isinstance(case, Case) and set(case.shapes) != {p.name for p in case.entry.signature.inputs}:
        raise NotHere  # an absent port's parameters have no gradient
    missing = _unreached(case)
    if missing and (larger := generous(case)) is not None:  # one channel normed, one position pooled: nothing to learn
        missing &= _unreached(larger)
    if missing:
        raise Broken(f"no gradient reaches {', '.join(sorted(missing))}")


def _unreached(case: AnyCase) -> set[str]:
    """The parameters that no gradient reaches, whatever the weights and inputs, in training or evaluation."""
    missing: set[str] = set()
    for trial in range(8):
        module = case.build(seed=case.seed + trial).double().train(trial % 2 == 1)
        randomise(module)
        outputs = run(module, case.inputs(seed=trial, dtype=torch.float64))
        loss = _weighed(outputs)
        if loss is None:
            raise NotHere
        if loss.requires_grad:
            loss.backward()
        now = {n for n, p in module.named_parameters() if p.requires_grad and p.numel() and not _reached(p)}
        missing = now if trial == 0 else missing & now
        if not missing:
            break
    return missing


def _reached(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool((parameter.grad.abs() > TINY).any())


def _weighed(outputs: Mapping[str, Tensor]) -> Tensor | None:
    generator = torch.Generator().manual_seed(5)
    floats = [v for v in outputs.values() if v.is_floating_point()]
    parts = [(v * torch.randn(v.shape, generator=generator).to(v.dtype)).sum() for v in floats]
    return torch.stack(parts).sum() if parts else None


def state_dict(case: AnyCase) -> None:
    """A fresh module that loads the state, strictly, computes the same, also after training has moved statistics."""
    module, inputs = case.build(), case.inputs()
    with torch.no_grad():
        for step in range(2):
            run(module.train(), case.inputs(seed=50 + step), seed=step)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = case.build(seed=case.seed + 100)
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.no_grad():
        same(
            run(module.eval(), inputs),
            run(fresh.eval(), inputs),
            "a module and one that loaded its state_dict",
            lost=[name for name, _ in module.named_buffers() if name not in module.state_dict()],
        )


def seed(case: AnyCase) -> None:
    """The same seed draws the same weights."""
    first, second = tensors_of(case.build(seed=3)), tensors_of(case.build(seed=3))
    same(first, second, "two modules of one seed", tolerance=0.0)


def reset(case: AnyCase) -> None:
    """`reset_parameters` re-draws every parameter and constant as the constructor does, from any garbage."""
    built = [tensors_of(case.build(seed=i)) for i in range(8)]
    drawn = []
    for i in range(8):
        module = case.build(device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for value in tensors_of(module).values():
                value.fill_(math.nan if value.is_floating_point() else True if value.dtype == torch.bool else 77)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(i)
            reset_parameters(module)
        drawn.append(tensors_of(module))
    for name, value in drawn[0].items():
        before, after = [b[name] for b in built], [d[name] for d in drawn]
        if value.is_floating_point() and not bool(value.isfinite().all() or before[0].equal(value)):
            raise Broken(f"{name!r} keeps its garbage (NaN) after reset_parameters")
        if all(torch.equal(before[0], b) for b in before):
            if not all(torch.equal(before[0], a) for a in after):
                raise Broken(f"{name!r} is {brief(before[0])} as built, but {brief(after[0])} after reset_parameters")
        elif value.is_floating_point() and value.numel() * len(after) >= 128:
            stacks = (torch.stack([v.detach().double() for v in values]) for values in (before, after))
            old, new = (stack.square().mean().sqrt() for stack in stacks)
            if not 0.5 < float(new / old.clamp(min=1e-12)) < 2:
                raise Broken(f"{name!r} has size {old:.3g} as built, but {new:.3g} after reset_parameters")


def deepcopy(case: AnyCase) -> None:
    """A deep copy, made after use, computes the same and shares no memory."""
    module, inputs = case.build().eval(), case.inputs()
    with torch.no_grad():
        before = run(module, inputs)
        other = copy.deepcopy(module)
        same(before, run(other, inputs), "a module and its deep copy", tolerance=0.0)
        for value in tensors_of(other).values():
            value.zero_()
        other.eval()
        same(before, run(module, inputs), "a module before and after its deep copy was overwritten", tolerance=0.0)
