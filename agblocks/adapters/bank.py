"""The owner of all sites of one model: what is attached, what is active, what trains, what is merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import near
from ..graph.adapter_spec import AdapterSpec
from .adapter import Adapter
from .composition import Composition, Fuse, Stack
from .errors import AdapterError, AlreadyAttached, MergedStateError, UnknownAdapter
from .flags import names_in, opened, set_flags
from .fusion import Fusion
from .guard import notice_hooks, refuse_bare_wrapping, refuse_sharded
from .making import generator, make
from .merging import Merge, merge
from .place import Place
from .places import places
from .probing import prove, run
from .site import Site
from .steps import Weighted, steps_of
from .targets import select


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

    def __init__(self, base: nn.Module):
        super().__init__()
        self.__dict__["base"] = base
        self.sites = nn.ModuleDict()
        self.shared = nn.ModuleDict()
        self.names: dict[str, Named] = {}
        self.active: Composition | None = None
        self._flags = [(p, p.requires_grad) for p in base.parameters()]
        self._root: Any = None
        self._merge: Merge | None = None

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
        from .adapted import as_spec

        wanted = [as_spec(spec) for spec in specs]
        self._free(name)
        trained = opened(self.base, train)
        found = [select(self.base, spec.target, f"{spec.kind}") for spec in wanted]
        if not any(found) and not trained:
            raise AdapterError("there is nothing to attach: no spec, and nothing of the base is to train")
        refuse_sharded(self.base)
        notice_hooks(self.base, on_compiled)
        known = places(self.base, {path: m for each in found for path, m in each.items()}, probe)
        made, shared = make(name, wanted, found, known, seed)
        self._put(name, Named(tuple(wanted), tuple(tuple(each) for each in found), tuple(trained)), made, shared, known,
                  probe)  # fmt: skip

    def _free(self, name: str) -> None:
        """Raise unless something can be attached under a name."""
        self._unmerged("attach")
        if not name.isidentifier():
            raise AdapterError(f"an adapter's name is letters, digits and underscores, unlike {name!r}")
        if name in self.names:
            raise AlreadyAttached(f"there is an adapter {name!r} already; remove({name!r}) it, or choose another name")

    def _put(
        self, name: str, named: Named, made: Sequence[tuple[str, str, Adapter]], shared: Mapping[str, nn.Module],
        known: Mapping[str, Place], probe: Any = None,
    ) -> None:  # fmt: skip
        """Hook adapters that were made, and let them act after those that do; all of them or none."""
        try:
            self.shared.update(shared)
            for path, key, adapter in made:
                site_key = path.replace(".", "/")
                if site_key not in self.sites:
                    self.sites[site_key] = Site(known[path])
                site: Site = self.sites[site_key]  # type: ignore[assignment]
                if known[path].outputs is not None:
                    site.widths = (known[path].inputs, known[path].outputs)
                site.add_module(key, adapter)
            self.names[name] = named
            old = self._parts_of_active()
            self.activate(Stack(*old, name))
            if probe is not None:
                with self.using(*old):  # with the flags of now: torch multiplies in another order where they differ
                    before = run(self.base, probe)
                prove(self, name, probe, before)
        except BaseException:
            self._drop(name)
            raise

    def _parts(self) -> tuple[Any, ...]:
        return () if self.active is None else (self.active,)

    def remove(self, name: str) -> None:
        """Take the adapters of a name away."""
        self._unmerged("remove")
        self._known(name)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self.names.pop(name, None)
        for key in [k for k in self.shared if k.startswith(f"{name}:")]:
            del self.shared[key]
        for site_key, site in list(self.sites.items()):
            for key in [key for key in site._modules if _concerns(key, name)]:
                del site._modules[key]
            if not site._modules:
                assert isinstance(site, Site)
                site.unhook()
                del self.sites[site_key]
        left = [part for part in self._parts_of_active() if name not in names_in(part)]
        self._set(Stack(*left) if left else None)
        self._settle()

    def _parts_of_active(self) -> tuple[Any, ...]:
        return self.active.parts if isinstance(self.active, Stack) else self._parts()

    def detach(self) -> None:
        """Take everything away and give the base its `requires_grad` flags back."""
        if self._merge is not None:
            self.unmerge_()
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
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)

    # What acts

    def activate(self, *parts: str | Composition) -> None:
        """Let these adapters act from now on, in turn, or as one composition says; the others neither act nor train."""
        self._unmerged("activate")
        self._set(_composed(parts))
        self._settle()

    def _settle(self) -> None:
        """What acts from now on does so for longer: sites where nothing does have no hooks, and nobody else trains."""
        for _, site in self._with_paths():
            if site.empty:
                site.unhook()
        self._freeze()

    @contextmanager
    def using(self, *parts: str | Composition) -> Iterator[None]:
        """Let these act inside the block, whatever else does outside. What trains and the mode are not touched."""
        self._unmerged("using")
        before = self.active
        self._set(_composed(parts))
        try:
            yield
        finally:
            self._set(before)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The bare base inside the block."""
        with self.using():
            yield

    def _set(self, active: Composition | None) -> None:
        for name in names_in(active):
            self._known(name)
        self.active = active
        for site in self.sites.values():
            assert isinstance(site, Site)
            site.set([] if active is None else steps_of(active, self._finder(site), site.axis, self._fusion(site)))
            site.hook(self.base.get_submodule(site.path))

    def _finder(self, site: Site) -> Any:
        def found(name: str) -> list[Any]:
            share = self.names[name].weight
            return [a if share == 1 else Weighted(a, share) for a in site.held(name)]

        return found

    def weigh(self, name: str, weight: float) -> None:
        """How far an adapter goes: 1 all its way, 0 not at all, 0.5 half of it."""
        self._unmerged("weigh")
        self._known(name).weight = float(weight)
        self._set(self.active)

    # Fusion

    def add_fusion(self, *names: str, seed: int = 0) -> Fuse:
        """Parameters to choose among adapters at every site where one of them is; activate what this returns."""
        fuse = Fuse(*names)
        key = f"fusion:{'+'.join(names)}"
        for name in names:
            self._known(name)
        for path, site in self._with_paths():
            if any(site.held(name) for name in names) and key not in site._modules:
                place = places(self.base, {path: self.base.get_submodule(path)}, None)[path]
                fusion = Fusion(place)
                fusion.reset_parameters(generator(seed, key, "fusion", path))
                site.add_module(key, fusion)
        return fuse

    def _fusion(self, site: Site) -> Any:
        def found(fuse: Fuse) -> Fusion:
            key = f"fusion:{'+'.join(map(str, fuse.parts))}"
            if key not in site._modules:
                raise UnknownAdapter(f"there is no fusion of {', '.join(map(str, fuse.parts))}; add_fusion(...) first")
            module = site._modules[key]
            assert isinstance(module, Fusion)
            return module

        return found

    # What trains

    def open(self, name: str, parameters: Iterable[str]) -> None:
        """Let these parameters of the base, by their names, train with an adapter and be saved with it."""
        self._unmerged("train")
        known, wanted = {n for n, _ in self.base.named_parameters()}, tuple(parameters)
        if unknown := [n for n in wanted if n not in known]:
            raise UnknownAdapter(f"the base has no parameter {unknown[0]!r}; {near(unknown[0], known)}")
        self._known(name).train = wanted
        self._freeze()

    def train_only(self, *names: str) -> None:
        """Only these adapters train from now on (as far as they are active); of the base what they were given."""
        self._unmerged("train")
        for name in names:
            self._known(name)
        for name, named in self.names.items():
            named.trains = name in names
        self._freeze()

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
        self._unmerged("merge")
        self._merge = merge(self, partial=partial)
        return self._merge

    def unmerge_(self, *, force: bool = False) -> None:
        """Put the backup back, bit for bit. Raises `StaleMerge` where the merged weights were changed since."""
        if self._merge is None:
            raise MergedStateError("nothing is merged")
        self._merge.undo(force)
        self._merge = None
        self._set(self.active)

    def forget_merge(self) -> None:
        """Make the merged weights the base's own: there is no way back."""
        self._merge = None

    def _unmerged(self, what: str) -> None:
        if self._merge is not None:
            raise MergedStateError(f"adapters are merged, so {what} has to wait: unmerge_() first")

    # Looking around

    def adapters(self, name: str) -> list[Adapter]:
        """The adapters of a name, site by site."""
        return [adapter for _, site in self._with_paths() for adapter in site.held(name)]

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
        rows = []
        for path, site in self._with_paths():
            module = self.base.get_submodule(path)
            for key, adapter in site._modules.items():
                name, _, kind = key.partition(":")
                count = sum(p.numel() for p in adapter.parameters()) if adapter is not None else 0
                rows.append({"name": name, "kind": kind, "site": path, "module": type(module).__name__,
                             "role": module.__dict__.get("role", ""), "parameters": count})  # fmt: skip
        return rows

    def count(self, name: str | None = None) -> int:
        """Parameters of a name's adapters, or of all; what several share is counted once."""
        names = [*self.names] if name is None else [name]
        adapters = sum(p.numel() for n in names for a in self.adapters(n) for p in a.parameters())
        return adapters + sum(
            p.numel() for k, m in self.shared.items() if k.partition(":")[0] in names for p in m.parameters()
        )

    def no_weight_decay(self, prefix: str = "") -> set[str]:
        """Parameters of adapters for which decay to 0 makes no sense."""
        found = set()
        for module_name, module in self.named_modules():
            if isinstance(module, Adapter) and not module.decays:
                found |= {f"{prefix}{module_name}.{name}" for name, _ in module.named_parameters()}
        return found

    def learning_rates(self, prefix: str = "") -> dict[str, float]:
        """Factors of the learning rate other than 1, by parameter."""
        found = {}
        for module_name, module in self.named_modules():
            if isinstance(module, Adapter):
                found.update({f"{prefix}{module_name}.{k}": v for k, v in module.learning_rates().items()})
        return found


def _composed(parts: Sequence[str | Composition]) -> Composition | None:
    if not parts:
        return None
    if len(parts) == 1 and isinstance(parts[0], Composition):
        return parts[0]
    return Stack(*parts)


def _concerns(key: str, name: str) -> bool:
    """Whether a module of a site belongs to a name, or fuses it with others."""
    owner, _, rest = key.partition(":")
    return owner == name or (owner == "fusion" and name in rest.split("+"))
