"""Where weights come from, and into which nodes they go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import near, shown
from ..errors import RunError

KEYS = ("from", "into", "revision")


@dataclass(frozen=True)
class Load:
    """One source of weights: a file, a run folder or a hub's repository (`owner/name`), or in Python a state dict.

    into: patterns of the nodes that take them, all by default; revision: of a hub's repository. As
    `agblocks.load_weights` takes them.
    """

    source: str | Mapping[str, Any]
    into: tuple[str, ...] = ()
    revision: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, Path):
            object.__setattr__(self, "source", str(self.source))
        if not isinstance(self.source, Mapping) and (not isinstance(self.source, str) or not self.source):
            raise RunError(f"weights: {shown(self.source)}; wanted a file, a run folder or a hub's repository")
        into: Any = (self.into,) if isinstance(self.into, str) else self.into
        if not isinstance(into, (list, tuple)) or not all(isinstance(name, str) and name for name in into):
            raise RunError(f"weights: into {shown(into)}; wanted names of nodes, like [encoder, 'tower.layer*']")
        object.__setattr__(self, "into", tuple(into))
        if self.revision is not None and not isinstance(self.revision, str):
            raise RunError(f"weights: revision {shown(self.revision)}; wanted a text, in quotes if it is all digits")

    @property
    def name(self) -> str:
        """What the source is called in tables."""
        if not isinstance(self.source, str):
            return "a state dict"
        return Path(self.source).name if Path(self.source).exists() else self.source

    @property
    def place(self) -> str:
        """What it is called where that is not enough: its whole path."""
        if isinstance(self.source, str) and Path(self.source).exists():
            return str(Path(self.source).resolve())
        return self.name

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON. Errors: `RunError` for a state dict, which has no place there."""
        if not isinstance(self.source, str):
            raise RunError("weights: a state dict cannot be written down; save it to a file")
        found: dict[str, Any] = {"from": self.source}
        if self.into:
            found["into"] = list(self.into)
        return found if self.revision is None else {**found, "revision": self.revision}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Load:
        """What `to_dict` wrote. Strict."""
        for name in values:
            if name not in KEYS:
                raise RunError(f"weights: there is no {shown(name)}; {near(str(name), KEYS)}")
        if "from" not in values:
            raise RunError("weights: from is missing: a file, a run folder or a hub's repository")
        return cls(values["from"], values.get("into", ()), values.get("revision"))


def as_loads(said: Any) -> tuple[Load, ...]:
    """Sources from any form: none, one, or a list of them. A mapping of tensors is one, in Python.

    Errors: `RunError`.
    """
    if said is None:
        return ()
    if isinstance(said, (str, Path, Load)) or _is_state(said):
        return (_as_load(said),)
    if isinstance(said, Mapping):
        return (Load.from_dict(said),)
    if not isinstance(said, Iterable):
        raise RunError(f"weights: {shown(said)}; wanted a file, a run folder or a hub's repository")
    return tuple(map(_as_load, said))


def _as_load(said: Any) -> Load:
    if isinstance(said, Load):
        return said
    if isinstance(said, Mapping) and not _is_state(said):
        return Load.from_dict(said)
    return Load(str(said) if isinstance(said, Path) else said)


def _is_state(said: Any) -> bool:
    """Whether a mapping is one of tensors, not a source with its keys."""
    words = (str, list, tuple, type(None))
    return isinstance(said, Mapping) and "from" not in said and not all(isinstance(v, words) for v in said.values())
