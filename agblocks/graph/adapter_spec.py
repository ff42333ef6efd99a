"""An adapter as data: which kind, where it sits, its arguments. In Python, in a recipe, on the command line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import AgblocksError, Mark, Problem, RecipeError, shown
from .adapter_kinds import REQUIRED, TARGET_FIELDS, Kind, lookup
from .adapter_text import read_fields, write_fields
from .arguments import validate
from .source import Tree, from_python

_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
_WORD = re.compile(r"[A-Za-z]\w*", re.ASCII)


@dataclass(frozen=True, init=False)
class AdapterSpec:
    """One kind of adapter on some modules: `AdapterSpec("lora", role=["attn.q", "attn.v"], rank=8)`.

    Where it sits (all that are given must hold; a list means any of them, and each entry must match something):
    role: of agblocks' blocks, `attn.q`, `conv.main`, ...; the same in every architecture.
    glob: over a module's whole dotted name, `tower.layer*.attention.q`: `*` stands within one part, `**` for any parts.
    regex: must match the whole name. type: the class's name or that of one it derives from, like `Linear`.
    layers, stages: by the number in the name (`layer3`, `blocks.3`; `stage4`, `stages.4`): a list, or a slice `"-4:"`;
        as in Python its end is left out, and negative numbers count from the last. A module's own number (`fc2`,
        `conv1.0`) is a layer only where nothing else is.
    exclude: globs of what is left out. expect: how many modules it should be.
    Without any, the kind's own aim. Everything else are the kind's arguments, its defaults filled in.
    Errors: `RecipeError` with all that is wrong, and what would fit.
    """

    kind: str
    target: Mapping[str, Any]
    args: Mapping[str, Any]
    tree: Tree | None = field(repr=False)  # as a recipe writes it, with its places

    def __init__(self, kind: str, /, **fields: Any):
        tree = {"adapter": kind, **{k: [*v] if isinstance(v, tuple) else v for k, v in fields.items()}}
        problems: list[Problem] = []
        spec = read_spec(from_python(tree, "adapter"), "", problems)
        if spec is None:
            raise RecipeError(problems)
        self._set(spec.kind, spec.target, spec.args, None)

    def _set(self, kind: str, target: Mapping[str, Any], args: Mapping[str, Any], tree: Tree | None) -> None:
        for name, value in (("kind", kind), ("target", target), ("args", args), ("tree", tree)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdapterSpec) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def registered(self) -> Kind:
        """What the kind's name stands for."""
        return lookup(self.kind)

    def to_dict(self) -> dict[str, Any]:
        """The spec as a recipe writes it, every default said."""
        return {"adapter": self.kind, **self.target, **self.args}

    def to_json(self) -> str:
        """Canonical: two specs that mean the same have the same text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterSpec:
        """The spec that `to_dict` wrote, checked again."""
        problems: list[Problem] = []
        spec = read_spec(from_python(values, "adapter"), "", problems)
        if spec is None:
            raise RecipeError(problems)
        return spec

    @classmethod
    def parse(cls, text: str) -> AdapterSpec:
        """The command line's form: `lora:role=attn.q+attn.v,rank=8`; `+` joins the entries of a list.

        An entry with a comma, a plus or blanks at its ends stands in double quotes, as JSON writes texts, and so does a
        text that would read as something else: `regex="a.+b"` (in Python r'lora:regex="h\\d{1,2}"'), `label="null"`.
        Arguments may be JSON as a whole, like `[1]`. For every spec `parse(str(spec)) == spec`.
        """
        kind, _, rest = text.partition(":")
        try:
            return cls(kind.strip(), **read_fields(rest))
        except AgblocksError as error:
            raise AgblocksError(f"adapter {shown(text)}: {error}") from None

    def __str__(self) -> str:
        defaults = self.registered.defaults
        changed = {k: v for k, v in self.args.items() if k not in defaults or not _same(v, defaults[k])}
        parts = write_fields({**self.target, **changed})
        return f"{self.kind}:{parts}" if parts else self.kind


def as_spec(spec: AdapterSpec | str | Mapping[str, Any]) -> AdapterSpec:
    """A spec from any of its forms."""
    if isinstance(spec, AdapterSpec):
        return spec
    if not isinstance(spec, (str, Mapping)):
        raise AgblocksError(f"an adapter is an AdapterSpec, a text like 'lora:rank=8' or a mapping, not {shown(spec)}")
    return AdapterSpec.parse(spec) if isinstance(spec, str) else AdapterSpec.from_dict(spec)


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def digest(specs: Iterable[AdapterSpec]) -> str:
    """The digest of a list of adapters: sha256 of their canonical texts in order."""
    return hashlib.sha256("\n".join(spec.to_json() for spec in specs).encode()).hexdigest()


def read_specs(tree: Tree, path: str, problems: list[Problem]) -> tuple[AdapterSpec, ...]:
    """The specs of a recipe's `adapters:` list; what is wrong with them goes to `problems`."""
    if not tree.is_list:
        problems.append(Problem(f"adapters should be a list, not {tree.kind}", tree.mark, path))
        return ()
    found = [read_spec(item, f"{path}[{i}]", problems) for i, item in enumerate(tree.value)]
    return tuple(spec for spec in found if spec is not None)


def read_spec(tree: Tree, path: str, problems: list[Problem]) -> AdapterSpec | None:
    """One adapter from its tree, or None where something is wrong, which goes to `problems`."""
    before = len(problems)

    def find(message: str, at: Tree | Mark | None, *steps: str) -> None:
        where = ".".join(filter(None, (path, *steps)))
        problems.append(Problem(message, at.mark if isinstance(at, Tree) else at, where))

    if not tree.is_map:
        find(f"an adapter is a mapping like {{adapter: lora, role: attn.q}}, not {tree.kind}", tree)
        return None
    said: dict[str, Tree] = dict(tree.value)
    named = said.pop("adapter", None)
    if named is None or not isinstance(named.value, str):
        find(
            f"an adapter names its kind, 'adapter: lora', {'not ' + named.kind if named else 'but there is none'}", tree
        )
        return None
    try:
        kind = lookup(named.value)
    except KeyError as error:
        find(error.args[0], named, "adapter")
        return None
    target: dict[str, Any] = {}
    for name in TARGET_FIELDS:
        if name in said:
            value = said.pop(name)
            made = _target_value(name, value.plain())
            if isinstance(made, str) and made.startswith("!"):
                find(made[1:], value, name)
            else:
                target[name] = made
    if not any(name in target for name in TARGET_FIELDS if name not in ("exclude", "expect", "layers", "stages")):
        if not kind.aim:
            find(f"{kind.name!r} does not know by itself where to sit; say role, glob, regex or type", named)
        target = {**{name: list(value) for name, value in kind.aim.items()}, **target}
    args, complaints = validate(kind, said)  # type: ignore[arg-type]
    for steps, message in complaints:
        at = said.get(str(steps[0])) if steps else None
        mark = tree.key_mark(str(steps[0])) if steps and "has no argument" in message else None
        find(
            message.replace("has no argument", "has no argument or target field"), mark or at or tree, *map(str, steps)
        )
    if len(problems) == before:
        check = getattr(kind.target, "check", None)
        complaint = check(**args) if check is not None else None
        if complaint:
            find(complaint, tree)
    if len(problems) > before:
        return None
    spec = AdapterSpec.__new__(AdapterSpec)
    spec._set(kind.name, target, args, tree)
    return spec


def _target_value(name: str, value: Any) -> Any:
    """A target field in its one form, or, after a '!', what is wrong with it."""
    if name == "expect":
        good = type(value) is int and value > 0
        return value if good else f"!expect is the number of modules, not {shown(value)}"
    if name in ("layers", "stages"):
        if isinstance(value, str) and _SLICE.fullmatch(value):
            return value
        numbers = value if isinstance(value, list) else [value]
        if numbers and all(type(n) is int for n in numbers):
            return numbers
        return f"!{name} is a list of numbers or a slice like '-4:', not {shown(value)}"
    patterns = value if isinstance(value, list) else [value]
    if not patterns or not all(isinstance(p, str) and p for p in patterns):
        return f"!{name} is a text or a list of texts, not {shown(value)}"
    if name == "type" and not all(_WORD.fullmatch(p) for p in patterns):
        return f"!type is the name of a class, like Linear, not {shown(value)}"
    if name == "regex":
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                return f"!{shown(pattern)} is no regular expression: {error}"
    return patterns


__all__ = ["REQUIRED", "AdapterSpec", "as_spec", "digest", "read_spec", "read_specs"]
