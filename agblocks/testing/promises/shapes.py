"""What shapes promise: as declared, on every device, and as long as the signature says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...graph.build import build
from ...graph.resolve import resolve
from .. import oracle
from ..case import AnyCase, Case, run
from ..compare import device_for
from ..contract import Broken, NotHere


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
    from ...graph.infer import EdgeInfo, bind, outputs

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
