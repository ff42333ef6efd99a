"""What adapters promise of acting: nothing at the start, something once moved, the base left alone."""

from __future__ import annotations

import copy

import torch

from ...adapters import AdapterSpec, adapt
from ...graph.adapter_kinds import lookup
from ..adapter_trial import Trial, gradients, move, outputs
from .demands import demand, near, states

STARTS = 1.0  # how far what is no identity may move outputs untrained, of their norm; prefixes and flanks need 0.8


def says(trial: Trial) -> None:
    """What it is, where it sits, what it costs, where it is from, when to use it."""
    doc = lookup(trial.kind).doc
    for word in ("Sites", "Parameters", "Source", "Use when"):
        demand(f"{word}:" in doc, f"its docstring has no '{word}:'")


def as_data(trial: Trial) -> None:
    """Its spec comes back from JSON and, where it has no nested values, from the command line's form."""
    spec = trial.spec
    demand(AdapterSpec.from_dict(spec.to_dict()) == spec, "from_dict(to_dict()) is another spec")
    demand(set(spec.args) == set(lookup(trial.kind).annotations), "an argument is not in the spec")
    demand(AdapterSpec.parse(str(spec)) == spec, f"{str(spec)!r} is read as another spec")


def identity(trial: Trial) -> None:
    """At the start it changes nothing, to the bit, in evaluation and for its own probe, or says so and changes little.

    What makes no such claim (`identity` is False) may move the outputs by `STARTS` of their norm with its defaults.
    """
    adapted, x = trial.adapted(), trial.place.input()
    with adapted.bank.disabled():
        bare = outputs(adapted, x)
    made = outputs(adapted, x)
    demand(bool(torch.isfinite(made).all()), "outputs are not finite at the start")
    if all(adapter.identity for adapter in adapted.bank.adapters("default")):
        demand(torch.equal(bare, made), "it claims to change nothing at the start")
        trial.adapted(probe=x)
    elif not trial.args:  # a large `std` may be asked for
        near(bare, made, STARTS, "outputs with and without it at the start")


def moves(trial: Trial) -> None:
    """Trained, it changes what the model gives."""
    adapted, x = trial.moved(), trial.place.input()
    with adapted.bank.disabled():
        bare = outputs(adapted, x)
    demand(not torch.allclose(bare, outputs(adapted, x), rtol=1e-6), "moved parameters change nothing")


def inactive(trial: Trial) -> None:
    """While another adapter acts, none of its parameters wants a gradient or gets one: DDP would wait for them."""
    adapted, x = trial.adapted().add("other", [trial.spec]), trial.place.input()
    own = {n: p for n, p in adapted.named_parameters() if any(part.startswith("default:") for part in n.split("."))}
    move(adapted)
    for active, wants in (("other", False), ("default", True)):
        adapted.bank.activate(active)
        wrong = [name for name, parameter in own.items() if parameter.requires_grad != wants]
        demand(not wrong, f"with {active!r} active {wrong} {'want no' if wants else 'want'} gradients")
        found = own.keys() & gradients(adapted, x).keys()
        demand(bool(found) == wants, f"with {active!r} active gradients reach {sorted(found)}")


def base_kept(trial: Trial) -> None:
    """Keys, classes, tensors and flags of the base are as they were; ten rounds of attaching leave the same bits."""
    model, x = trial.place.model(), trial.place.input()
    next(model.parameters()).requires_grad_(False)
    before, classes, bare = states(model), [type(m) for m in model.modules()], outputs(model, x)
    keys, values = list(model.state_dict()), copy.deepcopy(model.state_dict())
    for _ in range(10):
        adapted = adapt(model, [trial.spec])
        demand(list(model.state_dict()) == keys, "attached, the base has other keys")
        demand([type(m) for m in model.modules()] == classes, "attached, a module is of another class")
        demand(not any(p.requires_grad for p in model.parameters()), "attached, the base wants gradients")
        outputs(adapted, x)
        demand(adapted.detach() is model, "detach gives another object")
    demand(states(model) == before, "a tensor is another one, or has another flag, after detaching")
    demand(all(torch.equal(v, values[k]) for k, v in model.state_dict().items()), "a value changed")
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    demand(not hooks, "hooks are left")
    demand(torch.equal(bare, outputs(model, x)), "the base gives something else after detaching")


def trains(trial: Trial) -> None:
    """A gradient reaches every parameter once it has moved, some at the start, and none the base."""
    x = trial.place.input()
    start = gradients(trial.adapted(), x)
    demand(any(bool(g.abs().max() > 0) for g in start.values()), "no parameter has a gradient at the start")
    adapted = trial.moved()
    found = gradients(adapted, x)
    wanted = {f"bank.{name}" for name, _ in adapted.bank.named_parameters()}
    missing = {name for name in wanted if name not in found or not bool(found[name].abs().max() > 0)}
    if missing:  # a single ReLU may rest wherever it is looked at: from other values it does not
        again = trial.adapted()
        move(again, seed=5)
        now = gradients(again, x)
        missing = {name for name in missing if name not in now or not bool(now[name].abs().max() > 0)}
    excused = set(getattr(lookup(trial.kind).target, "flat", ()))
    missing = {name for name in missing if name.rpartition(".")[2] not in excused}
    demand(not missing, f"no gradient reaches {sorted(missing)}")
    demand(set(found) <= wanted, f"the base has gradients: {sorted(set(found) - wanted)}")
