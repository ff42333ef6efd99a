"""Tree to recipe: which keys there are and what form their values have. Nothing is looked up yet."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ..errors import Mark, shown
from .find import Source
from .forms import Findings, entries, mapping, named, text, texts
from .signature import Port, parse_axes
from .source import Tree

VERSION = 1
RECIPE_KEYS = (
    "recipe",
    "name",
    "base",
    "inputs",
    "nodes",
    "heads",
    "remove",
    "replace",
    "set",
    "keep",
    "cut",
    "adapters",
)
NODE_KEYS = ("block", "recipe", "in", "args", "shape")
HEAD_KEYS = (*NODE_KEYS, "weight")
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_INPUT_AXIS = re.compile(r"[A-Z]\w*|[1-9]\d{0,9}", re.ASCII)


@dataclass(frozen=True)
class Verb:
    """What put a thing where it is: `set` at recipes/mine.yaml:5:3."""

    word: str
    mark: Mark | None

    def __str__(self) -> str:
        return f"{self.word} at {self.mark}" if self.mark else self.word


@dataclass(frozen=True)
class NodeSpec:
    """A node or head as a recipe writes it. `inputs` is None where a replacement keeps the wiring it finds."""

    name: str
    head: bool
    block: Tree | None = None
    recipe: Tree | None = None
    inputs: Tree | None = None
    args: dict[str, Tree] = field(default_factory=dict)
    arg_marks: dict[str, Mark] = field(default_factory=dict)
    shape: Tree | None = None
    weight: Tree | None = None
    mark: Mark | None = None
    path: str = ""
    touched: tuple[Verb, ...] = ()
    origin: Source | None = None  # the file that says so, for a recipe it names

    def with_arg(self, name: str, value: Tree, verb: Verb) -> NodeSpec:
        marks = {**self.arg_marks, name: value.mark} if value.mark else self.arg_marks
        return replace(self, args={**self.args, name: value}, arg_marks=marks, touched=(*self.touched, verb))

    def with_input(self, port: str | None, value: Tree, verb: Verb) -> NodeSpec:
        if port is None:
            return replace(self, inputs=value, touched=(*self.touched, verb))
        old = self.inputs if self.inputs is not None and self.inputs.is_map else Tree({}, value.mark)
        if self.inputs is not None and not self.inputs.is_map:
            old = Tree({"": self.inputs}, self.inputs.mark)  # the first port, by position
        wiring = Tree({**old.value, port: value}, old.mark, {**old.keys, **({port: value.mark} if value.mark else {})})
        return replace(self, inputs=wiring, touched=(*self.touched, verb))

    def plain(self) -> dict[str, Any]:
        """The node as a recipe would write it, without marks."""
        made: dict[str, Any] = {}
        for key, tree in (("block", self.block), ("recipe", self.recipe), ("in", self.inputs), ("shape", self.shape)):
            if tree is not None:
                made[key] = tree.plain()
        if isinstance(made.get("in"), dict) and "" in made["in"]:
            made["in"] = dict(made["in"])
        if self.args:
            made["args"] = {name: tree.plain() for name, tree in self.args.items()}
        if self.weight is not None:
            made["weight"] = self.weight.plain()
        return made


@dataclass(frozen=True)
class Recipe:
    """One recipe file as it is written: its parts and its verbs."""

    name: str
    base: Tree | None
    inputs: dict[str, Tree]
    nodes: dict[str, NodeSpec]  # heads too
    remove: tuple[Tree, ...]
    replace: dict[str, NodeSpec]
    set: dict[str, Tree]
    set_marks: dict[str, Mark]
    keep: tuple[Tree, ...]
    cut: tuple[Tree, ...] = ()
    adapters: Tree | None = None  # None where the file says nothing of them
    broken: frozenset[str] = frozenset()  # nodes and inputs of the wrong form: what reads them is not reported again
    optional: frozenset[str] = frozenset()  # inputs that a call may leave out


def read_recipe(source: Source, findings: Findings) -> Recipe:
    """The recipe in a source's tree; whatever has the wrong form is a finding and left out."""
    tree, default_name = source.tree, source.file.stem if source.file else "recipe"
    top = mapping(tree, "", RECIPE_KEYS, findings)
    version = top.get("recipe")
    if version is None or type(version.value) is not int or version.value != VERSION:
        found = version.kind if version else "none"
        findings.find(
            f"the first key should be 'recipe: {VERSION}', the version of the form, but there is {found}",
            version.mark if version else tree.mark,
            "recipe",
        )
    name = text(top.get("name"), "name", findings) or default_name
    base = top.get("base")
    if base is not None and not isinstance(base.value, str):
        findings.find(f"base should be a recipe's name or path, not {base.kind}", base.mark, "base")
        base = None
    inputs, optional, broken = _inputs(top.get("inputs"), findings)
    nodes: dict[str, NodeSpec] = {}
    for section in ("nodes", "heads"):
        for n, t, mark in entries(top.get(section), section, findings):
            if n in nodes or n in inputs:
                other = nodes[n].mark if n in nodes else inputs[n].mark
                findings.find(f"{n!r} is named twice; first at {other}", mark, f"{section}.{n}")
                continue
            problem = unusable_name(n)
            if problem:
                findings.find(problem, mark, f"{section}.{n}")
            spec = _node(n, t, f"{section}.{n}", section == "heads", findings)
            if spec is None or problem:
                broken.add(n)
            else:
                nodes[n] = replace(spec, mark=mark, origin=source)
    replaced: dict[str, NodeSpec] = {}
    for n, t, mark in entries(top.get("replace"), "replace", findings):
        spec = _node(n, t, f"replace.{n}", n.startswith("heads."), findings, wired=False)
        if spec is not None:
            replaced[n] = replace(spec, mark=mark, origin=source, touched=(Verb("replaced", mark),))
    settings = top.get("set")
    sets = dict(named(settings, "set", findings))
    return Recipe(
        name=name,
        base=base,
        inputs=inputs,
        nodes=nodes,
        remove=texts(top.get("remove"), "remove", findings),
        replace=replaced,
        set=sets,
        set_marks=dict(settings.keys) if settings is not None else {},
        keep=texts(top.get("keep"), "keep", findings),
        cut=texts(top.get("cut"), "cut", findings),
        adapters=top.get("adapters"),
        broken=frozenset(broken),
        optional=optional,
    )


def unusable_name(name: str) -> str | None:
    """Why a name cannot be a node's, or None."""
    if not _NAME.fullmatch(name):
        return f"a name is letters, digits and underscores and begins with a letter, unlike {shown(name)}"
    if keyword.iskeyword(name) or name in reserved():
        return f"{name!r} is taken by Python or by torch.nn.Module; choose another name"
    return None


@cache
def reserved() -> frozenset[str]:
    """Names that would hide an attribute of the model, or an argument of its forward."""
    from torch import nn

    from .model import GraphModel

    return frozenset((*dir(nn.Module()), *dir(GraphModel), "self", "outputs", "nodes", "heads", "inputs"))


def input_port(tree: Tree, name: str = "", optional: bool = False) -> Port | str:
    """A recipe's input as a port, or why it is none: axes, and after them `< n` where it holds whole numbers."""
    if not isinstance(tree.value, str):
        return f"an input is written as its axes, like 'B 4 L', not {tree.kind}"
    text, less, below = tree.value.partition(" < ")
    parts = text.split()
    for part in (*parts, *([below] if less else ())):
        if not _INPUT_AXIS.fullmatch(part):
            return f"an input's axis is a number or a capital symbol, like 'B 4 L', unlike {shown(part)}"
    if not parts or parts[0] != "B" or "B" in parts[1:]:
        return f"an input's first axis, and no other, is the batch, 'B', unlike {shown(tree.value)}"
    try:
        return Port(name, parse_axes(text), optional, parse_axes(below)[0] if less else None)
    except ValueError as error:
        return str(error)


def _inputs(tree: Tree | None, findings: Findings) -> tuple[dict[str, Tree], frozenset[str], set[str]]:
    """Inputs by name, which of them a call may leave out (written `name?`), and those of the wrong form."""
    inputs: dict[str, Tree] = {}
    marks: dict[str, Mark | None] = {}
    optional: set[str] = set()
    broken: set[str] = set()
    for written, axes, mark in entries(tree, "inputs", findings):
        name = written.removesuffix("?")
        port = input_port(axes)
        if name in marks:
            findings.find(f"{name!r} is named twice; first at {marks[name]}", mark, f"inputs.{written}")
        elif problem := port if isinstance(port, str) else unusable_name(name):
            findings.find(problem, axes.mark, f"inputs.{written}")
            broken.add(name)
        else:
            inputs[name] = axes
            optional.update([name] if written != name else [])
        marks.setdefault(name, mark)
    return inputs, frozenset(optional), broken


def _node(name: str, tree: Tree, path: str, head: bool, findings: Findings, wired: bool = True) -> NodeSpec | None:
    keys = HEAD_KEYS if head or not wired else NODE_KEYS
    parts = mapping(tree, path, keys, findings)
    block, recipe = parts.get("block"), parts.get("recipe")
    if (block is None) == (recipe is None):
        if tree.is_map:
            findings.find("a node has either 'block' or 'recipe'", tree.mark, path)
        return None
    if block is not None and not isinstance(block.value, str):
        findings.find(f"block should be a registered name, not {block.kind}", block.mark, f"{path}.block")
        return None
    if recipe is not None and not isinstance(recipe.value, str | dict):
        findings.find(f"recipe should be a name, a path or a recipe, not {recipe.kind}", recipe.mark, f"{path}.recipe")
        return None
    inputs = parts.get("in")
    if inputs is None and wired:
        findings.find("a node says what it reads: 'in: edge' or 'in: {port: edge}'", tree.mark, path)
        return None
    if inputs is not None and not _wiring(inputs, f"{path}.in", findings):
        return None
    args = parts.get("args")
    if args is not None and not args.is_map:
        findings.find(f"args should be a mapping from argument to value, not {args.kind}", args.mark, f"{path}.args")
        args = None
    shape = parts.get("shape")
    if shape is not None and not isinstance(shape.value, str):
        findings.find(f"shape should be axes, like 'B 4 L', not {shape.kind}", shape.mark, f"{path}.shape")
        shape = None
    weight = parts.get("weight")
    if weight is not None and (isinstance(weight.value, bool) or not isinstance(weight.value, int | float)):
        findings.find(f"weight should be a number, not {weight.kind}", weight.mark, f"{path}.weight")
        weight = None
    return NodeSpec(
        name=name,
        head=head,
        block=block,
        recipe=recipe,
        inputs=inputs,
        args=dict(args.value) if args else {},
        arg_marks=dict(args.keys) if args else {},
        shape=shape,
        weight=weight,
        mark=tree.mark,
        path=path,
    )


def _wiring(tree: Tree, path: str, findings: Findings) -> bool:
    if isinstance(tree.value, str):
        return True
    if not tree.is_map or not tree.value:
        findings.find(f"in should be an edge's name or a mapping from port to edge, not {tree.kind}", tree.mark, path)
        return False
    good = True
    for port, edge in tree.value.items():
        if not isinstance(edge.value, str):
            findings.find(f"an input is an edge's name, not {edge.kind}", edge.mark, f"{path}.{port}")
            good = False
    return good
