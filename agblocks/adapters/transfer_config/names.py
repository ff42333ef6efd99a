"""What the texts of a `TransferConfig` find, and the roles or globs that say the same exactly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import Any

from torch import nn

from ...errors import near
from ...graph.adapter_spec import AdapterSpec
from ..targets import glob_matcher
from .port_names import CONV, LINEAR, Known

# Names that are found in examples of the configuration, of other models, and what AlphaGenome calls the same.
MEANT = {
    "to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "linear_embedding", "conv_tower": "down_blocks"
}  # fmt: skip
BLOCK = "block"
_WORDS = {LINEAR: "a linear map", CONV: "a convolution", BLOCK: "a block"}


@dataclass(frozen=True)
class Group:
    """Modules that a text finds and whose names differ in numbers alone. named: the text is whole parts of the name."""

    theirs: str
    ours: str
    count: int
    role: str
    named: bool


@dataclass(frozen=True)
class Found:
    """One text of a list of targets: what it finds, or what was probably meant where it finds nothing."""

    key: str
    text: str
    groups: tuple[Group, ...]
    meant: str = ""


class Names:
    """The names that specs may use: roles of a recipe's model, or globs that match just what they should."""

    def __init__(self, modules: Sequence[Known], model: nn.Module | None):
        self.modules = modules
        self.roles: dict[str, set[str]] = {}
        if model is None:
            split = [module.ours.split(".") for module in modules]
            self.all = [".".join(parts[:n]) for parts in split for n in range(1, len(parts) + 1)]
        else:
            self.all = [path for path, _ in model.named_modules() if path]
            for path, module in model.named_modules():
                if role := module.__dict__.get("role"):
                    self.roles.setdefault(role, set()).add(path)

    def hits(self, text: str, kind: str) -> list[Known]:
        """As the package finds them: the text anywhere in the name of a module of the kind."""
        return [module for module in self.modules if text in module.theirs and module.kind == kind]

    def blocks(self, part: str) -> list[Known]:
        """The blocks of a name, `mha` say, each as what lies under it is called."""
        under: dict[str, list[str]] = {}
        for module in self.modules:
            start, dot, rest = f".{module.theirs}.".rpartition(f".{part}.")
            if dot and rest:
                under.setdefault(f"{start}.{part}"[1:], []).append(module.ours)
        found = []
        for theirs, names in under.items():
            shared = zip(*(name.split(".")[:-1] for name in names), strict=False)
            ours = ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, shared))
            role = next((role for role, paths in self.roles.items() if ours in paths), "")
            found.append(Known(theirs, ours, BLOCK, role))
        return found

    def specs(self, kind: str, hits: Sequence[Known], **arguments: Any) -> list[AdapterSpec]:
        """Roles where all of a role is meant, exact globs for the rest."""
        wanted = {module.ours for module in hits}
        roles = [role for role in dict.fromkeys(m.role for m in hits if m.role) if self.roles[role] <= wanted]
        rest = [m for m in hits if m.role not in roles]
        made = [AdapterSpec(kind, role=roles, **arguments)] if roles else []
        return [*made, AdapterSpec(kind, glob=self.globs(rest), **arguments)] if rest else made

    def globs(self, modules: Sequence[Known]) -> list[str]:
        """As few globs as there need be that match these modules and no other."""
        wanted = [module.ours for module in modules]
        return list(dict.fromkeys(self._widest(name, set(wanted)) for name in wanted))

    def _widest(self, name: str, wanted: set[str]) -> str:
        parts = re.split(r"(\d+)(?=\.|$)", name)
        numbers = range(1, len(parts), 2)
        for many in range(len(numbers), 0, -1):
            for chosen in combinations(numbers, many):
                glob = "".join("*" if i in chosen else part for i, part in enumerate(parts))
                if {other for other in self.all if glob_matcher(glob)(other)} <= wanted:
                    return glob
        return name

    def found(self, key: str, text: str, hits: Sequence[Known], kind: str) -> Found:
        """What is to be told of one text."""
        groups: dict[tuple[str, str, str, bool], int] = {}
        for m in hits:
            shown = (_row(m.theirs), _row(m.ours), m.role, f".{text}." in f".{m.theirs}.")
            groups[shown] = groups.get(shown, 0) + 1
        told = tuple(Group(theirs, ours, n, role, named) for (theirs, ours, role, named), n in groups.items())
        return Found(key, text, told, "" if told else self._meant(text, kind))

    def _meant(self, text: str, kind: str) -> str:
        meant = MEANT.get(text, "")
        fits = [m for m in self.modules if meant and f".{meant}." in f".{m.theirs}." and m.kind == kind]
        if fits:
            rows = ", ".join(dict.fromkeys(_row(module.theirs) for module in fits))
            return f"probably {meant!r} is meant ({rows})"
        if others := [module for module in self.modules if text in module.theirs]:
            return f"it stands in {len(others)} names, like {others[0].theirs}, but none of them is {_WORDS[kind]}"
        return near(text, {part for module in self.modules for part in module.theirs.split(".") if not part.isdigit()})


def _row(name: str) -> str:
    """A name without the numbers that its parts are, or end with in ours."""
    return re.sub(r"(^|\.|layer|stage|pair|conv|up)\d+(?=\.|$)", r"\1*", name)
