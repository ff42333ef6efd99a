"""Two verbs of one file that claim the same node are an error, so that their order cannot matter."""

from __future__ import annotations

from ..errors import Mark
from .forms import Findings


class Claims:
    """Who claims a node within one file. A node removed or replaced is claimed with everything inside it."""

    def __init__(self, findings: Findings):
        self.findings = findings
        self.claimed: dict[str, tuple[str, Mark | None]] = {}
        self.holding: dict[str, str] = {}  # a node -> a claimed one inside it
        self.disputed: set[str] = set()

    def claim(self, node: str, word: str, mark: Mark | None) -> None:
        other = self._rival(node, word)
        if other is not None:
            rival, its_mark = self.claimed[other]
            self.findings.find(
                f"{word!r} and {rival!r} in one recipe claim the same node {min(node, other, key=len)!r}",
                mark,
                f"{word if word != 'new' else 'nodes'}.{node}",
                *([f"{rival} {other!r} at {its_mark}"] if its_mark else []),
            )
            self.disputed |= {node, other}
            return
        self.claimed[node] = (word, mark)
        for outer in _outside(node):
            self.holding.setdefault(outer, node)

    def _rival(self, node: str, word: str) -> str | None:
        """A claim that this one cannot stand beside."""
        if node in self.claimed and not (word == self.claimed[node][0] == "set"):
            return node
        whole = ("remove", "replace")
        if word in whole and node in self.holding:
            return self.holding[node]
        return next((o for o in _outside(node) if o in self.claimed and self.claimed[o][0] in whole), None)


def _outside(node: str) -> list[str]:
    """The composites that a node's name lies in: `a` and `a.b` for `a.b.c`."""
    parts = node.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
