"""The known formats, and which of them a source is."""

from __future__ import annotations

from importlib import import_module

from ..errors import near
from .errors import WeightsError
from .mapping import Bound, Map
from .own import OwnBound, OwnMap, looks_own
from .source import Source

#: format -> where its table stands
TABLES = {
    "alphagenome-pytorch": "alphagenome.ALPHAGENOME",
    "enformer-pytorch": "enformer.ENFORMER",
    "borzoi-pytorch": "borzoi.BORZOI",
    "mpralegnet": "legnet.LEGNET",
    "dream": "dream.DREAM",
    "deepstarr-keras": "deepstarr.DEEPSTARR",
}
FORMATS = ("agblocks", *TABLES)
PREFIXES = ("", "model.", "module.", "_orig_mod.", "net.")  # that trainers and wrappers put before every key


def map_of(name: str) -> Map | OwnMap:
    """The map of a format. Errors: `WeightsError` with near names."""
    if name == "agblocks":
        return OwnMap()
    if name not in TABLES:
        raise WeightsError(f"there is no format {name!r}; {near(name, FORMATS)}")
    module, _, table = TABLES[name].partition(".")
    found: Map = getattr(import_module(f".{module}", __package__), table)
    return found


def bound_to(source: Source, format: str | None, ours: set[str], digest: str = "") -> Bound | OwnBound:
    """The map that fits the source's keys, told or found out, and the source without a trainer's prefix.

    `ours` and `digest` are the model's: its tensors' names, and what it computes.

    Errors: `WeightsError` where no format, or more than one, knows most of the keys.
    """
    if not source.entries:
        raise WeightsError(f"{source.label}: holds no tensors")
    if format == "agblocks" or (format is None and looks_own(source.metadata, source.entries, ours)):
        return OwnMap().bind(source.entries, source.metadata, digest)
    names = TABLES if format is None else [format]
    scores = {}
    for name in names:
        mapping = map_of(name)
        assert isinstance(mapping, Map)
        for prefix in PREFIXES:
            keys = [key[len(prefix) :] for key in source.entries if key.startswith(prefix)]
            if known := sum(mapping.knows(key) for key in keys):
                scores[name, prefix] = known
    best = sorted(scores, key=lambda at: (-scores[at], len(at[1])))
    if not best:
        first = ", ".join(sorted(source.entries)[:4]) + ", ..." * (len(source.entries) > 4)
        wanted = format or f"any of {', '.join(TABLES)}"
        raise WeightsError(
            f"{source.label}: its {len(source.entries):,} keys ({first}) are not those of {wanted}, nor the model's own"
        )
    name, prefix = best[0]
    rivals = [at[0] for at in best[1:] if at[0] != name and scores[at] == scores[best[0]]]
    if rivals:
        raise WeightsError(f"{source.label}: may be {name} or {' or '.join(rivals)}; say which by format=")
    if format is None and 2 * scores[best[0]] < len(source.entries):
        raise WeightsError(
            f"{source.label}: is most like {name}, but that knows only {scores[best[0]]:,} of its "
            f"{len(source.entries):,} keys; say format= to take it so"
        )
    mapping = map_of(name)
    assert isinstance(mapping, Map)
    return mapping.bind(source.entries, prefix)
