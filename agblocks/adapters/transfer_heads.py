"""Heads that a `TransferConfig` takes away and adds, as a recipe says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AgblocksError, near, shown
from .transfer_config import TransferConfig

if TYPE_CHECKING:
    from ..graph.resolved import Resolved

KEYS = ("modality", "num_tracks", "resolutions", "track_means", "num_organisms", "init_scheme", "encoder_only")


def removed_heads(config: TransferConfig, heads: Mapping[str, Sequence[str]]) -> list[str]:
    """Our heads that go. `heads` are ours by the package's name. Raises `AgblocksError` for names that are none."""
    for name in (*config.remove_heads, *config.keep_heads):
        if name not in heads:
            raise AgblocksError(f"there is no head {shown(name)} to remove or keep; {near(name, heads)}")
    gone = [name for name in heads if name not in config.keep_heads] if config.keep_heads else config.remove_heads
    return [head for name in gone for head in heads[name]]


def new_heads(config: TransferConfig, heads: Mapping[str, Sequence[str]], resolved: Resolved) -> dict[str, Any]:
    """New heads, one for each resolution: like the one of the same modality, with other tracks."""
    made: dict[str, Any] = {}
    for name, said in config.new_heads.items():
        if odd := [key for key in said if key not in KEYS]:
            raise AgblocksError(f"new_heads.{name} has no {shown(odd[0])}; {near(odd[0], KEYS)}")
        modality, tracks = said.get("modality"), said.get("num_tracks")
        if not isinstance(modality, str) or modality not in heads:
            raise AgblocksError(f"new_heads.{name}: modality {shown(modality)}; {near(str(modality), heads)}")
        if type(tracks) is not int or tracks < 1:
            raise AgblocksError(f"new_heads.{name}: num_tracks is a whole number above 0, not {shown(tracks)}")
        like = {int(args["resolution"]): head for head, args in _tracks(resolved, heads[modality]).items()}
        resolutions = said.get("resolutions", [1, 128])
        if not isinstance(resolutions, list) or not resolutions or any(r not in like for r in resolutions):
            there = f"{modality} has {', '.join(map(str, like))}" if like else f"{modality} is no head of tracks"
            raise AgblocksError(f"new_heads.{name}: resolutions {resolutions}; {there}")
        for resolution in resolutions:
            node = resolved.nodes[like[resolution]]
            args = {k: v for k, v in node.args.items() if v != node.entry.defaults[k] and k not in ("tracks", "real")}
            args |= {"tracks": tracks, "organisms": said.get("num_organisms", 1)}
            made[f"{name}_{resolution}bp"] = {"block": node.entry.name, "in": dict(node.inputs), "args": args}
    return made


def _tracks(resolved: Resolved, heads: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Arguments of those heads that give tracks at a resolution."""
    arguments = {head: resolved.nodes[head].args for head in heads}
    return {head: args for head, args in arguments.items() if {"resolution", "tracks"} <= set(args)}
