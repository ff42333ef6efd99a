"""alphagenome-pytorch's `TransferConfig`, as data: its keys, its defaults, its rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...errors import AgblocksError, Mark, near, shown
from ...graph.source import from_override, from_python

ADAPTERS = ("lora", "locon", "ia3", "houlsby")
ALONE = ("full", "encoder-only")
MODES = ("linear", *ADAPTERS, *ALONE)
PLACEMENTS = ("block", "linear")
_TARGETS = {
    "lora": ("lora_targets",), "locon": ("locon_targets",), "ia3": ("ia3_targets", "ia3_ff_targets"),
    "houlsby": ("houlsby_targets",),
}  # fmt: skip


@dataclass(frozen=True)
class TransferConfig:
    """What the document's keys say; what is not said has the default of the package's code, not of its document.

    mode: one or several of lora, locon, ia3, houlsby (any subset), linear (heads only; may stand beside them), full and
        encoder-only (each alone). *_targets: texts to find anywhere in a module's name.
    said: the keys that were given. The defaults of `locon_targets` and `ia3_targets` match nothing in AlphaGenome.
    Errors: `AgblocksError` for unknown keys, wrong types and combinations that the package refuses.
    """

    mode: tuple[str, ...] = ("linear",)
    lora_rank: int = 8
    lora_alpha: float = 16
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    locon_rank: int = 4
    locon_alpha: float = 1
    locon_targets: tuple[str, ...] = ("conv_tower",)
    ia3_targets: tuple[str, ...] = ("to_k", "to_v")
    ia3_ff_targets: tuple[str, ...] = ()
    houlsby_latent_dim: int = 8
    houlsby_placement: str = "block"
    houlsby_targets: tuple[str, ...] = ("mha", "mlp")
    unfreeze_norm: bool = False  # True by the package's document, False by its code
    new_heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remove_heads: tuple[str, ...] = ()
    keep_heads: tuple[str, ...] = ()
    learning_rate: float = 1e-4
    said: frozenset[str] = frozenset()

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> TransferConfig:
        """The configuration of these keys, as JSON has them."""
        known = [f.name for f in fields(cls) if f.name != "said"]
        if not isinstance(values, Mapping):
            raise AgblocksError(f"a TransferConfig is a mapping from keys to values, not {from_python(values).kind}")
        if odd := [key for key in values if key not in known]:
            raise AgblocksError(f"a TransferConfig has no {shown(odd[0])}; {near(str(odd[0]), known)}")
        defaults = cls()
        read = {name: _checked(name, value, getattr(defaults, name)) for name, value in values.items()}
        made = cls(**read, said=frozenset(values))
        made._combined()
        return made

    @classmethod
    def parse(cls, texts: Iterable[str]) -> TransferConfig:
        """The command line's form: `mode=lora,locon`, `lora_targets=q_proj,v_proj`."""
        values: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or name in values:
                raise AgblocksError(
                    f"{shown(text)}: {'is said twice' if equals else 'wanted key=value, or a JSON file'}"
                )
            listed = isinstance(getattr(cls(), name, None), tuple) and not value.startswith("[")
            read = value.split(",") if listed else from_override(value, Mark(text, 1, len(name) + 2)).plain()
            values[name] = [part.strip() for part in read if part.strip()] if listed else read
        return cls.read(values)

    def _combined(self) -> None:
        """The package's rules of which modes go together."""
        for mode in self.mode:
            if mode not in MODES:
                raise AgblocksError(f"mode {shown(mode)}; {near(mode, MODES)}")
        for mode in ALONE:
            if mode in self.mode and len(self.mode) > 1:
                others = ", ".join(m for m in self.mode if m != mode)
                raise AgblocksError(f"mode {mode!r} stands alone, and cannot be combined with {others}")
        if not self.mode or len(set(self.mode)) < len(self.mode):
            raise AgblocksError(f"mode {list(self.mode)}: wanted one or several different ones of {', '.join(MODES)}")
        for mode in self.mode:
            lists = _TARGETS.get(mode, ())
            if lists and not any(getattr(self, name) for name in lists):
                said = f"{' and '.join(lists)} {'is' if len(lists) == 1 else 'are'} empty"
                raise AgblocksError(f"{said}: mode {mode!r} would adapt nothing; name modules, or leave the mode out")
        if self.houlsby_placement not in PLACEMENTS:
            raise AgblocksError(
                f"houlsby_placement {self.houlsby_placement!r}; {near(self.houlsby_placement, PLACEMENTS)}"
            )
        if self.houlsby_placement == "block" and (odd := set(self.houlsby_targets) - {"mha", "mlp"}):
            raise AgblocksError(
                f"houlsby_targets {sorted(odd)[0]!r}: block placement has mha and mlp; houlsby_placement=linear takes "
                "names of linear maps"
            )
        if self.remove_heads and self.keep_heads:
            raise AgblocksError("remove_heads and keep_heads: wanted one of the two")


def remarks(config: TransferConfig) -> list[str]:
    """Where the package's document, its code and this project differ, as far as the configuration touches it."""
    notes = []
    adapters = [mode for mode in config.mode if mode in ADAPTERS]
    if adapters and "unfreeze_norm" not in config.said:
        notes.append("unfreeze_norm is not said: the package's document has True, its code False; taken as False")
    for key, mode in (("locon_targets", "locon"), ("ia3_targets", "ia3")):
        if mode in config.mode and key not in config.said:
            notes.append(f"{key} is not said: the package's default is {', '.join(getattr(config, key))}")
    if "lora" in adapters and "ia3" in adapters:
        notes.append("where lora and ia3 meet on a module, the package leaves ia3 out; here both train")
    if "lora" in adapters and "houlsby" in adapters and config.houlsby_placement == "block":
        notes.append("the package freezes lora inside the blocks that houlsby wraps; here both train")
    if "locon" in adapters:
        notes.append("locon on standardised convolutions is centred here, so that it can be merged")
    if "houlsby" in adapters:
        notes.append(
            "houlsby's weights are drawn within 2 deviations of 0; the package's truncation does not reach them"
        )
    if "encoder-only" in config.mode:
        notes.append("encoder-only: new heads read 'encoder', as in the recipe alphagenome_encoder_mpra")
    idle = [mode for mode in ADAPTERS if mode not in config.mode]
    if unused := sorted(key for key in config.said if key.partition("_")[0] in idle):
        notes.append(f"{', '.join(unused)}: not used, as mode is {' + '.join(config.mode)}")
    if config.unfreeze_norm and not adapters:
        notes.append("unfreeze_norm: not used without adapters, as there")
    if "learning_rate" in config.said:
        notes.append(f"learning_rate: agblocks fit --lr {config.learning_rate:g}")
    return notes


def _checked(name: str, value: Any, default: Any) -> Any:
    """A value of its default's type."""
    kind = from_python(value, name).kind
    if isinstance(default, tuple):
        if name == "mode" and isinstance(value, str):
            return (value,)
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) and part for part in value):
            raise AgblocksError(f"{name} is a list of texts, not {kind}")
        return tuple(value)
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(part, Mapping) for part in value.values()):
            raise AgblocksError(f"{name} maps a head's name to its settings, not {kind}")
        return dict(value)
    if isinstance(default, bool | str):
        if type(value) is not type(default):
            raise AgblocksError(f"{name} is {'true or false' if isinstance(default, bool) else 'text'}, not {kind}")
        return value
    whole = "rank" in name or "dim" in name
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value <= 0:
        raise AgblocksError(f"{name} is a {'whole ' * whole}number above 0, not {kind}")
    return value
