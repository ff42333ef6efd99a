"""One file's verbs, checked against each other and carried out on what its bases made."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..errors import Mark, near
from .claims import Claims
from .forms import Findings
from .schema import NodeSpec, Recipe, Verb, input_port
from .source import Tree

if TYPE_CHECKING:
    from .patch import Patched


def apply(layer: Recipe, result: Patched, findings: Findings) -> None:
    """Carry out one file's verbs on what its bases made."""
    if layer.base is not None or layer.nodes:
        result.name = layer.name
    claims = Claims(findings)
    removed = _removals(layer, result, claims, findings)
    for target, spec in layer.replace.items():
        claims.claim(_bare(target), "replace", spec.mark)
    settings: dict[tuple[str, str], str] = {}
    for target in layer.set:
        owner, rest = _split(target, result)
        claims.claim(owner or target, "set", layer.set_marks.get(target))
        whole = "in" if rest.startswith("in.") else rest
        other = settings.setdefault((owner, whole), target)
        if other != target and (rest == whole or _split(other, result)[1] == whole):
            findings.find(f"{target!r} and {other!r} set the same thing", layer.set_marks.get(target), f"set.{target}")
    for name, spec in layer.nodes.items():
        claims.claim(name, "new", spec.mark)
    result.broken |= layer.broken | claims.disputed

    for name, verb in removed.items():
        if name in claims.disputed:
            continue
        result.inner.forget(name)
        if result.nodes.pop(name, None) is None:
            result.inner.replace.pop(name, None)
            result.inner.remove[name] = verb
        else:
            result.removed[name] = verb
    for name, tree in layer.inputs.items():
        old = result.inputs.get(name)
        kept = name in result.optional
        if old is not None and (old.value != tree.value or kept != (name in layer.optional)):
            said = f"{name}?: {old.value}" if kept else old.value
            note = f"the base has {said!r}" + (f" at {old.mark}" if old.mark else "")
            findings.find(
                f"input {name!r} exists; change it by 'set: {{inputs.{name}: {tree.value}}}'",
                tree.mark,
                f"inputs.{name}",
                note,
            )
        elif name in result.nodes:
            findings.find(f"{name!r} is a node already", tree.mark, f"inputs.{name}")
        result.inputs[name] = tree
    result.optional |= layer.optional
    for name, spec in layer.nodes.items():
        if name in result.nodes:
            findings.find(
                f"{name!r} exists already; use 'replace'", spec.mark, spec.path, f"first at {result.nodes[name].mark}"
            )
        elif name in result.inputs:
            findings.find(f"{name!r} is an input already", spec.mark, spec.path)
        else:
            result.nodes[name] = spec
    for target, spec in layer.replace.items():
        _replace(_bare(target), spec, result, findings)
    for target, value in layer.set.items():
        if _split(target, result)[0] in claims.disputed:
            continue
        _set(target, value, layer.set_marks.get(target), result, findings)
    result.keep.extend(layer.keep)
    result.cut.extend(layer.cut)
    if layer.adapters is not None:  # the whole list: what a base says is replaced, and [] clears it
        result.adapters = layer.adapters


def _bare(target: str) -> str:
    """A node's name without its section: `heads.activity` is `activity`."""
    section, dot, rest = target.partition(".")
    return rest if dot and section in ("nodes", "heads") else target


def _removals(layer: Recipe, result: Patched, claims: Claims, findings: Findings) -> dict[str, Verb]:
    removed: dict[str, Verb] = {}
    for tree in layer.remove:
        pattern = tree.value
        names = [
            n
            for n, spec in result.nodes.items()
            if fnmatchcase(n, pattern) or fnmatchcase(f"{'heads' if spec.head else 'nodes'}.{n}", pattern)
        ]
        owner, dot, _ = pattern.partition(".")
        if not names and dot and (owner in result.nodes or owner in layer.nodes) and "*" not in pattern:
            names = [pattern]  # a node inside a composite
        if not names:
            findings.find(f"there is no node {pattern!r} to remove; {near(pattern, result.nodes)}", tree.mark, "remove")
        for name in names:
            removed.setdefault(name, Verb("removed", tree.mark))
    for name, verb in removed.items():
        claims.claim(name, "remove", verb.mark)
    return removed


def _replace(name: str, spec: NodeSpec, result: Patched, findings: Findings) -> None:
    old = result.nodes.get(name)
    if old is None:
        owner = name.partition(".")[0]
        if "." in name and owner in result.nodes:
            result.inner.forget(name)
            result.inner.remove.pop(name, None)
            result.inner.replace[name] = replace(spec, name=name)
        else:
            findings.find(f"there is no node {name!r} to replace; {near(name, result.nodes)}", spec.mark, spec.path)
        return
    if spec.weight is not None and not old.head:
        findings.find(f"{name!r} is no head, so it has no weight", spec.weight.mark, f"{spec.path}.weight")
    result.inner.forget(name)
    result.nodes[name] = replace(
        spec,
        name=name,
        head=old.head,
        inputs=spec.inputs if spec.inputs is not None else old.inputs,
        weight=spec.weight if spec.weight is not None else old.weight,
    )


def _split(target: str, result: Patched) -> tuple[str, str]:
    """The node that a setting belongs to, and its `argument`, `in` or `in.port`."""
    return split_setting(target if target.partition(".")[0] in result.nodes else _bare(target))


def split_setting(name: str) -> tuple[str, str]:
    """`tower.depth` is `tower` and `depth`; `tower.in.x` is `tower` and `in.x`."""
    parts = name.split(".")
    cut = -2 if len(parts) > 2 and parts[-2] == "in" else -1
    return ".".join(parts[:cut]), ".".join(parts[cut:])


def _set(target: str, value: Tree, mark: Mark | None, result: Patched, findings: Findings) -> None:
    if target.startswith("inputs."):
        _set_input(target.removeprefix("inputs."), value, mark, result, findings)
        return
    owner, rest = _split(target, result)
    top = owner.partition(".")[0]
    if not owner:
        hint = "a setting is named 'node.argument', 'node.in' or 'node.in.port'"
        findings.find(f"{target!r} names no argument of a node", mark, f"set.{target}", hint)
    elif top not in result.nodes:
        was = [f"it was {result.removed[top]}"] if top in result.removed else []
        findings.find(f"there is no node {top!r} to set; {near(top, result.nodes)}", mark, f"set.{target}", *was)
    elif owner in result.nodes:
        result.nodes[owner] = with_setting(result.nodes[owner], rest, value, Verb("set", mark), findings)
    elif owner in result.inner.replace:
        result.inner.replace[owner] = with_setting(
            result.inner.replace[owner], rest, value, Verb("set", mark), findings
        )
    else:
        result.inner.set[f"{owner}.{rest}"] = (value, Verb("set", mark))


def _set_input(name: str, value: Tree, mark: Mark | None, result: Patched, findings: Findings) -> None:
    port = input_port(value)
    if name not in result.inputs:
        findings.find(f"there is no input {name!r}; {near(name, result.inputs)}", mark, f"set.inputs.{name}")
    elif isinstance(port, str):
        findings.find(port, value.mark, f"set.inputs.{name}")
    else:
        result.inputs[name] = value


def is_wiring(name: str) -> bool:
    """Whether a setting's name says what a node reads: `tower.in`, `tower.in.x`."""
    return split_setting(name)[1].partition(".")[0] == "in"


def with_setting(spec: NodeSpec, rest: str, value: Tree, verb: Verb, findings: Findings) -> NodeSpec:
    """A node with `argument`, `in` or `in.port` set."""
    if rest == "in" or rest.startswith("in."):
        edges = list(value.value.values()) if rest == "in" and value.is_map else [value]
        for edge in edges:
            if not isinstance(edge.value, str):
                findings.find(f"an input is an edge's name, not {edge.kind}", edge.mark, f"set.{spec.name}.{rest}")
                return spec
        return spec.with_input(rest[3:] or None, value, verb)
    return spec.with_arg(rest, value, verb)
