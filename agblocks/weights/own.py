"""Our own files: what `agblocks convert` writes, and the runs that training leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .mapping import Want
from .transform import AS_IS

METADATA = "agblocks-weights"
RUN = "agblocks-run"  # of training; its tensors are called `<member>/<parameter>`
OPTIONAL = ("num_batches_tracked",)
_ADAPTERS = re.compile(r"[0-9]{1,9}/adapters/")


@dataclass(frozen=True)
class OwnMap:
    """Names are the model's own. What the source has to fill has to be there whole.

    That is what it says it holds: the nodes of a converted file, everything of a run of the same digest. Where it says
    nothing, it is every composite (`encoder`, a head) of which it has anything.
    """

    name: str = "agblocks"
    assumed: tuple[str, ...] = ()

    def bind(self, keys: Iterable[str], metadata: Mapping[str, str] | None = None, digest: str = "") -> OwnBound:
        """The map for one source's keys, for a model of that digest."""
        return OwnBound(self, keys, metadata or {}, digest)


class OwnBound:
    """Our names, for the keys of one source. Of an ensemble the first member is taken, and said so."""

    def __init__(self, mapping: OwnMap, keys: Iterable[str], metadata: Mapping[str, str], digest: str = ""):
        self.repeats: list[str] = []
        self.foreign: list[str] = []
        keys = list(keys)
        members = sorted({key.partition("/")[0] for key in keys if re.match(r"[0-9]{1,9}/", key)}, key=int)
        adapted = any(_ADAPTERS.match(key) for key in keys)
        assumed = [f"member 0 of {len(members)}"] * (len(members) > 1) + [
            "the base alone, without its adapters"
        ] * adapted
        self.map = OwnMap(assumed=tuple(assumed)) if assumed else mapping
        self.actual: dict[str, str] = {}
        for key in keys:
            member, _, name = key.rpartition("/")
            if _ADAPTERS.match(key):
                continue  # of a run that has adapters: `agblocks.adapters.load_adapter` reads them from their own file
            if member in ("", *members[:1]):
                self.actual[name] = key
            else:
                self.repeats.append(key)
        converted, run = _said(metadata, METADATA), _said(metadata, RUN)
        nodes = converted.get("nodes")
        self._blocks = {str(node): str(block) for node, block in nodes.items()} if isinstance(nodes, Mapping) else {}
        self._same = bool(digest) and digest in (converted.get("digest"), run.get("digest"))
        self._whole = bool(digest) and digest == run.get("digest")

    @cached_property
    def tops(self) -> set[str]:
        """The first parts of the nodes' names."""
        return {name.partition(".")[0] for name in self.actual}

    def wanted(self, tensor: str, node: str, block: str) -> Want | str | None:
        """The tensor of the same name, if the source should have that node, and as the same block."""
        held = node in self._blocks if self._blocks else self._whole or node.partition(".")[0] in self.tops
        if not held:
            return None
        if self._blocks.get(node, block) != block:
            return self._blocks[node]
        return Want(tensor, AS_IS, tensor.rpartition(".")[2] in OPTIONAL)

    def places(self, key: str) -> list[tuple[str, str, str]]:
        """Every node that the key may lie in; none where the source is of this very model, which has no other keys."""
        if self._same:
            return []
        parts = key.split(".")
        return [(node := ".".join(parts[:n]), node, key) for n in range(1, len(parts))]

    def same_block(self, node: str, block: str) -> bool:
        """Whether the source has this block there, as far as it says."""
        return self._blocks.get(node, block) == block


def _said(metadata: Mapping[str, str], name: str) -> Mapping[str, Any]:
    """What a source says of itself under a name; nothing where that is no JSON object."""
    try:
        said = json.loads(metadata.get(name, "{}"))
    except (ValueError, TypeError, RecursionError):
        return {}
    return said if isinstance(said, Mapping) else {}


def looks_own(metadata: Iterable[str], keys: Iterable[str], ours: set[str]) -> bool:
    """Whether a source is ours: by what it says of itself, or as most of its keys are names of the model."""
    if {METADATA, RUN} & set(metadata):
        return True
    plain = [re.sub(r"^\d+/", "", key) for key in keys]
    return 2 * sum(key in ours for key in plain) > len(plain)
