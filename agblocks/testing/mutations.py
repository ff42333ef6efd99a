"""Single mutations of a recipe: what people mistype and what an enemy writes. Each is a dict or a YAML text."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]
Mutant = dict[str, Any] | str

NOTHING_SENSIBLE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 65536, 65537, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 0.5, -0.5, 1e308, math.nan,
    math.inf, "", " ", "dna", "encoder", "n0", "n0.out", "n0.stage1", "*", "heads.*", ".", "..", "../x", "/etc/passwd",
    "B", "B 4 L", "B 4 0", "B 4 L/0", "B 4 L*L", "B 4 ceil(L/2)", "L" * 300, "x" * 5000, "\x00", "\x1b[31m", "\u202e",
    "\ud800", "é", "yes", "1e-3", "a: b", "- a", "{", "[", "&a", "*a", "!!python/object:os.system", "<<", "{}", "[]",
    [], {}, [[]], [None], [{}], {"": 1}, {"a": {}}, {"block": "no.such"}, {"block": 3}, ["dna", "dna"],
    {"recipe": "n0"}, {"recipe": {"recipe": 1}},
)  # fmt: skip
KEYS = ("", "x", "in", "args", "block", "heads", "nodes", "forward", "class", "outputs", "a.b", "a b", "1", "__init__",
        "\x00", "n0", "dna", "encoder", "X" * 300, "é")  # fmt: skip
CHARACTERS = "\x00\t\n\r :{}[],&*!|>'\"%@`#-?0aé\u2028\ufeff\x85"


def mutations(recipe: Mapping[str, Any]) -> st.SearchStrategy[Mutant]:
    """One mutation of a recipe."""
    return _mutants(dict(recipe))


@st.composite
def _mutants(draw: st.DrawFn, recipe: dict[str, Any]) -> Mutant:
    tree = copy.deepcopy(recipe)
    made = draw(st.sampled_from(MUTATORS))(draw, tree)
    if isinstance(made, dict) and draw(st.booleans()):
        return as_text(made)
    return made


def as_text(tree: Any, twice: Path = ()) -> str:
    """A recipe as YAML in flow style, a line for each value; the key at `twice` is given twice."""
    return _flow(tree, twice, 0) + "\n"


def _flow(tree: Any, twice: Path, depth: int) -> str:
    pad = " " * (min(depth, 20) + 1)
    if isinstance(tree, dict):
        lines = []
        for key, value in tree.items():
            line = f"{pad}{json.dumps(key)}: {_flow(value, twice[1:] if twice[:1] == (key,) else (), depth + 1)}"
            lines += [line, line] if twice == (key,) else [line]
        return "{\n" + ",\n".join(lines) + "}"
    if isinstance(tree, list):
        parts = [_flow(v, twice[1:] if twice[:1] == (i,) else (), depth + 1) for i, v in enumerate(tree)]
        return "[" + ",\n".join(f"{pad}{part}" for part in parts) + "]"
    if isinstance(tree, float) and not math.isfinite(tree):
        return ".nan" if math.isnan(tree) else ".inf"
    return json.dumps(tree)


def paths(tree: Any, here: Path = ()) -> Iterator[Path]:
    """The path of every value below a tree."""
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*here, key)
        yield from paths(value, (*here, key))


def at(tree: Any, path: Path) -> Any:
    """The value at a path."""
    for step in path:
        tree = tree[step]
    return tree


def _path(draw: st.DrawFn, tree: dict[str, Any], test: Callable[[Path], bool] = lambda path: True) -> Path | None:
    found = [path for path in paths(tree) if test(path)]
    return draw(st.sampled_from(found)) if found else None


def drop(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Leave out a key or an item."""
    if path := _path(draw, tree):
        del at(tree, path[:-1])[path[-1]]
    return tree


def rename(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Give a key another name, or one like it."""
    if path := _path(draw, tree, lambda p: isinstance(p[-1], str)):
        key, parent = path[-1], at(tree, path[:-1])
        assert isinstance(key, str)
        new = draw(st.sampled_from((*KEYS, key + "x", key[:-1], key.upper(), f" {key}")))
        items = [(new if k == key else k, v) for k, v in parent.items()]
        parent.clear()
        parent.update(items)
    return tree


def change(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Put something else in the place of a value."""
    if path := _path(draw, tree):
        at(tree, path[:-1])[path[-1]] = copy.deepcopy(draw(st.sampled_from(NOTHING_SENSIBLE)))
    return tree


def argument(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Set an argument out of range, or one that there is not."""
    if path := _path(draw, tree, lambda p: len(p) == 2 and p[0] in ("nodes", "heads")):
        node: Any = at(tree, path)
        if isinstance(node, dict):
            args = node.setdefault("args", {})
            name = draw(st.sampled_from([*args, "no_such"]))
            args[name] = copy.deepcopy(draw(st.sampled_from(NOTHING_SENSIBLE)))
    return tree


def rewire(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Wire an input to another edge, to an unknown one, or to the node itself."""
    if path := _path(draw, tree, lambda p: "in" in p and isinstance(at(tree, p), str)):
        names = [*tree.get("inputs", {}), *tree.get("nodes", {}), *tree.get("heads", {})]
        inside = [f"{n}.{tail}" for n in names for tail in ("stage1", "stage2", "pair", "out", "x")]
        at(tree, path[:-1])[path[-1]] = draw(st.sampled_from([*names, *inside, "nowhere", ""]))
    return tree


def verb(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Add a verb on a node, a stage, an argument or nothing known."""
    names = [*tree.get("inputs", {}), *tree.get("nodes", {}), *tree.get("heads", {}), "nowhere"]
    name = draw(st.sampled_from(names))
    target = draw(st.sampled_from((name, f"nodes.{name}", f"heads.{name}", f"{name}.stage1", f"{name}.*", "*", "n*")))
    value = copy.deepcopy(draw(st.sampled_from(NOTHING_SENSIBLE)))
    word = draw(st.sampled_from(("remove", "replace", "set", "base", "keep", "recipe", "inputs")))
    nodes = list(tree.get("nodes", {}).values())
    blocks = [value, {"block": "no.such"}, *(copy.deepcopy(n) for n in nodes)]
    made: dict[str, Any] = {
        "remove": [target],
        "replace": {target: draw(st.sampled_from(blocks))},
        "set": {f"{target}.{draw(st.sampled_from(('in', 'in.x', 'args', 'channels', 'x', '')))}": value},
        "base": draw(st.sampled_from(("tiny", "nowhere", "../x", "/etc/passwd", "", ".", value))),
        "keep": draw(st.sampled_from((target, [target], [value]))),
        "recipe": value,
        "inputs": {**tree.get("inputs", {}), name: value},
    }
    tree[word] = made[word]
    return tree


def deep(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Nest lists or mappings, deeper than any stack."""
    path = _path(draw, tree)
    levels = draw(st.sampled_from((5, 23, 24, 25, 200, 3000)))
    opening, closing = draw(st.sampled_from((("[", "]"), ('{"a": ', "}"))))
    if path is not None:
        at(tree, path[:-1])[path[-1]] = "@deep@"
    return as_text(tree).replace('"@deep@"', opening * levels + "1" + closing * levels)


def circle(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Wire every input of a node to a node that reads it, or to itself."""
    if path := _path(draw, tree, lambda p: len(p) == 2 and p[0] in ("nodes", "heads")):
        node: Any = at(tree, path)
        name = draw(st.sampled_from([*tree.get("nodes", {}), *tree.get("heads", {})]))
        if isinstance(node, dict):
            node["in"] = dict.fromkeys(node["in"], name) if isinstance(node.get("in"), dict) else name
    return tree


def section(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Move a node to the heads, a head to the nodes, or either to the inputs."""
    if path := _path(draw, tree, lambda p: len(p) == 2 and p[0] in ("nodes", "heads", "inputs")):
        value = tree[str(path[0])].pop(path[1])
        tree.setdefault(draw(st.sampled_from(("nodes", "heads", "inputs", "replace", "set"))), {})[path[1]] = value
    return tree


def twice(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Give a key twice."""
    path = _path(draw, tree, lambda p: isinstance(p[-1], str))
    return as_text(tree, path or ())


def letters(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Change, insert or leave out some characters of the text."""
    text = as_text(tree)
    start = draw(st.integers(0, len(text) - 1))
    end = min(len(text), start + draw(st.sampled_from((0, 1, 1, 2, 20))))
    return text[:start] + draw(st.text(CHARACTERS, max_size=3)) + text[end:] + "\n"


def wide(draw: st.DrawFn, tree: dict[str, Any]) -> Mutant:
    """Very many keys or items."""
    many = draw(st.sampled_from((300, 2500)))
    word = draw(st.sampled_from(("nodes", "keep", "inputs", "args")))
    if word == "keep":
        tree["keep"] = ["*"] * many
    elif word == "args":
        node: Any = next(iter(tree.get("nodes", {}).values()), {})
        if isinstance(node, dict):
            node["args"] = {f"a{i}": i for i in range(many)}
    else:
        like = next(iter(tree.get(word, {}).values()), "B 4 L")
        tree[word] = {**tree.get(word, {}), **{f"many{i}": like for i in range(many)}}
    return tree


MUTATORS: tuple[Callable[[st.DrawFn, dict[str, Any]], Mutant], ...] = (
    change, change, argument, rewire, verb, verb, drop, rename, section, twice, letters, letters, deep, circle, wide,
)  # fmt: skip
