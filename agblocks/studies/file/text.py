"""Tree to study: which keys there are, what form their values have, which paths of the cell they set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import Mark, near, shown
from ...graph.forms import Findings, mapping, named
from ...graph.source import Tree
from .form import EACH, OF_EACH, PATHS, clash, entries, wrong_path, wrong_value
from .study import CONTROLS, Axis, Option, Study, Values, label_of

VERSION = 1
STUDY_KEYS = (
    "study", "name", "about", "data", "pretrain", "cell", "vary", "cells", "controls", "reference", "similarity",
    "report", "keep", "resources",
)  # fmt: skip
DATA_KEYS = (
    "data", "sequence", "targets", "fold", "group", "id", "skip_bad_rows", "allow_missing", "construct", "simulate",
    "permute",
)  # fmt: skip
REPORT_KEYS = ("x", "line", "panel", "over")
RESOURCES = ("cpus", "gpus", "memory")
KEEP = ("weights",)


def read_study(tree: Tree, name: str, file: Path | None, findings: Findings) -> Study:
    """The study in a tree; whatever has the wrong form is a finding and left out."""
    top = mapping(tree, "", STUDY_KEYS, findings, "a study")
    top = {key: child for key, child in top.items() if key == "cell" or child.value is not None}  # null: left out
    version = top.get("study")
    if version is None or type(version.value) is not int or version.value != VERSION:
        found = version.kind if version else "none"
        findings.find(
            f"the first key should be 'study: {VERSION}', the version of the form, but there is {found}",
            version.mark if version else tree.mark, "study",
        )  # fmt: skip
    data = {n: _data(t, f"data.{n}", findings) for n, t in named(top.get("data"), "data", findings)}
    models = named(top.get("pretrain"), "pretrain", findings)
    pretrain = {n: _values(t, f"pretrain.{n}", findings, pretrain=True) for n, t in models}
    base = _values(top["cell"], "cell", findings) if "cell" in top else {}
    if "cell" not in top:
        findings.find("a study says what its cells are: 'cell: {data: ..., recipe: ...}'", tree.mark, "cell")
    axes = tuple(
        axis for n, t in named(top.get("vary"), "vary", findings)
        if (axis := _axis(n, t, top["vary"].key_mark(n), findings)) is not None
    )  # fmt: skip
    _clashes(axes, findings)
    for where, values in (("cell", base), *((f"pretrain.{n}", v) for n, v in pretrain.items())):
        _known_data(where, values, data, findings)
    for axis in axes:
        for option in axis.options:
            _known_data(f"vary.{axis.name}.{option.label}", option.values, data, findings)
    reference = _labels(top.get("reference"), "reference", findings)
    about = top.get("about")
    own = top.get("name")
    return Study(
        name=own.value if own is not None and isinstance(own.value, str) else name,
        about=about.value if about is not None and isinstance(about.value, str) else "",
        data=data,
        pretrain=pretrain,
        base=base,
        axes=axes,
        listed=_listed(top.get("cells"), findings),
        controls=_chosen(top.get("controls"), "controls", CONTROLS, findings),
        reference={k: v[0] for k, v in reference.items()} if reference else None,
        similarity=dict(named(top.get("similarity"), "similarity", findings)),
        report=_report(top.get("report"), [axis.name for axis in axes], findings),
        keep=_chosen(top.get("keep"), "keep", KEEP, findings),
        resources=_resources(top.get("resources"), findings),
        file=file,
        marks={key: tree.key_mark(key) for key in top},
        tree=tree,
    )


def _data(tree: Tree, path: str, findings: Findings) -> Values:
    if isinstance(tree.value, str):  # `human: human_lentimpra_3k`
        return {"data": tree}
    values = mapping(tree, path, DATA_KEYS, findings)
    if ("data" in values) == ("simulate" in values):
        findings.find("rows come from 'data', a file or a public set, or from 'simulate'", tree.mark, path)
    return values


def _values(tree: Tree, path: str, findings: Findings, pretrain: bool = False) -> Values:
    """A mapping of paths to values, sections taken apart."""
    if not tree.is_map:
        findings.find(f"{path} should be a mapping, not {tree.kind}", tree.mark, path)
        return {}
    found: dict[str, Tree] = {}
    for key, child in tree.value.items():
        mark = tree.key_mark(key)
        if pretrain and key == "weights":
            found["transfer.weights"] = child
            continue
        if said := wrong_path(key):
            findings.find(said, mark, f"{path}.{key}")
            continue
        for name, value in entries(key, child):
            if name in found or any(clash(name, other) for other in found):
                findings.find(f"{name!r} is said twice", value.mark or mark, f"{path}.{key}")
            elif said := wrong_path(name):
                findings.find(said, child.key_mark(name.partition(".")[2]), f"{path}.{name}")
            elif said := _wrong(name, value, pretrain):
                findings.find(said, value.mark or mark, f"{path}.{name}")
            else:
                found[name] = value
    return found


def _wrong(name: str, value: Tree, pretrain: bool) -> str | None:
    plain = value.plain()
    if pretrain and name in OF_EACH and plain == EACH:
        return None
    return wrong_value(name, plain)


def _axis(name: str, tree: Tree, mark: Mark | None, findings: Findings) -> Axis | None:
    path = f"vary.{name}"
    options: list[Option] = []
    if tree.is_list:
        if said := wrong_path(name):
            said += "; an axis of another name maps its options to what they set, like {low: {training.lr: 1e-4}}"
            findings.find(said, mark, path)
            return None
        for index, child in enumerate(tree.value):
            values: dict[str, Tree] = {}
            for inner, value in entries(name, child):
                if said := wrong_path(inner) or wrong_value(inner, value.plain()):
                    findings.find(said, value.mark or mark, f"{path}[{index}]")
                else:
                    values[inner] = value
            options.append(Option(label_of(child.plain()), values, child.mark))
    elif tree.is_map:
        options = [
            Option(n, _values(t, f"{path}.{n}", findings) if t.value is not None else {}, tree.key_mark(n))
            for n, t in tree.value.items()
        ]
    if not options:
        said = f"an axis is a list of values or a mapping of options, at least one, not {tree.kind}"
        findings.find(said, tree.mark or mark, path)
        return None
    labels = [option.label for option in options]
    for option in options:
        if labels.count(option.label) > 1:
            findings.find(f"{shown(option.label)} is an option twice", option.mark, path)
            break
    return Axis(name, tuple(options), mark)


def _clashes(axes: tuple[Axis, ...], findings: Findings) -> None:
    """Two axes that set the same path: which of them would win is nobody's to say."""
    said: dict[str, Axis] = {}
    for axis in axes:
        mine = {path: option for option in axis.options for path in option.values}
        for path, option in mine.items():
            for other, owner in said.items():
                if clash(path, other):
                    findings.find(
                        f"axes {owner.name!r} and {axis.name!r} both set {path!r}", option.mark or axis.mark,
                        f"vary.{axis.name}.{option.label}",
                    )  # fmt: skip
        said.update(dict.fromkeys(mine, axis))


def _known_data(where: str, values: Values, data: dict[str, Values], findings: Findings) -> None:
    tree = values.get("data")
    if tree is not None and isinstance(tree.value, str) and tree.value not in data:
        said = f"there are no rows called {shown(tree.value)}; {near(tree.value, data)}"
        findings.find(said, tree.mark, f"{where}.data")


def _listed(tree: Tree | None, findings: Findings) -> tuple[dict[str, tuple[str, ...]], ...] | None:
    if tree is None or tree.value is None:
        return None
    if not tree.is_list or not tree.value:
        findings.find(f"cells is a list of combinations, like [{{tap: encoder}}], not {tree.kind}", tree.mark, "cells")
        return None
    return tuple(_labels(child, f"cells[{index}]", findings) for index, child in enumerate(tree.value))


def _labels(tree: Tree | None, path: str, findings: Findings) -> dict[str, tuple[str, ...]]:
    """From axes to labels; names are looked up when all options are known."""
    if tree is None or tree.value is None:
        return {}
    if not tree.is_map:
        findings.find(f"{path} maps axes to options, not {tree.kind}", tree.mark, path)
        return {}
    found = {}
    for name, child in tree.value.items():
        listed = child.value if child.is_list else [child]
        if not listed:
            findings.find(f"{path}.{name} names no option", child.mark, f"{path}.{name}")
            continue
        found[name] = tuple(label_of(item.plain()) for item in listed)
    return found


def _chosen(tree: Tree | None, path: str, known: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
    if tree is None or tree.value is None:
        return ()
    items = tree.value if tree.is_list else [tree]
    found = []
    for item in items:
        if item.value not in known:
            findings.find(f"{path} has {item.kind}; {near(str(item.value), known)}", item.mark or tree.mark, path)
        elif item.value not in found:
            found.append(item.value)
    return tuple(found)


def _report(tree: Tree | None, axes: list[str], findings: Findings) -> dict[str, Any]:
    if tree is None:
        return {}
    found: dict[str, Any] = {}
    for key, child in mapping(tree, "report", REPORT_KEYS, findings).items():
        value = child.plain()
        several = key in ("panel", "over")
        names = value if several and isinstance(value, list) else [value]
        for name in names:
            if name is not None and name not in axes:
                findings.find(f"there is no axis {shown(name)}; {near(str(name), axes)}", child.mark, f"report.{key}")
        found[key] = [name for name in names if name is not None] if several else value
    return found


def _resources(tree: Tree | None, findings: Findings) -> dict[str, float]:
    if tree is None:
        return {}
    found = {}
    for key, child in mapping(tree, "resources", RESOURCES, findings).items():
        if isinstance(child.value, bool) or not isinstance(child.value, int | float) or child.value < 0:
            findings.find(f"wanted a number from 0, not {child.kind}", child.mark, f"resources.{key}")
        else:
            found[key] = float(child.value)
    return found


__all__ = ["DATA_KEYS", "PATHS", "STUDY_KEYS", "read_study"]
