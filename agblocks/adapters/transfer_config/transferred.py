"""What a `TransferConfig` becomes: explicit adapters, the modules each text of its lists finds, and remarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import AgblocksError
from ...graph.adapter_spec import AdapterSpec
from ...graph.resolve import resolve
from .config import TransferConfig, remarks
from .heads import new_heads, removed_heads
from .names import BLOCK, Found, Names
from .port_names import CONV, LINEAR, NORM, Known, in_their_names, known
from .port_names import heads as heads_of

if TYPE_CHECKING:
    from ...graph.resolved import Resolved

FULL, HEAD = "full", "head"  # as `agblocks fit --tune` has them


@dataclass(frozen=True)
class Transferred:
    """What a configuration comes to. `print` it, or attach it.

    recipe: of a recipe's model, a recipe with the heads and adapters: `adapt(build(made.recipe), train=made.train)`.
        None for other models: `adapt(model, made.specs, train=made.train)`.
    train: globs of what of the base trains: the new heads, or all if there are none; everything in mode "full". Of
        other models only norms are named, where they are unfrozen; their heads are for the caller to add.
    tune: the same as `agblocks fit --tune` has it.
    """

    config: TransferConfig
    specs: tuple[AdapterSpec, ...]
    train: tuple[str, ...]
    tune: str
    found: tuple[Found, ...]
    notes: tuple[str, ...]
    recipe: dict[str, Any] | None

    @property
    def unmatched(self) -> tuple[Found, ...]:
        """Texts that find nothing."""
        return tuple(found for found in self.found if not found.groups)

    def __str__(self) -> str:
        lines = [f"mode {' + '.join(self.config.mode)}"]
        for found in self.found:
            lines.append(f"{found.key} {found.text!r}" + ("" if found.groups else f": matches nothing; {found.meant}"))
            for group in found.groups:
                same = group.theirs == group.ours
                ours = "" if same else f" = {group.ours}"
                role = f", role {group.role}" if group.role else ""
                beside = "" if group.named else "  (beside it, as the text stands within the name)"
                lines.append(f"  {group.count} x {group.theirs}{ours}{role}{beside}")
        lines.append("adapters:" if self.specs else "no adapters")
        lines += [f"  {spec}" for spec in self.specs]
        more = f", ... ({len(self.train)} in all)" if len(self.train) > 4 else ""
        trains = ", ".join(self.train[:4]) + more if self.train and self.tune != FULL else self.tune
        lines.append(f"trains{' beside them' * bool(self.specs)}: {trains}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def convert(
    config: TransferConfig, model: nn.Module, *, keys: Iterable[str] | None = None, base: str = "alphagenome"
) -> Transferred:
    """Read a configuration's texts against a model's names.

    model: of a recipe, best on the meta device: its modules are looked up under the names that alphagenome-pytorch
        gives them. Any other model is read by its own names: that package's model object itself, say.
    keys: a checkpoint's keys: then the adapters are written for that package's model. base: the recipe to stand on.
    Raises: `AgblocksError` for heads that are not there, or cannot be. Texts that find nothing are in the result's
        `unmatched`.
    """
    modules = known(model)
    resolved: Any = getattr(model, "resolved", None)
    ours = resolved is not None and keys is None
    if keys is not None:
        modules = in_their_names(modules, keys)
    if not modules:
        raise AgblocksError("nothing here is in alphagenome-pytorch, by whose names a TransferConfig goes")
    names = Names(modules, model if ours else None)
    notes: list[str] = []
    specs, found = _adapters(config, names, notes)
    train: list[str] = []
    if config.unfreeze_norm and specs:
        if ours:
            specs.append(AdapterSpec("norm"))
            notes.append("unfreeze_norm: as the adapter 'norm', which leaves the norms' own scale and offset alone")
        else:
            train += names.globs([module for module in modules if module.kind == NORM])
    notes += remarks(config)
    if not ours and (config.new_heads or config.remove_heads or config.keep_heads):
        notes.append("heads are taken away and added in recipes alone; here that is left to prepare_for_transfer")
    tune, recipe = HEAD, None
    if ours:
        added, left = _heads(config, model, resolved, notes)
        recipe = _recipe(resolved, added, left, specs, base)
        train += sorted(added or left)
        tune = "+".join(sorted(added)) or HEAD
    if FULL in config.mode:
        train, tune = ["**"], FULL
    return Transferred(config, tuple(specs), tuple(train), tune, tuple(found), tuple(notes), recipe)


def _adapters(config: TransferConfig, names: Names, notes: list[str]) -> tuple[list[AdapterSpec], list[Found]]:
    specs: list[AdapterSpec] = []
    found: list[Found] = []

    def matched(key: str, kind: str) -> list[Known]:
        hits: dict[str, Known] = {}
        for text in getattr(config, key):
            fitting = names.blocks(text) if kind == BLOCK else names.hits(text, kind)
            found.append(names.found(key, text, fitting, kind))
            hits.update({module.ours: module for module in fitting})
        return list(hits.values())

    def add(kind: str, hits: Sequence[Known], **arguments: Any) -> None:
        specs.extend(names.specs(kind, hits, **arguments))

    if "lora" in config.mode:
        add("lora", matched("lora_targets", LINEAR), rank=config.lora_rank, alpha=float(config.lora_alpha))
    if "locon" in config.mode:
        add("locon", matched("locon_targets", CONV), rank=config.locon_rank, alpha=float(config.locon_alpha))
    if "ia3" in config.mode:
        giving, reading = matched("ia3_targets", LINEAR), matched("ia3_ff_targets", LINEAR)
        if both := [module for module in giving if module in reading]:
            notes.append(f"{len(both)} modules are in ia3_targets and ia3_ff_targets; they get ia3_ff alone, as there")
        add("ia3", [module for module in giving if module not in reading])
        add("ia3_ff", reading)
    if "houlsby" in config.mode:
        kind = LINEAR if config.houlsby_placement == "linear" else BLOCK
        add("houlsby", matched("houlsby_targets", kind), latent=config.houlsby_latent_dim)
        if kind == BLOCK and not names.roles:
            notes.append("houlsby on blocks: attach with a probe batch, which shows how many channels they give")
    return specs, found


def _heads(
    config: TransferConfig, model: nn.Module, resolved: Resolved, notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """The heads that are new, and which of the others are left."""
    there = heads_of(model)
    removed, added = removed_heads(config, there), new_heads(config, there, resolved, notes)
    left = [head for head in resolved.heads if head not in removed]
    for head in added:
        if head in left or (head in resolved.nodes and head not in removed):
            raise AgblocksError(f"new_heads.{head.rpartition('_')[0]}: there is a node {head!r}; wanted another name")
    return added, left


def _recipe(
    resolved: Resolved, added: Mapping[str, Any], left: Sequence[str], specs: Sequence[AdapterSpec], base: str
) -> dict[str, Any]:
    """The recipe, standing on `base`. Raises `RecipeError` where it does not resolve."""
    adapters = {"adapters": [_short(spec) for spec in specs]} if specs else {}
    # A base that is a file is found from the file that names it alone, so what is tried stands on its own.
    own = dict(resolved.recipe)
    own["heads"] = {**{head: own["heads"][head] for head in left}, **added}
    resolve({**own, **adapters})
    removed = [head for head in resolved.heads if head not in left]
    verbs = {
        "remove": [head for head in removed if head not in added],
        "replace": {head: node for head, node in added.items() if head in removed},
        "heads": {head: node for head, node in added.items() if head not in removed},
    }
    return {"recipe": 1, "name": "transferred", "base": base, **{k: v for k, v in verbs.items() if v}, **adapters}


def _short(spec: AdapterSpec) -> dict[str, Any]:
    """The spec without arguments that are at their defaults."""
    said = {name: value for name, value in spec.args.items() if value != spec.registered.defaults[name]}
    return {"adapter": spec.kind, **spec.target, **said}
