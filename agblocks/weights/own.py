"""Our own files: what `agblocks convert` writes, and the runs that training leaves."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .mapping import Want
from .transform import AS_IS

METADATA = "agblocks-weights"
RUN = "agblocks-run"  # of training; its tensors are called `<member>/<parameter>`


class OwnMap:
    """Names are the model's own. A node of which the source has anything has to be there whole."""

    name = "agblocks"
    optional = ("num_batches_tracked",)
    assumed: tuple[str, ...] = ()
    rules: tuple = ()

    def __init__(self, member: int = 0):
        self.member = member

    def bind(self, keys: Iterable[str]) -> OwnBound:
        """The map for one source's keys."""
        return OwnBound(self, keys)


class OwnBound:
    """Our names, for the keys of one source."""

    def __init__(self, mapping: OwnMap, keys: Iterable[str]):
        self.map = mapping
        self.repeats: list[str] = []
        self.foreign: list[str] = []
        start = f"{mapping.member}/"
        self.members = len({key.partition("/")[0] for key in keys if "/" in key})
        self.actual = {key.removeprefix(start): key for key in keys if "/" not in key or key.startswith(start)}
        split = (key.split(".") for key in self.actual)
        self._modules = {".".join(parts[:n]) for parts in split for n in range(1, len(parts))}

    def wanted(self, tensor: str, node: str, block: str) -> Want | None:
        """The tensor of the same name, if the source has that node."""
        if node not in self._modules:
            return None
        return Want(tensor, AS_IS, tensor.rpartition(".")[2] in self.map.optional)

    def places(self, key: str) -> list[tuple[str, str]]:
        """Every node that the key may lie in."""
        parts = key.split(".")
        return [(".".join(parts[:n]), key) for n in range(1, len(parts))]

    def same_block(self, node: str, block: str) -> bool:
        """Whether the source has this block there; it doesn't say."""
        return True

    def ignores(self, key: str) -> bool:
        """Nothing is ignored."""
        return False


def looks_own(metadata: Iterable[str], keys: Iterable[str], ours: set[str]) -> bool:
    """Whether a source is ours: by what it says of itself, or as most of its keys are names of the model."""
    if {METADATA, RUN} & set(metadata):
        return True
    plain = [re.sub(r"^\d+/", "", key) for key in keys]
    return 2 * sum(key in ours for key in plain) > len(plain)
