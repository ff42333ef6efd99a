"""What adapters promise of running: in every context of torch, checkpointed, compiled, exported."""

from __future__ import annotations

import copy
import re
import warnings

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...adapters import AdapterSpec, adapt
from ...adapters.errors import AlreadyAttached
from ..adapter_trial import Trial, gradients, outputs
from ..contract import Broken
from .demands import demand, near, states


def contexts(trial: Trial) -> None:
    """Switched off it is the bare base; contexts nest, and an exception inside leaves things as they were."""
    adapted, x = trial.moved(), trial.place.input()
    on = outputs(adapted, x)
    flags = states(adapted)
    with adapted.bank.disabled():
        off = outputs(adapted, x)
        with adapted.bank.using("default"):
            demand(torch.equal(on, outputs(adapted, x)), "switched on inside off it gives something else")
        demand(torch.equal(off, outputs(adapted, x)), "after an inner context it is not off")
    try:
        with adapted.bank.disabled():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    demand(torch.equal(on, outputs(adapted, x)), "after an exception it is still off")
    demand(states(adapted) == flags, "a context changed a tensor's flag")
    try:
        adapted.add("default", [trial.spec])
    except AlreadyAttached:
        return
    raise Broken("the same name was attached twice")


def pure(trial: Trial) -> None:
    """A forward pass changes nothing: no parameter, buffer, input or random state, and the same pass gives the same."""
    adapted, x = trial.moved(), trial.place.input()
    values, given = copy.deepcopy(adapted.state_dict()), x.clone()
    first = outputs(adapted, x)
    demand(torch.equal(first, outputs(adapted, x)), "a second pass gives something else")
    demand(torch.equal(x, given), "the input was changed in place")
    same = all(torch.equal(v, values[k]) for k, v in adapted.state_dict().items())
    demand(same, "a pass in evaluation changed a tensor")


def norms_rest(trial: Trial) -> None:
    """Norms of the frozen base keep their statistics over training steps."""
    model = _Normed(trial.place.model())
    adapted = adapt(model, [AdapterSpec(trial.kind, glob=[f"model.{trial.place.site}"], **trial.args)])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapted.train()
    optimizer = torch.optim.SGD(adapted.bank.parameters(), lr=1e-3)
    for _ in range(3):
        adapted(trial.place.input()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    demand(not moved, f"three training steps changed {moved}")


class _Normed(nn.Module):
    """A model with two norms that would follow the batches behind it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        from ...layers import RMSBatchNorm

        self.model, self.rms, self.norm = model, RMSBatchNorm(3, dim=1).double(), nn.BatchNorm1d(3).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x)
        y = y.transpose(1, 2) if y.shape[1] != 3 else y.flatten(2)
        return self.norm(self.rms(y))


def functional(trial: Trial) -> None:
    """`torch.func.functional_call` reaches its parameters, and gives autograd's gradients."""
    adapted, x = trial.moved(), trial.place.input()
    wanted = gradients(adapted, x)
    parameters = {k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in adapted.named_parameters()}
    y = torch.func.functional_call(adapted, parameters, (x,))
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(y)
    (y * weights).sum().backward()
    for name, gradient in wanted.items():
        found = parameters[name].grad
        demand(found is not None, f"functional_call does not reach {name}")
        assert found is not None
        near(gradient, found, 1e-9, f"gradients of {name}")


def checkpointed(trial: Trial) -> None:
    """Under checkpointing (not reentrant) gradients are the same."""
    adapted, x = trial.moved(), trial.place.input()
    wanted = gradients(adapted, x)
    found = gradients(adapted, x, lambda given: checkpoint(adapted, given, use_reentrant=False))
    for name, gradient in wanted.items():
        near(gradient, found[name], 1e-10, f"gradients of {name}")


def compiled(trial: Trial) -> None:
    """Compiled in one graph it gives the same, outputs and gradients; switched off, the bare base."""
    torch._dynamo.reset()
    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    hooked, wanted = outputs(adapted, x), gradients(adapted, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quick = torch.compile(adapted, backend="aot_eager", fullgraph=True)
        near(hooked, outputs(quick, x), 1e-4, "eager and compiled outputs")
        found = gradients(adapted, x, quick)
        for name, gradient in wanted.items():
            if float(gradient.norm()) > 1e-5:
                near(gradient, found[name], 1e-3, f"gradients of {name}")
        with adapted.bank.disabled():
            near(outputs(adapted.base, x), outputs(quick, x), 1e-4, "eager and compiled outputs, switched off")
    torch._dynamo.reset()


def exported(trial: Trial) -> None:
    """`torch.export` takes the wrapper, and names its parameters."""
    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(adapted, (x,), strict=False)
    near(outputs(adapted, x), outputs(program.module(), x), 1e-4, "eager and exported outputs")
    state = set(program.state_dict)
    missing = [n for n, _ in adapted.bank.named_parameters() if not any(re.search(re.escape(n), s) for s in state)]
    demand(not missing, f"the exported program has no parameter {missing}")
