"""The owner of all sites of one model: what is attached, what is active, what trains, what is merged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..errors import near
from ..graph.adapter_spec import AdapterSpec, as_spec
from ..layers import rest_norms
from . import listing
from .adapter import Adapter
from .composition import Composition, Fuse, Stack, names_in
from .errors import AdapterError, AlreadyAttached, CompositionError, MergedStateError, UnknownAdapter
from .flags import opened, set_flags
from .fusion import Fusion
from .guard import notice_hooks, refuse_bare_wrapping, refuse_second, refuse_sharded
from .making import generator, make
from .merging import Merge, merge
from .nf4.tensor import FrozenWeightError
from .place import Place
from .places import places
from .probing import prove, run
from .site import Site
from .steps import Weighted, steps_of
from .targets import refuse_unready, select


@dataclass
class Named:
    """What one name stands for."""

    specs: tuple[AdapterSpec, ...]
    sites: tuple[tuple[str, ...], ...]  # of each spec, the modules' names
    train: tuple[str, ...] = ()  # names of the base's own parameters that train with it
    weight: float = 1.0
    trains: bool = True
    licence: str = ""


class AdapterBank(nn.Module):
    """Every adapter of one base model. Parameters: `sites.<module, with / for .>.<name>:<kind>.<parameter>`.

    The base is reached through it but is no part of it. Names are attached and removed as a whole.
    """

    base: nn.Module

    def __init__(self, base: nn.Module, norms: str = "frozen"):
        super().__init__()
        refuse_unready(base)
        if norms not in ("frozen", "track"):
            raise AdapterError(f"norms should be 'frozen' or 'track', not {norms!r}")
        refuse_second(base)
        self.__dict__["base"] = base
        self.norms = norms
        self.sites = nn.ModuleDict()
        self.shared = nn.ModuleDict()
        self.names: dict[str, Named] = {}
        self.active: Composition | None = None
        self.flags = {name: p.requires_grad for name, p in base.named_parameters()}  # before anything was attached
        self._root: Any = None
        self._inside = 0  # contexts
        self._resting: list[nn.Module] = []
        self._merge: Merge | None = None
        self._closed: Any = None  # while merged: refuses other weights

    # Attaching

    def add(
        self,
        name: str,
        specs: Iterable[AdapterSpec | str | Mapping[str, Any]],
        *,
        train: Iterable[str] = (),
        probe: Any = None,
        seed: int = 0,
        on_compiled: str = "refuse",
    ) -> None:
        """Attach adapters under a name, and let them act after those that do; all of it or nothing."""
        wanted = [as_spec(spec) for spec in specs]
        self._free(name)
        trained = opened(self.base, train)
        found = [select(self.base, spec.target, f"{spec.kind}") for spec in wanted]
        if not any(found) and not trained:
            raise AdapterError("there is nothing to attach: no spec, and nothing of the base is to train")
        refuse_sharded(self.base)
        notice_hooks(self.base, on_compiled)
        known = places(self.base, {path: m for each in found for path, m in each.items()}, probe)
        with torch.inference_mode(False):  # inference tensors could not be trained later
            made, shared = make(name, wanted, found, known, seed)
        self._put(name, Named(tuple(wanted), tuple(tuple(each) for each in found), tuple(trained)), made, shared, known,
                  probe)  # fmt: skip

    def _free(self, name: str) -> None:
        """Raise unless something can be attached under a name."""
        self._free_to("attach")
        if not name.isidentifier():
            raise AdapterError(f"an adapter's name is letters, digits and underscores, unlike {name!r}")
        if name in self.names:
            raise AlreadyAttached(f"there is an adapter {name!r} already; remove({name!r}) it, or choose another name")

    def _put(
        self, name: str, named: Named, made: Sequence[tuple[str, str, Adapter]], shared: Mapping[str, nn.Module],
        known: Mapping[str, Place], probe: Any = None,
    ) -> None:  # fmt: skip
        """Hook adapters that were made, and let them act after those that do; all of them or none."""
        old = self.active
        try:
            self.shared.update(shared)
            for path, key, adapter in made:
                site = self._site(known[path])
                if known[path].outputs is not None:
                    site.widths = (known[path].inputs, known[path].outputs)
                site.add_module(key, adapter)
            self.names[name] = named
            self.activate(Stack(*self._parts(), name))
            if probe is not None:
                with self.using(*([] if old is None else [old])):  # with the flags of now: torch multiplies in
                    before = run(self.base, probe)  # another order where they differ
                prove(self, name, probe, before)
        except BaseException:
            self._set(old)
            self._drop(name)
            raise

    def _site(self, place: Place) -> Site:
        """The site on a module, made if it is not there."""
        key = place.path.replace(".", "/")
        if key not in self.sites and hasattr(self.sites, key):
            key += "/"  # a module called `keys`, or `train`
        if key not in self.sites:
            self.sites[key] = Site(place)
        site = self.sites[key]
        assert isinstance(site, Site)
        return site

    def _parts(self) -> tuple[Any, ...]:
        """What is active, as parts of a stack."""
        return self.active.parts if isinstance(self.active, Stack) else () if self.active is None else (self.active,)

    def remove(self, name: str) -> None:
        """Take the adapters of a name away. Raises `CompositionError` where a composition that is active has it."""
        self._free_to("remove")
        self._known(name)
        left = [part for part in self._parts() if part != name]
        if any(name in names_in(part) for part in left):
            raise CompositionError(f"{name!r} is part of {self.active}, which is active; activate something else first")
        if isinstance(self.active, Stack):
            self._set(Stack(*left) if left else None)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self.names.pop(name, None)
        for key in [k for k in self.shared if k.startswith(f"{name}:")]:
            del self.shared[key]
        for site_key, site in list(self.sites.items()):
            for key in [key for key, module in site._modules.items() if _concerns(key, module, name)]:
                del site._modules[key]
            if not site._modules:
                assert isinstance(site, Site)
                site.unhook()
                del self.sites[site_key]
        self._settle()

    def detach(self, *, keep: bool = False) -> None:
        """Take everything away: the base has its flags back, and frozen norms their mode.

        keep: what is merged stays in its weights.
        """
        self._outside("detach")
        if self._merge is not None and not keep:
            self.unmerge_()
        self._open_again()
        for site in self.sites.values():
            assert isinstance(site, Site)
            site.unhook()
        self.sites.clear()
        self.shared.clear()
        self.names.clear()
        self.active = None
        if self._root is not None:
            self._root.remove()
            self._root = None
        self._wake()
        for name, parameter in self.base.named_parameters():
            with suppress(FrozenWeightError):  # quantised; dequantising gives it its flag
                parameter.requires_grad_(self.flags.get(name, parameter.requires_grad))

    # What acts

    def activate(self, *parts: str | Composition) -> None:
        """Let these adapters act from now on, in turn, or as one composition says; the others neither act nor train."""
        self._free_to("activate")
        self._set(_composed(parts))
        self._settle()

    def _settle(self) -> None:
        """What acts from now on does so for longer: sites where nothing does have no hooks, and nobody else trains."""
        for _, site in self._with_paths():
            if site.empty:
                site.unhook()
        self._freeze()
        self.rest()
        if not self.names and self._root is not None:
            self._root.remove()
            self._root = None

    @contextmanager
    def using(self, *parts: str | Composition) -> Iterator[None]:
        """Let these act inside the block, whatever else does outside. What trains and the mode are not touched.

        Inside, nothing else can be attached, removed, activated or merged.
        """
        self._unmerged("using")
        before = self.active
        self._set(_composed(parts))
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._set(before)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base by itself inside the block; what of it trained beside adapters stays as it is."""
        with self.using():
            yield

    def _set(self, active: Composition | None) -> None:
        for name in names_in(active):
            self._known(name)
        sites = [site for _, site in self._with_paths()]
        steps = [[] if active is None else steps_of(active, self._finder(s), s.axis, self._fusion(s)) for s in sites]
        self.active = active
        for site, acting in zip(sites, steps, strict=True):
            site.set(acting)
            site.hook(self.base.get_submodule(site.path))

    def _finder(self, site: Site) -> Any:
        held = site.by_name()

        def found(name: str) -> list[Any]:
            share = self.names[name].weight
            return [a if share == 1 else Weighted(a, share) for a in held.get(name, ())]

        return found

    def rest(self) -> None:
        """Let norms rest that are frozen now, and those wake that are not any more."""
        self._wake()
        self._resting = rest_norms(self.base) if self.norms == "frozen" else []

    def _wake(self) -> None:
        if self.base.training:
            for norm in self._resting:
                norm.training = True
        self._resting = []

    def weigh(self, name: str, weight: float) -> None:
        """How far an adapter goes: 1 all its way, 0 not at all, 0.5 half of it."""
        self._free_to("weigh")
        if not math.isfinite(weight):
            raise AdapterError(f"an adapter's weight is a finite number, not {weight}")
        self._known(name).weight = float(weight)
        self._set(self.active)

    # Fusion

    def add_fusion(self, *parts: str | Composition, seed: int = 0) -> Fuse:
        """Parameters to choose among adapters at every site where one of them is; activate what this returns.

        They train while it is active, and are saved in no file of an adapter: `state_dict()` has them.
        """
        self._free_to("add a fusion")
        fuse = Fuse(*parts)
        names = names_in(fuse)
        for name in names:
            self._known(name)
        made = []
        for path, site in self._with_paths():
            if any(site.held(name) for name in names) and _key(fuse) not in site._modules:
                place = places(self.base, {path: self.base.get_submodule(path)}, None)[path]
                fusion = Fusion(replace(place, inputs=site.widths[0], outputs=site.widths[1]), names)
                fusion.reset_parameters(generator(seed, str(fuse), "fusion", path))
                made.append((site, fusion))
        for site, fusion in made:
            site.add_module(_key(fuse), fusion)
        self._freeze()
        return fuse

    def _fusion(self, site: Site) -> Any:
        def found(fuse: Fuse) -> Fusion:
            module = site._modules.get(_key(fuse))
            if module is None:
                raise UnknownAdapter(f"there is no fusion of {', '.join(map(str, fuse.parts))}; add_fusion(...) first")
            assert isinstance(module, Fusion)
            return module

        return found

    # What trains

    def open(self, name: str, parameters: Iterable[str]) -> None:
        """Let these parameters of the base, by their names, train with an adapter and be saved with it."""
        self._free_to("train")
        known, wanted = {n for n, _ in self.base.named_parameters()}, tuple(parameters)
        if unknown := [n for n in wanted if n not in known]:
            raise UnknownAdapter(f"the base has no parameter {unknown[0]!r}; {near(unknown[0], known)}")
        self._known(name).train = wanted
        self._freeze()

    def train_only(self, *names: str) -> None:
        """Only these adapters train from now on (as far as they are active); of the base what they were given."""
        self._free_to("train")
        for name in names:
            self._known(name)
        for name, named in self.names.items():
            named.trains = name in names
        self._freeze()
        self.rest()

    def _freeze(self) -> None:
        """Let what acts and may train want gradients, and nothing else."""
        set_flags(self)
        if self._root is None and self.names:
            self._root = self.base.register_forward_pre_hook(self._wrapped)

    def _wrapped(self, module: nn.Module, args: Any) -> None:
        """Before the base: see that it goes nowhere without its adapters."""
        refuse_bare_wrapping(self)

    # Merging

    @property
    def merged(self) -> bool:
        """Whether adapters are folded into the base's weights now."""
        return self._merge is not None

    def merge_(self, *, partial: bool = False) -> Merge:
        """Fold what is active into the base's own tensors, keeping a backup on the CPU; see `merging.merge`."""
        self._free_to("merge")
        self._merge = merge(self, partial=partial)
        self._closed = self.base.register_load_state_dict_pre_hook(self._refuse_loading)
        return self._merge

    def unmerge_(self, *, force: bool = False) -> None:
        """Put the backup back, bit for bit. Raises `StaleMerge` where the merged weights were changed since."""
        if self._merge is None:
            raise MergedStateError("nothing is merged")
        self._merge.undo(force)
        self._open_again()
        self._set(self.active)

    def _open_again(self) -> None:
        self._merge = None
        if self._closed is not None:
            self._closed.remove()
            self._closed = None

    def _refuse_loading(self, *_: Any) -> None:
        raise MergedStateError(
            "adapters are merged, and what is loaded would take their place in some weights: unmerge_() first"
        )

    def _unmerged(self, what: str) -> None:
        if self._merge is not None:
            raise MergedStateError(f"adapters are merged, so {what} has to wait: unmerge_() first")

    def _outside(self, what: str) -> None:
        if self._inside:
            raise AdapterError(f"inside using() or disabled() nothing else can change, so {what} has to wait")

    def _free_to(self, what: str) -> None:
        self._unmerged(what)
        self._outside(what)

    # Looking around

    def adapters(self, name: str) -> list[Adapter]:
        """The adapters of a name, site by site."""
        return [adapter for _, site in self._with_paths() for adapter in site.held(name)]

    def site(self, path: str) -> Site:
        """The site on a module. Raises KeyError where there is none."""
        key = path.replace(".", "/")
        found = self.sites[key if key in self.sites else f"{key}/"]
        assert isinstance(found, Site)
        return found

    def _with_paths(self) -> Iterator[tuple[str, Site]]:
        for site in self.sites.values():
            assert isinstance(site, Site)
            yield site.path, site

    def _known(self, name: str) -> Named:
        if name not in self.names:
            raise UnknownAdapter(f"there is no adapter {name!r}; {near(name, self.names)}")
        return self.names[name]

    def report(self) -> list[dict[str, Any]]:
        """A row for every adapter: its name, kind, site, the module there, its role, its parameters."""
        return listing.rows(self)

    def count(self, name: str | None = None) -> int:
        """Parameters of a name's adapters, what they share counted once; or of everything."""
        if name is None:
            return sum(p.numel() for p in self.parameters())
        shared = [part for key, part in self.shared.items() if key.partition(":")[0] == name]
        return sum(p.numel() for module in (*self.adapters(name), *shared) for p in module.parameters())


def _composed(parts: Sequence[str | Composition]) -> Composition | None:
    if not parts:
        return None
    plain = [part for part in parts if isinstance(part, str)]
    if len({*plain}) < len(plain):
        raise CompositionError(f"an adapter acts once in a stack: {', '.join(plain)}")
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Composition) else Stack(*parts)


def _key(fuse: Fuse) -> str:
    """The name of a fusion's module at a site, where a dot would part names."""
    return f"fusion:{fuse}".replace(".", "_")


def _concerns(key: str, module: Any, name: str) -> bool:
    """Whether a module of a site belongs to a name, or fuses it with others."""
    return key.partition(":")[0] == name or (isinstance(module, Fusion) and name in module.names)
