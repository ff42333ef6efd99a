"""The config of a folder in peft's layout: what of it has a counterpart here, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import AdapterFileError
from .peft_patterns import LONGEST, Pattern
from .record import parse

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
LARGEST = 2**22  # bytes of a config

#: settings that say nothing about what an adapter computes once its tensors are there
_IDLE = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "init_ia3_weights",
    "layers_pattern", "layers_to_transform", "megatron_core", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "target_modules", "task_type", "ensure_weight_tying",
}  # fmt: skip
_READ = {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "lora_dropout", "use_rslora", "use_dora",
         "feedforward_modules", "init_lora_weights", "bias", "modules_to_save"}  # fmt: skip
#: initial values that leave the base as it was; the others (pissa, olora, loftq, corda, ...) take them off its weights
_HARMLESS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Config:
    """What a config says of each module."""

    method: str  # "LORA" or "IA3"
    dora: bool
    rslora: bool
    dropout: float
    rank: int
    alpha: float
    ranks: Sequence[tuple[Pattern, Any]]
    alphas: Sequence[tuple[Pattern, Any]]
    feedforward: Pattern | Sequence[str]
    modules: Sequence[str]  # ends of the names of modules that are kept whole

    def rank_of(self, path: str) -> Any:
        """A module's rank, by the first pattern that its name or the end of it matches."""
        return next((rank for pattern, rank in self.ranks if pattern.end(path)), self.rank)

    def alpha_of(self, path: str) -> Any:
        """A module's alpha, likewise."""
        return next((alpha for pattern, alpha in self.alphas if pattern.end(path)), self.alpha)

    def before(self, path: str) -> bool:
        """Whether IA3 scales what a module reads: a pattern of its whole name, or a list of ends."""
        if isinstance(self.feedforward, Pattern):
            return self.feedforward.whole(path)
        return any(path.endswith(end) for end in self.feedforward)


def read_config(folder: Path) -> Config:
    """Read and check a folder's config. Errors: `AdapterFileError`, naming a setting without counterpart."""
    file = folder / CONFIG
    try:
        with open(file, "rb") as handle:
            octets = handle.read(LARGEST + 1)
        if len(octets) > LARGEST:
            raise AdapterFileError(f"{file}: more than {LARGEST:,} bytes, which no config has")
        said = parse(file, octets.decode())
    except OSError as error:
        raise AdapterFileError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise AdapterFileError(f"{file}: no text: {error}") from None
    method = said.get("peft_type")
    if method not in ("LORA", "IA3"):
        raise AdapterFileError(f"{file}: peft_type is {method!r}; LORA and IA3 have a counterpart here")
    if said.get("init_lora_weights", True) not in _HARMLESS:
        raise AdapterFileError(
            f"{file}: init_lora_weights is {said['init_lora_weights']!r}, which changes the base's weights too; save "
            "it with peft's path_initial_model_for_weight_conversion, as LoRA beside the weights as they were"
        )
    if said.get("bias", "none") != "none":
        raise AdapterFileError(f"{file}: bias is {said['bias']!r}: biases of the base that trained have no counterpart")
    for key, value in said.items():
        if key not in _IDLE | _READ and value not in (None, False, {}, [], ""):
            raise AdapterFileError(f"{file}: {key} is {str(value)[:60]!r}, which has no counterpart here")
    return _checked(file, said, method)


def _checked(file: Path, said: Mapping[str, Any], method: str) -> Config:
    ranks, alphas = said.get("rank_pattern") or {}, said.get("alpha_pattern") or {}
    numbers = {"r": said.get("r", 8), "lora_alpha": said.get("lora_alpha", 8), "lora_dropout": said.get(
        "lora_dropout", 0.0)}  # fmt: skip
    forward, modules = said.get("feedforward_modules"), said.get("modules_to_save") or []
    if (
        not isinstance(ranks, dict)
        or not isinstance(alphas, dict)
        or not all(_number(value) for value in (*numbers.values(), *ranks.values(), *alphas.values()))
        or not (forward is None or isinstance(forward, (str, list)))
        or not isinstance(modules, list)
        or not isinstance(said.get("target_modules"), (str, list, type(None)))
    ):
        raise AdapterFileError(
            f"{file}: damaged: r, lora_alpha, lora_dropout, their patterns, or modules are not of their form"
        )
    patterns = [*ranks, *alphas, *([forward] if isinstance(forward, str) else ())]
    if (length := sum(map(len, patterns))) > LONGEST:
        raise AdapterFileError(f"{file}: patterns of {length:,} characters, {LONGEST:,} are read")
    _strings(file, said.get("target_modules"))
    return Config(
        method, bool(said.get("use_dora")), bool(said.get("use_rslora")), float(numbers["lora_dropout"]), numbers["r"],
        float(numbers["lora_alpha"]), [(Pattern(file, text), rank) for text, rank in ranks.items()],
        [(Pattern(file, text), alpha) for text, alpha in alphas.items()],
        Pattern(file, forward) if isinstance(forward, str) else _strings(file, forward), _strings(file, modules),
    )  # fmt: skip


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _strings(file: Path, value: Any) -> Sequence[str]:
    """A list of names; the empty one ends every other."""
    listed = value if isinstance(value, list) else []
    if not all(isinstance(part, str) and part for part in listed):
        raise AdapterFileError(
            f"{file}: damaged: target_modules, feedforward_modules or modules_to_save list what is no text, or empty"
        )
    return listed


def dense(a: Tensor, groups: int) -> Tensor:
    """A of a convolution in groups as peft has it, over all inputs: 0 outside each group's own."""
    if groups == 1:
        return a
    ranks, each = len(a) // groups, a.shape[1]
    dense = a.new_zeros(len(a), each * groups, *a.shape[2:])
    for g in range(groups):
        rows = slice(g * ranks, (g + 1) * ranks)
        dense[rows, g * each : (g + 1) * each] = a[rows]
    return dense
