"""Adapters made from specs, each with values of its own; nothing is attached yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..graph.adapter_spec import AdapterSpec
from .adapter import Adapter
from .errors import DuplicateSite
from .place import Place


def make(
    name: str,
    specs: Sequence[AdapterSpec],
    found: Sequence[Mapping[str, nn.Module]],
    known: Mapping[str, Place],
    seed: int,
) -> tuple[list[tuple[str, str, Adapter]], dict[str, nn.Module]]:
    """Every adapter, with its module's name and its key there; and what those of one spec share, by name and index."""
    made: list[tuple[str, str, Adapter]] = []
    taken: set[tuple[str, str]] = set()
    shared: dict[str, nn.Module] = {}
    for index, (spec, modules) in enumerate(zip(specs, found, strict=True)):
        cls = spec.registered.target
        common = getattr(cls, "common", None)
        here = [known[path] for path in modules]
        if common is not None and (part := common(here, **spec.args)) is not None:
            shared[f"{name}:{index}"] = part
            part.reset_parameters(generator(seed, name, spec.kind, f"shared/{index}"))
        for place in here:
            if (place.path, spec.kind) in taken:
                raise DuplicateSite(f"{name!r} puts {spec.kind!r} on {place.path!r} twice; use another name for one")
            taken.add((place.path, spec.kind))
            adapter: Adapter = cls(place, **spec.args)
            if f"{name}:{index}" in shared:
                adapter.__dict__["shared"] = shared[f"{name}:{index}"]
            if place.device.type != "meta":
                adapter.reset_parameters(generator(seed, name, spec.kind, place.path))
            made.append((place.path, f"{name}:{spec.kind}", adapter))
    return made, shared


def generator(seed: int, *parts: str) -> torch.Generator:
    """A source of draws that depends on nothing but these."""
    digest = hashlib.sha256("\n".join((str(seed), *parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
