"""The promises that hold for every block, head and composite, each a function from a case that raises `Broken`."""

from __future__ import annotations

import copy
import io
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..graph.block import reset_parameters
from ..graph.build import build
from ..graph.resolve import resolve
from . import oracle
from .case import AnyCase, Case, Inputs, run
from .contract import Broken, NotHere
from .generous import generous

TINY = 1e-13  # a gradient that is nothing but rounding, in double precision


# Shapes


def shape(case: AnyCase) -> None:
    """Declared shape = real shape: on the meta device, else with fake tensors, and on the CPU; and by the algebra."""
    expected = case.expected()
    if isinstance(case, Case):
        _algebra(case, expected)
    try:
        made = run(case.build(device="meta").eval(), case.inputs(device="meta"))
    except (NotImplementedError, RuntimeError) as error:
        made = _faked(case, error)
    _shaped(made, expected, "on the meta device")
    _shaped(run(case.build().eval(), case.inputs()), expected, "on the CPU")


def _algebra(case: Case, expected: list[tuple[int, ...]]) -> None:
    """What the graph derives symbolically is what the oracle finds in numbers."""
    from ..graph.infer import EdgeInfo, bind, outputs

    solution = case.solution()
    wired = {
        port.name: EdgeInfo(solution.axes[port.name], integer=port.integer)
        for port in case.entry.signature.inputs
        if port.name in solution.axes
    }
    bound = bind(case.entry, case.full_args, wired, {name: name for name in wired}, "node")
    made = outputs(case.entry, bound, wired, "node")
    values = {s: v for s, v in case.values.items() if v is not None}
    derived = [tuple(d if isinstance(d, int) else d.at(values) for d in info.axes) for info in made.values()]
    if derived != expected:
        raise Broken(f"the graph derives {derived}, but the signature's text says {expected}")


def _faked(case: AnyCase, error: Exception) -> dict[str, Tensor]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it prints every exception it passes on
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return run(case.build().eval(), case.inputs())
    except Exception:
        raise error from None
    finally:
        log.setLevel(level)


def _shaped(made: Mapping[str, Tensor], expected: list[tuple[int, ...]], where: str) -> None:
    if len(made) != len(expected):
        raise Broken(f"{len(made)} outputs {where}, but {len(expected)} are declared")
    for index, (value, wanted) in enumerate(zip(made.values(), expected, strict=True)):
        if tuple(value.shape) != wanted:
            raise Broken(f"output {index} should be {list(wanted)}, but is {list(value.shape)} {where}")


# Values


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
    batch = _batch(inputs)
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


# Weights


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
    first, second = _tensors(case.build(seed=3)), _tensors(case.build(seed=3))
    same(first, second, "two modules of one seed", tolerance=0.0)


def reset(case: AnyCase) -> None:
    """`reset_parameters` re-draws every parameter and constant as the constructor does, from any garbage."""
    built = [_tensors(case.build(seed=i)) for i in range(8)]
    drawn = []
    for i in range(8):
        module = case.build(device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for value in _tensors(module).values():
                value.fill_(math.nan if value.is_floating_point() else True if value.dtype == torch.bool else 77)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(i)
            reset_parameters(module)
        drawn.append(_tensors(module))
    for name, value in drawn[0].items():
        before, after = [b[name] for b in built], [d[name] for d in drawn]
        if value.is_floating_point() and not bool(value.isfinite().all() or before[0].equal(value)):
            raise Broken(f"{name!r} keeps its garbage (NaN) after reset_parameters")
        if all(torch.equal(before[0], b) for b in before):
            if not all(torch.equal(before[0], a) for a in after):
                raise Broken(f"{name!r} is {_brief(before[0])} as built, but {_brief(after[0])} after reset_parameters")
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
        for value in _tensors(other).values():
            value.zero_()
        other.eval()
        same(before, run(module, inputs), "a module before and after its deep copy was overwritten", tolerance=0.0)


# Lengths


def lengths(case: Case) -> None:
    """Through a model of this one node: works at every length its rule admits, and refuses others by the rule."""
    recipe = one_node(case)
    solution = case.solution()
    resolved = resolve(recipe)
    rule = resolved.rule(resolved.keep)
    device = device_for(lambda device: run(case.build(device=device).eval(), case.inputs(device=device)))
    model = build(resolved, device=device).eval()
    for name in solution.symbols:
        if solution.channels(name):
            continue
        fits = list(islice(rule.lengths(name), 6))
        for value in sorted({*fits, *range(1, min(fits[-1], 40) + 1)}):
            tried = case_at(case, {name: value}) if rule.admits({name: value}) else None
            inputs = {p: torch.zeros(s, device=device) for p, s in _shapes_at(case, name, value).items()}
            inputs = {p: v.long() if _integer(case, p) else v for p, v in inputs.items()}
            try:
                made = model(**inputs)
            except InputError as error:
                if tried is not None:
                    raise Broken(f"{name} = {value} is admitted by the rule, but refused: {error}") from None
                if str(rule) not in str(error):
                    raise Broken(f"{name} = {value} is refused without naming the rule: {error}") from None
                continue
            if tried is None:
                raise Broken(f"{name} = {value} is accepted, though the rule is: {rule}")
            _shaped(made, tried.expected(), f"at {name} = {value}")


def one_node(case: Case) -> dict[str, Any]:
    """A recipe of this block alone. `NotHere` where its ports cannot be inputs of a model."""
    solution, texts = case.solution(), oracle.ports(str(case.entry.signature))[0]
    inputs = {}
    for port, axes in solution.axes.items():
        written = []
        for index, (axis, text) in enumerate(zip(axes, texts[port].axes, strict=True)):
            bare = text.partition(">=")[0]
            if isinstance(axis, int):
                written.append(str(axis))
            elif not bare.isidentifier() or not bare[0].isupper():
                raise NotHere  # a length that depends on another port's
            elif bare != "B" and (solution.channels(bare) or (index == 1 and len(axes) in (2, 3))):
                written.append(str(case.values[bare]))
            else:
                written.append(bare)
        below = texts[port].below if _integer(case, port) and len(axes) > 1 else None
        inputs[port] = " ".join(written) + (
            f" < {below if below[0].isupper() else case.values[below]}" if below else ""
        )
    node = {"block": case.block, "in": {port: port for port in inputs}, "args": dict(case.full_args)}
    ports = [p.name for p in case.entry.signature.outputs[1:]]
    return {"recipe": 1, "inputs": inputs, "nodes": {"node": node}, "keep": ["node", *(f"node.{p}" for p in ports)]}


def case_at(case: Case, values: Mapping[str, int]) -> Case:
    """The case at other lengths; a case whose lengths do not fit is `Broken` as the rule admitted them."""
    resized = case.resized(values)
    try:
        resized.expected()
    except oracle.Unfit as error:
        raise Broken(f"{dict(values)} is admitted by the rule, but not by the signature: {error}") from None
    return resized


def _shapes_at(case: Case, name: str, value: int) -> dict[str, tuple[int, ...]]:
    return dict(case.resized({name: value}).shapes)


def _integer(case: Case, port: str) -> bool:
    return next(p.integer for p in case.entry.signature.inputs if p.name == port)


# Reach


def reach(case: Case) -> None:
    """A changed position moves outputs within the declared reach only, and moves them at both of its ends."""
    from ..graph.reach import Field, follow, steps

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


# Helpers


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


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, persistent or not."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _batch(inputs: Inputs) -> int:
    return next(len(v) for v in inputs.values() if v is not None)


def _brief(value: Tensor) -> str:
    flat = value.detach().flatten()[:4].tolist()
    return f"[{', '.join(f'{x:.4g}' for x in flat)}{', ...' if value.numel() > 4 else ''}]"
