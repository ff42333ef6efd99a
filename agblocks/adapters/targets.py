"""Which modules a spec means: roles, anchored globs, whole-name regular expressions, types, layers and stages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import near, shown
from .errors import AdapterError, NoTargetMatch, TargetCountMismatch

_NUMBERED = re.compile(r"(.*?)(\d+)")
_CONDITIONS = ("role", "glob", "regex", "type")


def select(model: nn.Module, target: Mapping[str, Any], owner: str = "") -> dict[str, nn.Module]:
    """The modules that fit a target, by name, in the model's order; a module with two names comes under the first.

    `target` has the fields of `AdapterSpec`. Raises `NoTargetMatch`, naming what is near, for each pattern that adds
    nothing, `TargetCountMismatch`, and what `refuse_unready` does.
    """
    refuse_unready(model)
    model = getattr(model, "_orig_mod", model)
    names: dict[int, str] = {}
    modules: dict[str, nn.Module] = {}
    aliases: dict[str, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if path:
            first = names.setdefault(id(module), path)
            modules.setdefault(first, module)
            aliases.setdefault(first, []).append(path)
    said = f"{owner}: " if owner else ""
    found = dict(modules)
    for field in _CONDITIONS:
        if patterns := target.get(field):
            fits = [_fitting(modules, aliases, field, pattern) for pattern in patterns]
            for pattern, fit in zip(patterns, fits, strict=True):
                if not fit:
                    raise NoTargetMatch(
                        f"{said}{field} {pattern!r} matches no module; {_hint(modules, field, pattern)}"
                    )
            found = {path: module for path, module in found.items() if any(path in fit for fit in fits)}
    for field in ("layers", "stages"):
        if field in target:
            found = _numbered(found, field, target[field], said)
    for pattern in target.get("exclude", ()):
        fit = _fitting(modules, aliases, "glob", pattern)
        if not fit:
            raise NoTargetMatch(f"{said}exclude {pattern!r} matches no module; {_hint(modules, 'glob', pattern)}")
        found = {path: module for path, module in found.items() if path not in fit}
    for field in _CONDITIONS:
        for pattern in target.get(field, ()):
            if not found.keys() & _fitting(modules, aliases, field, pattern):
                others = ", ".join(f"{k} {v}" for k, v in target.items() if k not in (field, "expect"))
                raise NoTargetMatch(
                    f"{said}{field} {pattern!r} matches modules, but none of them fits the rest of it ({others})"
                )
    expect = target.get("expect")
    if expect is not None and len(found) != expect:
        listed = ", ".join([*found][:6]) + (", ..." if len(found) > 6 else "")
        raise TargetCountMismatch(f"{said}matches {len(found)} modules, expected {expect}: {listed}")
    return found


def refuse_unready(model: Any) -> None:
    """Raise `AdapterError` for what is no module, or has lazy parts, which can neither be frozen nor measured."""
    if not isinstance(model, nn.Module):
        raise AdapterError(f"adapters sit on an nn.Module, not on {shown(model)}")
    for path, parameter in model.named_parameters():
        if is_lazy(parameter):
            owner = path.rpartition(".")[0]
            kind = type(model.get_submodule(owner)).__name__
            raise AdapterError(f"{owner!r}, a {kind}, has no shapes yet: call the model once, then adapt it")


def _fitting(
    modules: Mapping[str, nn.Module], aliases: Mapping[str, Iterable[str]], field: str, pattern: str
) -> set[str]:
    """Names of the modules that one pattern matches."""
    if field == "role":
        return {path for path, module in modules.items() if fits_role(module, pattern)}
    if field == "type":
        return {p for p, module in modules.items() if any(c.__name__ == pattern for c in type(module).__mro__)}
    matches = glob_matcher(pattern) if field == "glob" else re.compile(pattern).fullmatch
    return {path for path in modules if any(matches(name) for name in aliases[path])}


def fits_role(module: nn.Module, pattern: str) -> bool:
    """Whether a module has a role: exactly, or one below it where the pattern ends in `.*`."""
    role = module.__dict__.get("role")
    if role is None:
        return False
    return bool(role.startswith(pattern[:-1])) if pattern.endswith(".*") else bool(role == pattern)


@cache
def glob_matcher(pattern: str) -> Callable[[str], Any]:
    """Match a whole dotted name: `*` and `?` within one part, `**` any number of parts."""
    pieces = []
    for part in pattern.split("."):
        if part == "**":
            pieces.append(r"(?:[^.]+\.)*")
        else:
            text = "".join({"*": "[^.]*", "?": "[^.]"}.get(c) or re.escape(c) for c in part)
            pieces.append(rf"{text}\.")
    compiled = re.compile("".join(pieces))
    return lambda name: compiled.fullmatch(f"{name}.")


def _number(path: str, field: str) -> tuple[str, int, bool] | None:
    """Where a name has its layer's or stage's number: of `tower.layer3.mlp` it is (`tower.layer`, 3).

    A layer is the first numbered part, unless that is a stage; a stage one that says so, `stage4` or `stages.4`. The
    last says whether a part with a name follows, or the number is the module's own, as that of `fc2` or `conv1.0`.
    """
    parts = path.split(".")
    for index, part in enumerate(parts):
        if match := _NUMBERED.fullmatch(part):
            row = ".".join([*parts[:index], match[1]]).rstrip(".")
            stage = row.rpartition(".")[2] in ("stage", "stages")
            if stage == (field == "stages"):
                return row, int(match[2]), not all(rest.isdigit() for rest in parts[index + 1 :])
            if stage:
                return None
    return None


def _numbered(found: dict[str, nn.Module], field: str, wanted: Any, said: str) -> dict[str, nn.Module]:
    """The modules whose layer or stage has one of the numbers; negative ones count from each row's last."""
    numbers = {path: at for path in found if (at := _number(path, field)) is not None}
    inside = {row for row, _, follows in numbers.values() if follows}
    if field == "layers" and inside:  # head.fc2 is no layer beside blocks.2.mlp
        numbers = {path: at for path, at in numbers.items() if at[0] in inside}
    rows: dict[str, set[int]] = {}
    for row, number, _ in numbers.values():
        rows.setdefault(row, set()).add(number)
    if not rows:
        raise NoTargetMatch(f"{said}{field}: none of the {len(found)} matching modules lies in a numbered {field[:-1]}")
    chosen = {row: _chosen(sorted(have), wanted) for row, have in rows.items()}
    missing = set(wanted) if isinstance(wanted, list) else set()
    for have in rows.values():
        missing -= {n for n in missing if n in have or (n < 0 and -n <= len(have))}
    if missing or not any(chosen.values()):
        there = "; ".join(f"{row} {min(have)} to {max(have)}" for row, have in rows.items())
        raise NoTargetMatch(f"{said}{field} {_told(wanted)} picks none, or not all; there is {there}")
    return {path: found[path] for path, (row, number, _) in numbers.items() if number in chosen[row]}


def _chosen(have: list[int], wanted: Any) -> set[int]:
    if isinstance(wanted, list):
        return {have[n] if n < 0 else n for n in wanted if (-n <= len(have) if n < 0 else n in have)}
    first, last = (int(part) if part else None for part in wanted.split(":"))
    low = have[0] if first is None else first if first >= 0 else have[max(0, len(have) + first)]
    if last is None:
        return {n for n in have if n >= low}
    high = last if last >= 0 else have[max(0, len(have) + last)]
    return {n for n in have if low <= n < high}


def _told(wanted: Any) -> str:
    return wanted if isinstance(wanted, str) else ", ".join(map(str, wanted))


def _hint(modules: Mapping[str, nn.Module], field: str, pattern: str) -> str:
    if field == "role":
        return near(pattern, {m.__dict__["role"] for m in modules.values() if m.__dict__.get("role")})
    if field == "type":
        return near(pattern, {type(m).__name__ for m in modules.values()})
    last = pattern.rpartition(".")[2].strip("*")
    if field == "regex" or not last:
        return near(pattern, modules)
    ends = {path: path.rpartition(".")[2] for path in modules}
    inside = [path for path, end in ends.items() if last in end]
    if inside:
        return f"a glob is the whole name, like {inside[0]!r} or '**.{ends[inside[0]]}'"
    if "." in pattern and "*" not in pattern:
        return near(pattern, modules)
    named = {end for end in ends.values() if not end.isdigit()}
    kin = {end for end in named if {*end.split("_")} & {*last.split("_")}}  # q beside q_proj
    return near(f"**.{last}", {f"**.{end}" for end in kin or named})
