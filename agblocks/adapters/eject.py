"""What was trained through something larger, kept as the plain tensors that it comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph.adapter_spec import AdapterSpec
from .errors import AdapterError
from .places import places
from .site import Site

if TYPE_CHECKING:
    from .adapted import Adapted


def eject(adapted: Adapted, name: str = "default") -> int:
    """Work out once what a name's adapters are reparametrised by, and keep that; outputs stay as they are.

    A `prefix` with `hidden` becomes a flat one: its spec says so from now on, a file has the flat tensors alone, and
    the bottleneck is gone. Gives the number of parameters saved. Optimisers made before know the old parameters.
    Raises `AdapterError` where there is nothing to eject, or while adapters are merged.
    """
    bank = adapted.bank
    bank._unmerged("eject")
    named, before = bank._known(name), bank.count(name)
    specs = list(named.specs)
    found = []
    for index, (spec, paths) in enumerate(zip(named.specs, named.sites, strict=True)):
        known = places(bank.base, {path: bank.base.get_submodule(path) for path in paths})
        for path in paths:
            site = bank.site(path)
            assert isinstance(site, Site)
            key = f"{name}:{spec.kind}"
            flattened = getattr(site._modules[key], "eject", lambda place: None)(known[path])
            if flattened is not None:
                changes, flat = flattened
                found.append((index, site, key, flat))
                specs[index] = AdapterSpec(spec.kind, **{**spec.target, **spec.args, **changes})
    if not found:
        kinds = ", ".join(dict.fromkeys(spec.kind for spec in named.specs))
        raise AdapterError(f"nothing of {name!r} ({kinds}) is reparametrised: there is nothing to eject")
    for index, site, key, flat in found:
        flat.train(site._modules[key].training)  # type: ignore[union-attr]
        site._modules[key] = flat
        if f"{name}:{index}" in bank.shared:
            del bank.shared[f"{name}:{index}"]
    named.specs = tuple(specs)
    bank._set(bank.active)
    bank._freeze()
    return before - bank.count(name)
