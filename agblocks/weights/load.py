"""Weights of a file, a hub's repository or a mapping into a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import near
from ..graph.model import GraphModel
from .errors import WeightsError, told
from .formats import bound_to
from .match import Names, match
from .opening import opened
from .place import fill
from .report import Report
from .source import Held, Source

Allowed = Literal["missing", "unexpected", "shape"]


def load_weights(
    model: GraphModel,
    source: str | Path | Mapping[str, Any],
    format: str | None = None,
    into: str | Iterable[str] | None = None,
    *,
    nodes: Mapping[str, str] | None = None,
    allow: Allowed | Collection[Allowed] = (),
    revision: str | None = None,
    file: str | None = None,
    device: str | torch.device = "cpu",
) -> Report:
    """Load published or saved weights into a model, whole or not at all, and say what became of every tensor.

    source: a file (.safetensors, .pth/.pt/.bin/.ckpt, Keras .h5), a folder with one, a run of ours, a hub's repository
        (`owner/name`), or a state dict. format: one of `agblocks.weights.FORMATS`; found out from the keys by default.
    into: load these parts only, by patterns over nodes: "encoder", "encoder.*", "tower.layer[1-4]". The source's keys
        for other nodes are then reported, not errors.
    nodes: how nodes are called here, if not as in the shipped recipe: {"encoder": "my_encoder"}.
    allow: what is reported instead of refused: "missing" tensors, "unexpected" keys, wrong "shape".
    revision, file: of a hub's repository; a revision that is no commit is resolved and reported.
    device: where tensors go that are on the meta device.

    A model built by `build(recipe, device="meta")` takes what is read as its parameters: the weights are in memory
    once, and only those of nodes that it has are read. What the source has nothing for is drawn as in training from
    scratch. Stages, layers and heads that the model doesn't have are cut away, which is no error; nor is a new head.
    A node that is another block than in the shipped recipe takes nothing, and the report says so.
    Errors: `WeightsError`, with the model as it was, for files that are damaged, would run code or hold values that are
        not finite; for keys of no or another format; for missing tensors, unexpected keys and wrong shapes.
    Use when: `load_weights(build("alphagenome_encoder_mpra", device="meta"), "alphagenome.safetensors")`.
    """
    with _opened(source, revision, file) as tensors:
        return _load(model, tensors, format, into, nodes, allow, device)


def _opened(source: str | Path | Mapping[str, Any], revision: str | None, file: str | None) -> Source:
    with told(f"{source if isinstance(source, (str, Path)) else 'the state dict'}: cannot be read"):
        return Held(source) if isinstance(source, Mapping) else opened(source, revision=revision, file=file)


def _load(
    model: GraphModel,
    source: Source,
    format: str | None,
    into: str | Iterable[str] | None,
    nodes: Mapping[str, str] | None,
    allow: Allowed | Collection[Allowed],
    device: str | torch.device,
) -> Report:
    if not isinstance(model, GraphModel):
        raise WeightsError(f"weights are loaded into a model that agblocks.build made, not a {type(model).__name__}")
    with told(f"device {str(device)!r} cannot be used"):
        torch.empty(0, device=device)
    allowed = {allow} if isinstance(allow, str) else set(allow)
    if odd := allowed - {"missing", "unexpected", "shape"}:
        raise WeightsError(f"allow: {sorted(odd)[0]!r} is none of missing, unexpected, shape")
    patterns = () if into is None else (into,) if isinstance(into, str) else tuple(into)
    if into is not None and not patterns:
        raise WeightsError("into names no part of the model; leave it out to load all")
    names = Names(dict(nodes or {}))
    for standard, here in names.nodes.items():
        if not any(node == here or node.startswith(f"{here}.") for node in model.resolved.nodes):
            known = {*model.resolved.nodes, *(node.partition(".")[0] for node in model.resolved.nodes)}
            raise WeightsError(
                f"nodes: {standard!r} is to be {here!r}, which the model doesn't have; {near(here, known)}"
            )
    bound = bound_to(source, format, set(model.state_dict()), model.resolved.digest)
    copies, report = match(model, source, bound, patterns, names)
    refuse(report, allowed)
    fill(model, source, copies, device)
    report.read_bytes = source.read_bytes
    return report


def refuse(report: Report, allow: Collection[str] = ()) -> None:
    """Raise for what a report holds that is not allowed, and where nothing fits at all."""
    wrong: list[str] = []
    if "shape" not in allow:
        wrong += [f"shape: {ours}: {said}" for ours, said in report.wrong_shape.items()]
    if "missing" not in allow:
        wrong += [f"missing: {key} (for {ours})" for ours, key in report.missing.items()]
    if "unexpected" not in allow:
        wrong += [f"unexpected: {key}; {_like(key, report)}" for key in report.unexpected]
    if wrong:
        more = f"\n  ... and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        kinds = sorted({line.partition(":")[0] for line in wrong})
        raise WeightsError(
            f"{report.source}: as {report.format}, its tensors are not the model's; nothing was loaded:\n  "
            + "\n  ".join(wrong[:10]) + more
            + f"\nLoad parts by into=, name nodes by nodes=, or take the rest by allow={kinds}", report,
        )  # fmt: skip
    if not report.loaded:
        raise WeightsError(
            f"{report.source}: as {report.format}, it has nothing for the model: its nodes are called otherwise "
            "(see nodes=), or are other blocks", report,
        )  # fmt: skip


def _like(key: str, report: Report) -> str:
    options = [*report.missing.values(), *report.loaded.values()]
    return near(key, options) if options else "the model has no place for it"
