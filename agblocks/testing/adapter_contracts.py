"""The contracts of a kind of adapter: what every one keeps, wherever it can sit."""

from __future__ import annotations

import copy
import io
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..adapters import Adapted, AdapterSpec, Kind, adapt
from ..adapters.errors import AlreadyAttached, MergedStateError, NotMergeable
from ..graph.adapter_kinds import lookup
from .adapter_trial import Trial, gradients, move, outputs, trials
from .contract import Broken

STARTS = 1.0  # how far what is no identity may move outputs untrained, of their norm; prefixes and flanks need 0.8


@dataclass(frozen=True)
class AdapterContract:
    """A promise that every kind of adapter keeps."""

    name: str
    says: str
    check: Callable[[Trial], None]
    few: bool = False  # costly: on two models, not on all


def check_adapter(kind: str | type, *names: str) -> None:
    """Try every contract (or those named) on a kind, wherever it can sit. Raises `Broken` with a line to see it again.

    Use when: you have written a kind of adapter. `check_adapter("lora")`, `check_adapter(MyAdapter)`.
    """
    entry: Kind = lookup(kind) if isinstance(kind, str) else kind.kind  # type: ignore[attr-defined]
    for contract in ADAPTER_CONTRACTS if not names else [named(name) for name in names]:
        found = trials(entry)
        for trial in [found[0], found[-1]] if contract.few else found:
            try:
                contract.check(trial)
            except Exception as error:
                told = f"{entry.name!r} breaks {contract.name!r} ({contract.says})\n  {type(error).__name__}: {error}"
                raise Broken(f"{told}\n  to see it again: {trial!r}.check({contract.name!r})") from error


def named(name: str) -> AdapterContract:
    """A contract by name."""
    for contract in ADAPTER_CONTRACTS:
        if contract.name == name:
            return contract
    raise KeyError(f"there is no contract {name!r}; there are {', '.join(c.name for c in ADAPTER_CONTRACTS)}")


def _demand(truth: bool, message: str) -> None:
    if not truth:
        raise Broken(message)


def _near(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    size = max(float(a.double().norm()), 1e-30)
    distance = float((a.double() - b.double()).norm()) / size
    _demand(distance <= tolerance, f"{what} differ by {distance:.2e} of their norm, {tolerance:.0e} allowed")


def _states(model: nn.Module) -> dict[str, tuple[int, torch.dtype, bool]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(t), t.dtype, t.requires_grad) for name, t in tensors}


def says(trial: Trial) -> None:
    """What it is, where it sits, what it costs, where it is from, when to use it."""
    doc = lookup(trial.kind).doc
    for word in ("Sites", "Parameters", "Source", "Use when"):
        _demand(f"{word}:" in doc, f"its docstring has no '{word}:'")


def as_data(trial: Trial) -> None:
    """Its spec comes back from JSON and, where it has no nested values, from the command line's form."""
    spec = trial.spec
    _demand(AdapterSpec.from_dict(spec.to_dict()) == spec, "from_dict(to_dict()) is another spec")
    _demand(set(spec.args) == set(lookup(trial.kind).annotations), "an argument is not in the spec")
    _demand(AdapterSpec.parse(str(spec)) == spec, f"{str(spec)!r} is read as another spec")


def identity(trial: Trial) -> None:
    """At the start it changes nothing, to the bit, in evaluation and for its own probe, or says so and changes little.

    What makes no such claim (`identity` is False) may move the outputs by `STARTS` of their norm with its defaults.
    """
    adapted, x = trial.adapted(), trial.place.input()
    with adapted.bank.disabled():
        bare = outputs(adapted, x)
    made = outputs(adapted, x)
    _demand(bool(torch.isfinite(made).all()), "outputs are not finite at the start")
    if all(adapter.identity for adapter in adapted.bank.adapters("default")):
        _demand(torch.equal(bare, made), "it claims to change nothing at the start")
        trial.adapted(probe=x)
    elif not trial.args:  # a large `std` may be asked for
        _near(bare, made, STARTS, "outputs with and without it at the start")


def moves(trial: Trial) -> None:
    """Trained, it changes what the model gives."""
    adapted, x = trial.moved(), trial.place.input()
    with adapted.bank.disabled():
        bare = outputs(adapted, x)
    _demand(not torch.allclose(bare, outputs(adapted, x), rtol=1e-6), "moved parameters change nothing")


def inactive(trial: Trial) -> None:
    """While another adapter acts, none of its parameters wants a gradient or gets one: DDP would wait for them."""
    adapted, x = trial.adapted().add("other", [trial.spec]), trial.place.input()
    own = {n: p for n, p in adapted.named_parameters() if any(part.startswith("default:") for part in n.split("."))}
    move(adapted)
    for active, wants in (("other", False), ("default", True)):
        adapted.bank.activate(active)
        wrong = [name for name, parameter in own.items() if parameter.requires_grad != wants]
        _demand(not wrong, f"with {active!r} active {wrong} {'want no' if wants else 'want'} gradients")
        found = own.keys() & gradients(adapted, x).keys()
        _demand(bool(found) == wants, f"with {active!r} active gradients reach {sorted(found)}")


def base_kept(trial: Trial) -> None:
    """Keys, classes, tensors and flags of the base are as they were; ten rounds of attaching leave the same bits."""
    model, x = trial.place.model(), trial.place.input()
    next(model.parameters()).requires_grad_(False)
    before, classes, bare = _states(model), [type(m) for m in model.modules()], outputs(model, x)
    keys, values = list(model.state_dict()), copy.deepcopy(model.state_dict())
    for _ in range(10):
        adapted = adapt(model, [trial.spec])
        _demand(list(model.state_dict()) == keys, "attached, the base has other keys")
        _demand([type(m) for m in model.modules()] == classes, "attached, a module is of another class")
        _demand(not any(p.requires_grad for p in model.parameters()), "attached, the base wants gradients")
        outputs(adapted, x)
        _demand(adapted.detach() is model, "detach gives another object")
    _demand(_states(model) == before, "a tensor is another one, or has another flag, after detaching")
    _demand(all(torch.equal(v, values[k]) for k, v in model.state_dict().items()), "a value changed")
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    _demand(not hooks, "hooks are left")
    _demand(torch.equal(bare, outputs(model, x)), "the base gives something else after detaching")


def trains(trial: Trial) -> None:
    """A gradient reaches every parameter once it has moved, some at the start, and none the base."""
    x = trial.place.input()
    start = gradients(trial.adapted(), x)
    _demand(any(bool(g.abs().max() > 0) for g in start.values()), "no parameter has a gradient at the start")
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
    _demand(not missing, f"no gradient reaches {sorted(missing)}")
    _demand(set(found) <= wanted, f"the base has gradients: {sorted(set(found) - wanted)}")


def merge(trial: Trial) -> None:
    """Merged, it gives what it gave hooked (float64, 1e-10); or it is refused by name."""
    adapted, x = trial.moved(), trial.place.input()
    hooked, values = outputs(adapted, x), copy.deepcopy(adapted.base.state_dict())
    module = adapted.base.get_submodule(trial.place.site)
    reasons = [a.unfoldable(module) for a in adapted.bank.adapters("default")]
    if any(reasons):
        try:
            adapted.bank.merge_()
        except NotMergeable as error:
            _demand(trial.place.site in str(error) and trial.kind in str(error), f"the refusal names neither: {error}")
            _demand(torch.equal(hooked, outputs(adapted, x)), "a refused merge changed something")
            return
        raise Broken(f"it says {reasons[0]!r}, but merges")
    twin = adapted.merged()
    _demand(list(twin.state_dict()) == list(values), "the merged copy has other keys")
    _demand(not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules()), "the merged copy has hooks")
    _near(hooked, outputs(twin, x), 1e-10, "hooked and merged outputs")
    adapted.bank.merge_()
    _near(hooked, outputs(adapted, x), 1e-10, "hooked and in-place merged outputs")
    for refused in (lambda: adapted.add("second", [trial.spec]), lambda: adapted.bank.remove("default")):
        try:
            refused()
        except MergedStateError:
            continue
        raise Broken("something was attached or removed while merged")
    adapted.bank.unmerge_()
    same = all(torch.equal(v, values[k]) for k, v in adapted.base.state_dict().items())
    _demand(same, "unmerging does not give the same bits")
    _demand(torch.equal(hooked, outputs(adapted, x)), "after unmerging it gives something else")


def half_merge(trial: Trial) -> None:
    """Merged in float32 it agrees within 1e-5; unmerging gives the same bits in float32 and bfloat16."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        adapted, x = trial.moved(dtype), trial.place.input(dtype)
        module = adapted.base.get_submodule(trial.place.site)
        if any(a.unfoldable(module) for a in adapted.bank.adapters("default")):
            return
        hooked, values = outputs(adapted, x), copy.deepcopy(adapted.base.state_dict())
        adapted.bank.merge_()
        _near(hooked, outputs(adapted, x), tolerance, f"hooked and merged {dtype} outputs")
        adapted.bank.unmerge_()
        same = all(torch.equal(v, values[k]) for k, v in adapted.base.state_dict().items())
        _demand(same, f"unmerging does not give the same {dtype} bits")


def seeded(trial: Trial) -> None:
    """The same seed draws the same values, whatever torch's own random state, which is left alone."""
    model, again = trial.place.model(), trial.place.model()
    state = torch.random.get_rng_state()
    first = adapt(model, [trial.spec]).bank.state_dict()
    _demand(torch.equal(state, torch.random.get_rng_state()), "attaching draws from torch's own random state")
    torch.manual_seed(99)
    second = adapt(again, [trial.spec]).bank.state_dict()
    torch.random.set_rng_state(state)
    _demand(all(torch.equal(v, second[k]) for k, v in first.items()), "values depend on torch's random state")


def on_meta(trial: Trial) -> None:
    """On the meta device it has the same tensors, so that it can be counted before anything is built."""
    with torch.device("meta"):
        model = trial.place.make()
    shapes = {k: (tuple(v.shape), v.dtype) for k, v in adapt(model, [trial.spec]).bank.state_dict().items()}
    real = {k: (tuple(v.shape), v.dtype) for k, v in trial.adapted(torch.float32).bank.state_dict().items()}
    _demand(shapes == real, "other names, shapes or types than on a real device")


def saved(trial: Trial) -> None:
    """Saved alone and loaded into a fresh base it gives the same bits."""
    from ..adapters.files.store import load

    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        adapted.save(path)
        fresh = load(trial.place.model(torch.float32), path)
    _demand(torch.equal(outputs(adapted, x), outputs(fresh, x)), "loaded, it gives something else")


def copied(trial: Trial) -> None:
    """A deep copy gives the same and shares nothing, of the whole as of the hooked base; torch.save brings it back."""
    adapted, x = trial.moved(), trial.place.input()
    hooked = outputs(adapted, x)
    twin, bare = copy.deepcopy(adapted), copy.deepcopy(adapted.base)
    file = io.BytesIO()
    torch.save(adapted, file)
    file.seek(0)
    for other, what in ((twin, "a deep copy"), (bare, "a copy of the base"),
                        (torch.load(file, weights_only=False), "a pickle")):  # fmt: skip
        _demand(torch.equal(hooked, outputs(other, x)), f"{what} gives something else")
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.zero_()
    _demand(torch.equal(hooked, outputs(twin, x)), "a deep copy follows the original's parameters")
    _demand(torch.equal(hooked, outputs(bare, x)), "a copy of the base follows the original's parameters")
    adapted.detach()
    _demand(torch.equal(hooked, outputs(twin, x)), "detaching takes the copy's hooks away")


def dtypes(trial: Trial) -> None:
    """On bases in half precision and under autocast its parameters are float32; what goes on has the base's type."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        adapted, x = trial.moved(dtype), trial.place.input(dtype)
        with adapted.bank.disabled():
            bare = outputs(adapted, x)
        made = outputs(adapted, x)
        _demand(made.dtype == bare.dtype, f"on {dtype} it gives {made.dtype}")
        _demand(bool(torch.isfinite(made).all()), f"on {dtype} it gives what is not finite")
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        kinds = {p.dtype for p in adapted.bank.parameters()}
        _demand(kinds <= {wanted}, f"on {dtype} its parameters are {kinds}")
        _demand(
            all(g.dtype == wanted for g in gradients(adapted, x).values()), f"on {dtype} gradients have another type"
        )
    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        with adapted.bank.disabled():
            bare = outputs(adapted, x)
        made = outputs(adapted, x)
    _demand(made.dtype == bare.dtype, f"under autocast it gives {made.dtype}, not {bare.dtype}")
    _near(outputs(adapted, x), made, 0.1, "outputs with and without autocast")


def contexts(trial: Trial) -> None:
    """Switched off it is the bare base; contexts nest, and an exception inside leaves things as they were."""
    adapted, x = trial.moved(), trial.place.input()
    on = outputs(adapted, x)
    flags = _states(adapted)
    with adapted.bank.disabled():
        off = outputs(adapted, x)
        with adapted.bank.using("default"):
            _demand(torch.equal(on, outputs(adapted, x)), "switched on inside off it gives something else")
        _demand(torch.equal(off, outputs(adapted, x)), "after an inner context it is not off")
    try:
        with adapted.bank.disabled():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    _demand(torch.equal(on, outputs(adapted, x)), "after an exception it is still off")
    _demand(_states(adapted) == flags, "a context changed a tensor's flag")
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
    _demand(torch.equal(first, outputs(adapted, x)), "a second pass gives something else")
    _demand(torch.equal(x, given), "the input was changed in place")
    same = all(torch.equal(v, values[k]) for k, v in adapted.state_dict().items())
    _demand(same, "a pass in evaluation changed a tensor")


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
    _demand(not moved, f"three training steps changed {moved}")


class _Normed(nn.Module):
    """A model with two norms that would follow the batches behind it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        from ..layers import RMSBatchNorm

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
        _demand(found is not None, f"functional_call does not reach {name}")
        assert found is not None
        _near(gradient, found, 1e-9, f"gradients of {name}")


def checkpointed(trial: Trial) -> None:
    """Under checkpointing (not reentrant) gradients are the same."""
    adapted, x = trial.moved(), trial.place.input()
    wanted = gradients(adapted, x)
    found = gradients(adapted, x, lambda given: checkpoint(adapted, given, use_reentrant=False))
    for name, gradient in wanted.items():
        _near(gradient, found[name], 1e-10, f"gradients of {name}")


def compiled(trial: Trial) -> None:
    """Compiled in one graph it gives the same, outputs and gradients; switched off, the bare base."""
    torch._dynamo.reset()
    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    hooked, wanted = outputs(adapted, x), gradients(adapted, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quick = torch.compile(adapted, backend="aot_eager", fullgraph=True)
        _near(hooked, outputs(quick, x), 1e-4, "eager and compiled outputs")
        found = gradients(adapted, x, quick)
        for name, gradient in wanted.items():
            if float(gradient.norm()) > 1e-5:
                _near(gradient, found[name], 1e-3, f"gradients of {name}")
        with adapted.bank.disabled():
            _near(outputs(adapted.base, x), outputs(quick, x), 1e-4, "eager and compiled outputs, switched off")
    torch._dynamo.reset()


def exported(trial: Trial) -> None:
    """`torch.export` takes the wrapper, and names its parameters."""
    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(adapted, (x,), strict=False)
    _near(outputs(adapted, x), outputs(program.module(), x), 1e-4, "eager and exported outputs")
    state = set(program.state_dict)
    missing = [n for n, _ in adapted.bank.named_parameters() if not any(re.search(re.escape(n), s) for s in state)]
    _demand(not missing, f"the exported program has no parameter {missing}")


ADAPTER_CONTRACTS: tuple[AdapterContract, ...] = (
    AdapterContract("says", "its docstring says sites, parameters, source, when to use it", says, few=True),
    AdapterContract("data", "its spec survives JSON and text", as_data),
    AdapterContract("identity", "at the start it changes nothing, to the bit, or little, and says so", identity),
    AdapterContract("inactive", "while another acts it wants no gradients, what its sites share neither", inactive),
    AdapterContract("moves", "trained, it changes the model", moves),
    AdapterContract("base", "the base is as it was, attached and detached", base_kept),
    AdapterContract("trains", "gradients reach all of it and nothing else", trains),
    AdapterContract("merge", "merged equals hooked, and unmerges to the bit; or is refused by name", merge),
    AdapterContract("half", "merging and unmerging in float32 and bfloat16", half_merge),
    AdapterContract("seed", "initial values come from the seed alone", seeded),
    AdapterContract("meta", "it can be counted on the meta device", on_meta),
    AdapterContract("saved", "saved alone and loaded it is the same", saved),
    AdapterContract("copied", "copies and pickles are whole and independent", copied),
    AdapterContract("dtypes", "half precision, float64 and autocast", dtypes),
    AdapterContract("contexts", "switching off and on", contexts),
    AdapterContract("pure", "a forward pass changes nothing", pure),
    AdapterContract("norms", "statistics of frozen norms rest", norms_rest),
    AdapterContract("functional", "functional_call reaches it", functional),
    AdapterContract("checkpoint", "checkpointing gives the same gradients", checkpointed),
    AdapterContract("compile", "torch.compile, one graph", compiled, few=True),
    AdapterContract("export", "torch.export of the wrapper", exported, few=True),
)

__all__ = ["ADAPTER_CONTRACTS", "Adapted", "AdapterContract", "check_adapter", "named"]
