"""Heads that a `TransferConfig` takes away and adds, as a recipe says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import AgblocksError, near, shown
from .config import TransferConfig

if TYPE_CHECKING:
    from ...graph.resolved import Resolved

KEYS = ("modality", "num_tracks", "resolutions", "track_means", "num_organisms", "init_scheme", "encoder_only")
SCHEMES = ("truncated_normal", "uniform")
ENCODER, ITS_RESOLUTION = "encoder", 128


def removed_heads(config: TransferConfig, heads: Mapping[str, Sequence[str]]) -> list[str]:
    """Our heads that go, those too whose name a new one takes. `heads` are ours by the package's name.

    Raises `AgblocksError` for names that are none.
    """
    for name in (*config.remove_heads, *config.keep_heads):
        if name not in heads:
            raise AgblocksError(f"there is no head {shown(name)} to remove or keep; {near(name, heads)}")
    gone = [name for name in heads if name not in config.keep_heads] if config.keep_heads else config.remove_heads
    replaced = [name for name in config.new_heads if name in heads]
    return [head for name in dict.fromkeys((*gone, *replaced)) for head in heads[name]]


def new_heads(
    config: TransferConfig, heads: Mapping[str, Sequence[str]], resolved: Resolved, notes: list[str]
) -> dict[str, Any]:
    """New heads, one for each resolution: like the one of the same modality, with other tracks.

    What a recipe cannot say of them goes to `notes`. Raises `AgblocksError` for settings that cannot be.
    """
    made: dict[str, Any] = {}
    for name, said in config.new_heads.items():
        if odd := [key for key in said if key not in KEYS]:
            raise AgblocksError(f"new_heads.{name} has no {shown(odd[0])}; {near(str(odd[0]), KEYS)}")
        modality = said.get("modality")
        if not isinstance(modality, str) or modality not in heads:
            raise AgblocksError(f"new_heads.{name}: modality {shown(modality)}; {near(str(modality), heads)}")
        tracks, organisms = _count(name, said, "num_tracks"), _count(name, said, "num_organisms", 1)
        like = {int(args["resolution"]): head for head, args in _tracks(resolved, heads[modality]).items()}
        encoder = _on_encoder(config, name, said)
        resolutions = said.get("resolutions")
        if resolutions is None:
            resolutions = [ITS_RESOLUTION] if encoder else [1, ITS_RESOLUTION]
        there = [r for r in like if r == ITS_RESOLUTION or not encoder]
        if not isinstance(resolutions, list | tuple) or not resolutions or not _different(resolutions, there):
            has = f"{'the encoder' if encoder else modality} has {', '.join(map(str, there))}"
            has = has if there else f"{modality} is no head of tracks"
            raise AgblocksError(f"new_heads.{name}: resolutions {shown(resolutions)}; {has}")
        for resolution in resolutions:
            node = resolved.nodes[like[resolution]]
            args = {k: v for k, v in node.args.items() if v != node.entry.defaults[k] and k not in ("tracks", "real")}
            args |= {"tracks": tracks, "organisms": organisms}
            reads = {**node.inputs, **({"x": ENCODER} if encoder else {})}
            made[f"{name}_{resolution}bp"] = {"block": node.entry.name, "in": reads, "args": args}
        ours = [f"{name}_{resolution}bp" for resolution in resolutions]
        notes += _notes(name, said, ours)
        if name in heads:
            notes.append(f"new_heads.{name}: takes the place of {', '.join(heads[name])}, as there")
    return made


def _on_encoder(config: TransferConfig, name: str, said: Mapping[str, Any]) -> bool:
    """Whether a head reads the encoder: said of it, or of all by the mode."""
    encoder = said.get("encoder_only")
    everywhere = "encoder-only" in config.mode
    if encoder is not None and type(encoder) is not bool:
        raise AgblocksError(f"new_heads.{name}: encoder_only is true or false, not {shown(encoder)}")
    if everywhere and encoder is False:
        raise AgblocksError(f"new_heads.{name}: encoder_only is False, but mode is encoder-only; leave one of them out")
    return everywhere or bool(encoder)


def _count(name: str, said: Mapping[str, Any], key: str, default: int | None = None) -> int:
    number = said.get(key, default)
    if type(number) is not int or number < 1:
        raise AgblocksError(f"new_heads.{name}: {key} is a whole number above 0, not {shown(number)}")
    return number


def _different(resolutions: Sequence[Any], there: Sequence[int]) -> bool:
    whole = all(type(resolution) is int and resolution in there for resolution in resolutions)
    return whole and len(set(resolutions)) == len(resolutions)


def _notes(name: str, said: Mapping[str, Any], heads: Sequence[str]) -> list[str]:
    """What is said of a head and has no place in a recipe."""
    notes = []
    if said.get("track_means") is not None:
        where = " and ".join(f"model.{head}.track_means" for head in heads)
        notes.append(f"new_heads.{name}.track_means: no part of a recipe, and 1 until set: copy them into {where}")
    scheme = said.get("init_scheme")
    if scheme is not None and scheme not in SCHEMES:
        raise AgblocksError(f"new_heads.{name}: init_scheme {shown(scheme)}; {near(str(scheme), SCHEMES)}")
    if scheme == "uniform":
        notes.append(f"new_heads.{name}.init_scheme: uniform is not there; drawn from a truncated normal distribution")
    return notes


def _tracks(resolved: Resolved, heads: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Arguments of those heads that give tracks at a resolution."""
    arguments = {head: resolved.nodes[head].args for head in heads}
    return {head: args for head, args in arguments.items() if {"resolution", "tracks"} <= set(args)}
