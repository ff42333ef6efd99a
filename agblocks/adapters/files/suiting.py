"""The base that an adapter file was made on: described when it is saved, compared when it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from ...errors import near
from ..errors import BaseMismatch
from .fingerprint import digest, edges, is_quantised, kept, structure, told, touched
from .record import ModuleRecord, Record

if TYPE_CHECKING:
    from ..bank import AdapterBank, Named

Allowed = Literal["weights", "recipe"]
MOST = 6  # modules named in a message


def describe(bank: AdapterBank, named: Named, aside: Collection[str]) -> dict[str, Any]:
    """What the base is, as far as a name's adapters stand on it; `aside` are tensors that go into the file."""
    modules, quantised = {}, {}
    for path in dict.fromkeys(path for each in named.sites for path in each):
        below = touched(bank.base, path, aside)
        quantised.update({key: type(value.data).__name__ for key, value in below.items() if is_quantised(value)})
        site = bank.site(path)
        own = _own(bank.base.get_submodule(path))
        modules[path] = {**own, "place": [*site.widths, site.axis], "sha256": digest(below)}
    resolved: Any = getattr(bank.base, "resolved", None)
    made = edges(bank.base, [*modules, *sorted(aside)])
    recipe = None if made is None else {"name": resolved.name, "digest": resolved.digest, "edges": made}
    return {
        "modules": modules,
        "recipe": recipe,
        "structure": structure(bank.base),
        "fingerprint": fingerprint((path, module["sha256"]) for path, module in modules.items()),
        "quantised": quantised,
    }


def _own(module: nn.Module) -> dict[str, Any]:
    tensors = {**dict(module.named_parameters(recurse=False)), **kept(module)}
    return {"type": type(module).__name__, "tensors": {name: told(value) for name, value in tensors.items()}}


def fingerprint(sums: Iterable[tuple[str, str]]) -> str:
    """One sha256 of those of modules."""
    return hashlib.sha256("\n".join(f"{path} {each}" for path, each in sorted(sums)).encode()).hexdigest()


def refuse_other_base(path: str | Path, base: nn.Module, record: Record, allow: Collection[Allowed]) -> None:
    """Raise `BaseMismatch` where a base is not the one of a record; `allow` as in `load`."""
    _modules(path, base, record)
    _extra(path, base, record, allow)
    if "recipe" not in allow:
        _recipe(path, base, record)
    if "weights" not in allow:
        _weights(path, base, record)


def _modules(path: str | Path, base: nn.Module, record: Record) -> None:
    """The adapted modules are there, of the same classes and shapes."""
    names = {name for name, _ in base.named_modules(remove_duplicate=False)}
    missing = [name for name in record.modules if name not in names]
    if missing:
        raise BaseMismatch(
            f"{path}: {len(missing)} of its {len(record.modules)} modules are not in this model: {_listed(missing)}; "
            f"{near(missing[0], names)}"
        )
    wrong = []
    for name, wanted in record.modules.items():
        found = ModuleRecord(**_own(base.get_submodule(name)), place=wanted.place, sha256=wanted.sha256)
        if _shapes(found) != _shapes(wanted) or found.type != wanted.type:
            wrong.append(f"{name!r} is a {_said(found)}, it was made on a {_said(wanted)}")
    if wrong:
        raise BaseMismatch(f"{path}: {len(wrong)} modules are others: {_listed(wrong, '; ', plain=True)}")


def _shapes(module: ModuleRecord) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, (_, shape) in module.tensors.items()}


def _said(module: ModuleRecord) -> str:
    tensors = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(_shapes(module).items()))
    return f"{module.type} ({tensors})" if tensors else module.type


def _extra(path: str | Path, base: nn.Module, record: Record, allow: Collection[Allowed]) -> None:
    """What of the base itself is in the file is a parameter, or a statistic, of this base too."""
    kinds = {"parameter": (record.train, dict(base.named_parameters())),
             "statistic": (record.statistics, base.state_dict())}  # fmt: skip
    for kind, (names, there) in kinds.items():
        missing = [name for name in names if name not in there]
        if missing:
            raise BaseMismatch(
                f"{path}: it holds {len(missing)} {kind}s that this model has not: {_listed(missing)}; "
                f"{near(missing[0], there)}"
            )


def _recipe(path: str | Path, base: nn.Module, record: Record) -> None:
    """Up to the adapted nodes the model computes the same; without a recipe: it has the same tensors."""
    made = edges(base, [*record.modules, *record.train, *record.statistics])
    if record.recipe is None or made is None:
        if (record.recipe is None) != (made is None):
            whose = "a model without a recipe" if record.recipe is None else f"recipe {record.recipe.name!r}"
            raise BaseMismatch(f"{path}: it was made on {whose}; allow=['recipe'] if this model is the same")
        if structure(base) != record.structure:
            raise BaseMismatch(
                f"{path}: the adapted modules are there, but this model has other tensors around them (the names and "
                "shapes of all differ); allow=['recipe'] if that does not matter"
            )
        return
    wanted = record.recipe.edges
    other = [edge for edge in sorted({*wanted, *made}) if wanted.get(edge) != made.get(edge)]
    if other:
        resolved: Any = base.resolved
        raise BaseMismatch(
            f"{path}: it was made on recipe {record.recipe.name!r} ({record.recipe.digest[:12]}); in this model, of "
            f"{resolved.name!r} ({resolved.digest[:12]}), {len(other)} of {len(wanted)} adapted nodes compute "
            f"something else: {_listed(other)}; allow=['recipe'] if that is meant"
        )


def _weights(path: str | Path, base: nn.Module, record: Record) -> None:
    """The adapters stand on the same values."""
    aside = {*record.train, *record.statistics}
    sums = {name: digest(touched(base, name, aside)) for name in record.modules}
    other = [name for name, module in record.modules.items() if sums[name] != module.sha256]
    if not other and fingerprint(sums.items()) != record.fingerprint:
        raise BaseMismatch(f"{path}: its fingerprint is not that of its own modules")
    if other:
        now, then = _types(base, other), _recorded_types(record, other)
        why = f" ({' and '.join(now)} here, {' and '.join(then)} there)" if now != then else ""
        raise BaseMismatch(
            f"{path}: {len(other)} of its {len(record.modules)} modules have other weights{why} than it was made on: "
            f"{_listed(other)}; allow=['weights'] if that is meant"
        )


def _types(base: nn.Module, names: Iterable[str]) -> list[str]:
    tensors = [value for name in names for value in touched(base, name).values()]
    return sorted({type(v.data).__name__ if is_quantised(v) else told(v)[0] for v in tensors})


def _recorded_types(record: Record, names: Iterable[str]) -> list[str]:
    found = set()
    for name in names:
        for tensor, (dtype, _) in record.modules[name].tensors.items():
            found.add(record.quantised.get(f"{name}.{tensor}", dtype))
    return sorted(found)


def _listed(names: Collection[str], joint: str = ", ", plain: bool = False) -> str:
    shown = [name if plain else repr(name) for name in names][:MOST]
    return joint.join(shown) + (f"{joint}..." if len(names) > MOST else "")
