"""What became of every tensor of a source and of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """What loading did, or would have done. `print(report)` gives it for people; nothing is left out of the lists.

    Our names:
        loaded: ours -> the source's key. left: tensors that the source has nothing for, which keep the model's values
        (of a model on the meta device: drawn anew). absent: tensors that this format may lack, likewise. missing:
        tensors that the source should have and has not. other_block: node -> what the source has for it, where the
        model has another block.
    Keys of the source:
        cut: of stages, layers and heads that the model doesn't have. elsewhere: of nodes that `into` leaves out.
        repeats: of a second family that says the same. unexpected: that the format doesn't know, or that a node of the
        model has no place for.
    wrong_shape: ours -> what was found and what was wanted. converted: (from, to) types -> how many tensors.
    assumed: what is taken for granted of the format. revision: of a hub's repository. read_bytes: of tensors.
    """

    source: str
    format: str = ""
    revision: str | None = None
    loaded: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    other_block: dict[str, str] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: dict[str, str] = field(default_factory=dict)
    converted: dict[tuple[str, str], int] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    numbers: int = 0
    read_bytes: int = 0

    def __str__(self) -> str:
        revision = f" at {self.revision}" if self.revision else ""
        kinds: list[tuple[str, Sequence[str] | Mapping[str, str]]] = [
            ("absent in the source, kept", self.absent),
            ("left initialised", self.left),
            ("other blocks here", [f"{node}: {said}" for node, said in self.other_block.items()]),
            ("cut away", self.cut),
            ("not asked for (into)", self.elsewhere),
            ("repeats", self.repeats),
            ("missing", [f"{ours} (theirs: {key})" for ours, key in self.missing.items()]),
            ("wrong shape", [f"{ours}: {said}" for ours, said in self.wrong_shape.items()]),
            ("unexpected", self.unexpected),
            ("converted", [f"{n} tensors from {a} to {b}" for (a, b), n in self.converted.items()]),
            ("assumed", self.assumed),
        ]
        head = f"{self.source}{revision}: {self.format}, {len(self.loaded):,} tensors loaded, {self.numbers:,} numbers"
        return "\n".join([head, *(line for title, names in kinds if names for line in _listed(title, list(names)))])


def _listed(title: str, names: list[str], most: int = 12) -> list[str]:
    """One line for few names; for many, how many there are under each beginning."""
    if title in ("assumed", "other blocks here"):
        return [f"  {title}: {name}" for name in names]
    if len(names) <= 3:
        return [f"  {title}: {', '.join(names)}"]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:2]), []).append(name)
    shown = [f"{start}.* ({len(inside)})" if len(inside) > 1 else inside[0] for start, inside in groups.items()]
    rest = f", ... and {len(shown) - most} more" if len(shown) > most else ""
    return [f"  {title} ({len(names)}): {', '.join(shown[:most])}{rest}"]
