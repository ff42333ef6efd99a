"""Published weights as a file of ours: under our names, with the recipe and where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import AgblocksError
from ..files import beside
from ..graph.build import build
from ..graph.model import GraphModel
from ..graph.resolved import Resolved
from .errors import WeightsError
from .load import Allowed, load_weights
from .match import owner
from .own import METADATA
from .report import Report
from .source import DTYPES


def convert(
    source: str | Path,
    to: str | Path,
    recipe: str | Path | Mapping[str, Any] | Resolved,
    *overrides: str,
    format: str | None = None,
    into: str | Iterable[str] | None = None,
    nodes: Mapping[str, str] | None = None,
    allow: Collection[Allowed] = (),
    revision: str | None = None,
    file: str | None = None,
    force: bool = False,
) -> Report:
    """Load weights into a recipe's model and write them to `to`, a safetensors file that `load_weights` reads.

    The file holds what was loaded, and what the format may lack at its default; a new head's random values stay out.
    Its metadata say the recipe, its digest, the blocks, the format, the source and its revision. Whole or not at all.
    force: replace a file that is there; never the source. Errors: as of `load_weights`; `WeightsError` if the file
    is there or cannot be written, before anything is loaded. Costs: memory for the weights, once.
    """
    target = Path(to)
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: weights are written as .safetensors, found suffix {target.suffix!r}")
    if target.is_dir() or (target.exists() and not force):
        raise WeightsError(f"{target}: is there already; take another name" + ("" if target.is_dir() else ", or force"))
    if target.exists() and any(place.samefile(source) for place in (target, target.parent) if Path(source).exists()):
        raise WeightsError(f"{target}: is the source, or a part of it, and would be lost; take another name")
    model = build(recipe, *overrides, device="meta")
    try:
        with beside(target) as part, open(part, "wb") as handle:
            report = load_weights(
                model, source, format, into, nodes=nodes, allow=allow, revision=revision, file=file
            )  # fmt: skip
            write(handle, model, report)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from None
    return report


def write(handle: BinaryIO, model: GraphModel, report: Report) -> None:
    """Write what a report says was loaded into a model."""
    from .. import __version__

    state = model.state_dict()
    blocks = {name: node.entry.name for name, node in model.resolved.nodes.items()}
    owners = {owner(name, blocks) for name in report.loaded}
    loaded = {node: block for node, block in blocks.items() if node in owners}
    absent = [name for name in report.absent if owner(name, blocks) in owners]
    tensors = {name: state[name] for name in (*report.loaded, *absent)}
    said = {
        "recipe": model.resolved.recipe,
        "digest": model.resolved.digest,
        "nodes": loaded,
        "format": report.format,
        "source": Path(report.source).name if os.path.exists(report.source) else report.source,
        "revision": report.revision,
        "absent": absent,
        "agblocks": __version__,
    }
    write_safetensors(handle, tensors, {METADATA: json.dumps(said, default=_plain)})


def write_safetensors(handle: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """The file format, a tensor at a time: the library's own writer holds all of them twice."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    handle.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        octets: Any = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        handle.write(octets)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise AgblocksError(f"{type(value).__name__} has no place in a file's metadata")
