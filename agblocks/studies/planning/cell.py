"""A cell: one piece of work with one result, addressed by what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORM = 1  # of documents: raised where the same words come to mean something else


@dataclass(frozen=True)
class Cell:
    """What one cell does.

    document: canonical, with everything that its result depends on and nothing else; where the recipe lies, what its
        options are called and which study asked are no part of it. Its checksum is the cell's id.
    given: what doing it takes beside that: the recipe in full, where rows and weights are found, what is to be kept.
    needs: ids of cells that come first, because this one starts from their weights.
    share: cells of one share read the same model or counts, which are worked out once for all of them.
    """

    document: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)
    needs: tuple[str, ...] = field(default=(), compare=False)
    share: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        return digest(self.document)

    @property
    def fit(self) -> str:
        fit: str = self.document["fit"]
        return fit

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: cell.json, and what goes to another process."""
        return {
            "format": "agblocks-cell-document", "version": FORM, "cell": self.id, "document": dict(self.document),
            "given": dict(self.given), "needs": list(self.needs), "share": self.share,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cell:
        """What `to_dict` wrote. Raises ValueError where the document is not the one that its id belongs to."""
        made = cls(values["document"], values["given"], tuple(values["needs"]), values["share"])
        if made.id != values["cell"]:
            raise ValueError(f"the document of cell {values['cell']} has been changed")
        return made


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the sha256 of a value as canonical JSON; 1 and 1.0 are one."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
