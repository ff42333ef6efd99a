"""MPRALegNet (autosome-ru/human_legnet): Lightning checkpoints, whose keys begin with `model.`."""

from __future__ import annotations

from .mapping import BATCH_NORM, LINEAR, Leaves, Map, Node

WEIGHT: Leaves = {"weight": "weight"}
CONV_NORM: Leaves = {"0": ("0", WEIGHT), "1": ("1", BATCH_NORM)}


def bottleneck(module: str, mix: str) -> Leaves:
    """The stage of MPRALegNet and of Autosome's core: its bottleneck's layers by number, and the mixing convolution."""
    return {
        "expand": (module, CONV_NORM),
        "depthwise": (module, {"0": ("3", WEIGHT), "1": ("4", BATCH_NORM)}),
        "excite": (f"{module}.6.fc", {"down": ("0", LINEAR), "up": ("2", LINEAR)}),
        "reduce": (module, {"0": ("7", WEIGHT), "1": ("8", BATCH_NORM)}),
        "mix": (mix, CONV_NORM),
    }


LEGNET = Map(
    "mpralegnet",
    (
        Node("encoder.stem", "conv.stem", "stem.block", {"conv": ("0", WEIGHT), "norm": ("1", BATCH_NORM)}),
        Node("encoder.stage{i+1}", "conv.legnet", "main.{i}", bottleneck("0.fn.block", "1.block")),
        Node("mapper", "conv.block", "mapper.block", {"norm": ("0", BATCH_NORM), "conv": ("1", LINEAR)}),
        Node("activity", "head.scalar", "head", {
            "layers.0": ("0", LINEAR), "layers.1.norm": ("1", BATCH_NORM), "layers.3": ("3", LINEAR),
        }),
    ),
    assumed=(
        "layers by their number in the published code (stem, main, mapper, head); no published checkpoint was read",
    ),
)  # fmt: skip
