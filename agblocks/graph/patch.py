"""A recipe with its bases and overrides applied: the verbs, collected, checked against each other, carried out.

Base, file and command line apply one after the other. Within one file all verbs are collected first, and two that
claim the same node are an error, so their order cannot matter. A verb that names a stage inside a composite is kept in
`inner` until the composite has expanded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import Mark, RecipeError
from .apply import apply
from .find import Source, find, find_from
from .forms import Findings
from .schema import NodeSpec, Recipe, Verb, read_recipe
from .source import Tree, from_override, from_python, read_text

MOST_BASES = 8
MOST_OVERRIDES = 500
ADAPTERS = "adapters"  # the one override that is of no node: adapters=[{adapter: lora, rank: 8}]


@dataclass
class Patched:
    """A recipe after its verbs: inputs, nodes and heads by name, and the verbs that wait for an expansion."""

    name: str = "recipe"
    inputs: dict[str, Tree] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()  # inputs that a call may leave out
    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    keep: list[Tree] = field(default_factory=list)
    cut: list[Tree] = field(default_factory=list)  # edges that are given instead of computed
    adapters: Tree | None = None
    removed: dict[str, Verb] = field(default_factory=dict)
    inner: Inner = field(default_factory=lambda: Inner())
    source: Source | None = None
    broken: set[str] = field(default_factory=set)
    findings: Findings = field(default_factory=Findings)

    def plain(self) -> dict[str, Any]:
        """A self-contained recipe of the same meaning, without bases."""
        made: dict[str, Any] = {"recipe": 1, "name": self.name}
        made["inputs"] = {
            f"{name}?" if name in self.optional else name: tree.plain() for name, tree in self.inputs.items()
        }
        for section, head in (("nodes", False), ("heads", True)):
            made[section] = {name: _plain(spec) for name, spec in self.nodes.items() if spec.head == head}
        made |= self.inner.plain()
        if self.keep:
            made["keep"] = [tree.plain() for tree in self.keep]
        if self.cut:
            made["cut"] = [tree.plain() for tree in self.cut]
        if self.adapters is not None:
            made["adapters"] = self.adapters.plain()
        return {key: value for key, value in made.items() if value not in ({}, [])}


@dataclass
class Inner:
    """Verbs on nodes inside composites, by full name: what to replace, remove and set once they exist."""

    replace: dict[str, NodeSpec] = field(default_factory=dict)
    remove: dict[str, Verb] = field(default_factory=dict)
    set: dict[str, tuple[Tree, Verb]] = field(default_factory=dict)

    def of(self, composite: str) -> Inner:
        """The verbs on nodes inside one composite."""
        prefix = f"{composite}."
        return Inner(*(_under(part, prefix) for part in (self.replace, self.remove, self.set)))

    def names(self) -> Iterable[str]:
        return (*self.replace, *self.remove, *self.set)

    def only(self, names: Iterable[str]) -> Inner:
        """These verbs of it."""
        kept = set(names)
        parts = ({n: v for n, v in part.items() if n in kept} for part in (self.replace, self.remove, self.set))
        return Inner(*parts)  # type: ignore[arg-type]

    def done(self, name: str) -> None:
        """Drop one verb that has been carried out."""
        for part in (self.replace, self.remove, self.set):
            part.pop(name, None)

    def copy(self) -> Inner:
        return Inner(dict(self.replace), dict(self.remove), dict(self.set))

    def forget(self, node: str) -> None:
        """Drop the verbs on what is inside a node that is itself replaced or removed."""
        prefix = f"{node}."
        for part in (self.replace, self.remove, self.set):
            for name in [n for n in part if n.startswith(prefix)]:
                del part[name]

    def plain(self) -> dict[str, Any]:
        return {
            "replace": {name: _plain(spec) for name, spec in self.replace.items()},
            "remove": list(self.remove),
            "set": {name: tree.plain() for name, (tree, _) in self.set.items()},
        }


def _under(part: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name.startswith(prefix)}


def _plain(spec: NodeSpec) -> dict[str, Any]:
    """A node without marks; a recipe that it names is written out in its place."""
    made = spec.plain()
    if spec.recipe is not None and spec.origin is not None:
        made["recipe"] = patched(nested_source(spec, spec.origin)).plain()
    return made


def nested_source(spec: NodeSpec, origin: Source) -> Source:
    """The recipe that stands as a node: written in its place, or named. Raises LookupError."""
    tree = spec.recipe
    assert tree is not None
    return replace(origin, tree=tree) if tree.is_map else find_from(tree.value, origin)


def load(recipe: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Patched:
    """Read a recipe (path, shipped name, YAML text with a newline, or dict), apply its bases and the overrides.

    An override is `node.argument=value`, as on the command line. What is wrong with the form or the verbs is in the
    result's `findings`, so that resolving can go on and report everything at once; RecipeError is raised only where
    there is nothing to go on with.
    """
    if isinstance(recipe, Mapping):
        source = Source(from_python(recipe), "recipe")
    elif isinstance(recipe, str) and "\n" in recipe:
        source = Source(read_text(recipe), "recipe")
    else:
        source = find(recipe)
    return patched(source, overrides)


def patched(source: Source, overrides: Iterable[str] = (), settings: Mapping[str, Tree] | None = None) -> Patched:
    """A recipe source with its bases, overrides and, for a nested recipe, its node's settings applied."""
    findings = Findings()
    layers = _layers(source, findings)
    result = Patched(source=source, findings=findings)
    for layer in reversed(layers):
        apply(layer, result, findings)
    if settings:
        apply(_only_set(dict(settings), {n: t.mark for n, t in settings.items() if t.mark}), result, findings)
    line = _overrides(overrides, findings)
    if line.set or line.adapters is not None:
        apply(line, result, findings)
    # Nodes before heads, as a recipe is written: the order in which weights are drawn.
    result.nodes = dict(sorted(result.nodes.items(), key=lambda item: item[1].head))
    return result


def _layers(source: Source, findings: Findings) -> list[Recipe]:
    """The recipe and its bases, nearest first."""
    layers: list[Recipe] = []
    seen: list[str] = []
    here: Source | None = source
    while here is not None:
        seen.append(str(here.file or here.label))
        layer = read_recipe(here, findings)
        layers.append(layer)
        base = layer.base
        if base is None:
            break
        try:
            here = find_from(base.value, here)
        except LookupError as error:
            findings.find(str(error), base.mark, "base")
            raise RecipeError(findings) from None
        if str(here.file) in seen:
            findings.find(
                f"{base.value!r} is a base of itself: {' -> '.join(map(_stem, [*seen, here.file]))}", base.mark, "base"
            )
            raise RecipeError(findings)
        if len(seen) >= MOST_BASES:
            findings.find(f"more than {MOST_BASES} bases on top of each other", base.mark, "base")
            raise RecipeError(findings)
    return layers


def _stem(path: Any) -> str:
    return Path(path).stem


def _only_set(sets: dict[str, Tree], marks: dict[str, Mark]) -> Recipe:
    return Recipe("recipe", None, {}, {}, (), {}, sets, marks, ())


def _overrides(overrides: Iterable[str], findings: Findings) -> Recipe:
    sets: dict[str, Tree] = {}
    marks: dict[str, Mark] = {}
    adapters: Tree | None = None
    for number, text in enumerate(overrides, 1):
        if number > MOST_OVERRIDES:
            findings.find(f"more than {MOST_OVERRIDES} overrides; write a recipe", Mark("command line", number, 1))
            break
        name, equals, value = text.partition("=")
        mark = Mark("command line", number, 1, "".join(c if c.isprintable() else "?" for c in text))
        if not equals or not name:
            findings.find(f"an override is 'node.argument=value', unlike {text[:60]!r}", mark)
            continue
        if name in sets or (name == ADAPTERS and adapters is not None):
            findings.find(f"{name!r} is set twice", mark, name)
            continue
        try:
            tree = from_override(value, Mark("command line", number, len(name) + 2, mark.text))
        except RecipeError as error:
            findings.extend(error.problems)
            continue
        if name == ADAPTERS:
            adapters = tree
            continue
        sets[name] = tree
        marks[name] = mark
    return replace(_only_set(sets, marks), adapters=adapters)
