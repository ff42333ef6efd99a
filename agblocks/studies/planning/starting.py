"""Where a cell's model starts: weights of a model trained before, of a file or a hub; and what of it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import near, shown
from ...graph.resolved import Resolved, ResolvedNode
from ...training.settings import Settings
from ...training.tuning.reinit import redrawn_names
from ...training.tuning.transfer import Transfer, said_once
from ..errors import WorkError
from . import models
from .cell import Cell, digest

if TYPE_CHECKING:
    from .making import Maker


_BASE = "and its base's weights without them are not what it learnt: merge them into a file of weights first"


@dataclass(frozen=True)
class Start:
    """Weights as a cell says and finds them.

    said: what enters the cell's document; found: where they lie; needs: cells that make them; folders: runs that they
    come from; all: whether nothing of what the cell computes is left to be drawn.
    """

    said: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    needs: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    all: bool = False


@dataclass(frozen=True)
class Tuned:
    """What of a model trains: in words for the document, as arguments of `fit`, and in numbers of parameters."""

    said: dict[str, Any]
    found: dict[str, Any]
    parameters: dict[str, int]


def started(sources: Any, resolved: Resolved, edges: tuple[str, ...], maker: Maker, values: Mapping[str, Any]) -> Start:
    """The weights of a cell's `transfer` section. Errors: `WorkError` for what is not there or does not fit."""
    listed = sources if isinstance(sources, list) else [sources]
    said, found, needs, folders = [], [], [], []
    nodes = {node.name: node for node in resolved.needed(edges) if node.name not in resolved.heads}
    left = set(nodes)
    for source in listed:
        name, into = _source(source)
        patterns = into or sorted({node.partition(".")[0] for node in nodes})
        mine = {node for node in nodes if any(_under(node, pattern) for pattern in patterns)}
        if not mine:
            tops = {node.partition(".")[0] for node in nodes}
            raise WorkError(f"weights into {', '.join(patterns)}: there is no such node; {near(patterns[0], tops)}")
        own: dict[str, Any] = {"into": into} if into else {}
        cell = maker.pretrained(name, values)
        if cell is not None:
            if cell.given["transfer"].get("adapters") or cell.given["recipe"].get("adapters"):
                raise WorkError(f"{name!r} is trained with adapters, {_BASE}")
            left -= _taken(name, cell, {node: nodes[node] for node in mine})
            said.append({"cell": cell.id, **own})
            found.append({"cell": cell.id, "name": name, "into": patterns})
            needs.append(cell.id)
            continue
        if name in maker.study.pretrain:
            name = maker.study.pretrain[name]["transfer.weights"].plain()
        where, identity, folder = _elsewhere(name, maker.study.folder)
        said.append({**identity, **own})
        found.append({"path": where, "into": patterns})
        folders += [folder] if folder is not None else []
    return Start(said, found, tuple(dict.fromkeys(needs)), tuple(folders), not left)


def tuning(transfer: Mapping[str, Any], resolved: Resolved, settings: Settings) -> Tuned:
    """What trains by a cell's `transfer` section; names are looked up in the model, of which nothing is allocated.

    Errors: `TransferError` and `RunError` for terms that fit nothing; `AdapterError` for adapters that have no place.
    """
    said = Transfer.from_dict(transfer).to_dict()
    parameters = _parameters(_Held(resolved), replace(settings, seed=0), _Held(said))
    return Tuned({"transfer": said} if said else {}, said, parameters)


def redrawing(transfer: Mapping[str, Any], resolved: Resolved) -> list[str]:
    """What of a probe's model is drawn anew. Errors: `RunError` for terms that fit nothing."""
    from ...graph.build import build

    terms = Transfer.from_dict({"reinit": transfer.get("reinit")}).reinit
    if terms:
        redrawn_names(build(resolved, device="meta"), terms)
    return list(terms)


class _Held:
    """Lets what is not hashable be an argument of a cached function: by identity of content, given apart."""

    def __init__(self, value: Any):
        self.value = value
        self.key = value.digest if isinstance(value, Resolved) else digest(value)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.key == other.key


@lru_cache(maxsize=256)
def _parameters(resolved: _Held, settings: Settings, said: _Held) -> dict[str, int]:
    from ...graph.build import build
    from ...training import plan
    from ...training.adapting import adapted, tuned, with_adapters

    chosen, _, adapters = said_once(said.value, settings)
    made = with_adapters(resolved.value, adapters)
    chosen = tuned(chosen, made)
    model = build(made, device="meta")
    redrawn_names(model, chosen.redrawn)
    planned = plan(adapted(model, chosen), chosen)
    return {"all": planned.parameters, "trained": planned.trained}


def _source(source: Any) -> tuple[str, list[str]]:
    into = None
    if isinstance(source, Mapping):
        if set(source) - {"from", "into"} or not isinstance(source.get("from"), str):
            raise WorkError(f"transfer.weights has {shown(source)}; wanted a name, or {{from: name, into: [nodes]}}")
        into, source = source.get("into"), source["from"]
    if not isinstance(source, str) or not source:
        raise WorkError(
            f"transfer.weights is {shown(source)}; wanted a pretrained model's name, a path or a repository"
        )
    return source, [] if into is None else [into] if isinstance(into, str) else [str(item) for item in into]


def _under(node: str, pattern: str) -> bool:
    return fnmatchcase(node, pattern) or fnmatchcase(node, f"{pattern}.*")


def _taken(name: str, cell: Cell, nodes: Mapping[str, ResolvedNode]) -> set[str]:
    """The nodes that a pretrained model has weights for. Errors: `WorkError` for other blocks under their names."""
    there = models.whole(cell.given["recipe"], {}, None).nodes
    shared = set(nodes) & set(there)
    if not shared:
        raise WorkError(
            f"{name!r} has no weights for this model: it has {', '.join(sorted(there)[:6])}, and not "
            f"{', '.join(sorted(nodes)[:6])}"
        )
    for node in sorted(shared):
        mine, other = nodes[node], there[node]
        if (mine.entry.name, mine.args, mine.dims) != (other.entry.name, other.args, other.dims):
            unlike = _unlike(mine, other)
            raise WorkError(f"{node!r} is another block here than in {name!r}, so its weights do not fit: {unlike}")
    return shared


def _unlike(mine: ResolvedNode, other: ResolvedNode) -> str:
    if mine.entry.name != other.entry.name:
        return f"{mine.entry.name} here, {other.entry.name} there"
    ours, theirs = {**mine.dims, **mine.args}, {**other.dims, **other.args}
    odd = [key for key in ours if ours[key] != theirs.get(key)]
    return ", ".join(f"{key} is {ours[key]} here and {theirs.get(key)} there" for key in odd)


def _elsewhere(name: str, folder: Path | None) -> tuple[str, dict[str, str], str | None]:
    """Where weights lie that no cell makes, what they are by content, and the run that they are of."""
    from ...training.run import FILE
    from .making import file_sum

    beside = folder / name if folder is not None else Path(name)
    path = beside if beside.exists() else Path(name)
    if path.is_dir() and (path / FILE).is_file():
        if (path / "adapters").is_dir():
            raise WorkError(f"the run {path} was trained with adapters, {_BASE}")
        return str(path.resolve()), {"sha256": file_sum(path / FILE)}, str(path.resolve())
    if path.is_file():
        return str(path.resolve()), {"sha256": file_sum(path)}, None
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name, {"hub": name}, None
    raise WorkError(f"there are no weights {shown(name)}: no such model in pretrain, no such file, run or repository")
