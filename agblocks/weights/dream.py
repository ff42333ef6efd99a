"""The DREAM nets (Prix Fixe): RNN, CNN and Attn, of blocks `first`, `core` and `final`."""

from __future__ import annotations

from .legnet import bottleneck
from .mapping import BATCH_NORM, LINEAR, Leaves, Map, Node

WEIGHT: Leaves = {"weight": "weight"}
BRANCH: Leaves = {"conv": ("conv", LINEAR)}
LSTM: Leaves = {
    f"{name}_l0{way}": f"{name}_l0{way}"
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for way in ("", "_reverse")
}


def _forward(module: str) -> tuple[str, Leaves]:
    return module, {"norm": ("layernorm", LINEAR), "up": ("linear1", WEIGHT), "down": ("linear2", WEIGHT)}


CONFORMER: Leaves = {
    "forward1": _forward("ff1"),
    "norm_conv": ("layernorm1", LINEAR),
    "depthwise": ("conv.0", WEIGHT),
    "pointwise": ("conv.1", LINEAR),
    "norm_attention": ("layernorm2", LINEAR),
    # torch's attention has one matrix for queries, keys and values.
    "attention": ("attn", {
        **{
            f"{name}.{part}": (f"in_proj_{part}", f"rows {row}:{row + 1}/3")
            for row, name in enumerate("qkv")
            for part in ("weight", "bias")
        },
        "out": ("out_proj", LINEAR),
    }),
    "forward2": _forward("ff2"),
}  # fmt: skip

DREAM = Map(
    "dream",
    (
        Node("encoder.width9", "conv.stem", "first.conv_list.0", BRANCH),
        Node("encoder.width15", "conv.stem", "first.conv_list.1", BRANCH),
        Node("encoder", "conv.stem", "first.block", {"conv": ("0", WEIGHT), "norm": ("1", BATCH_NORM)}),
        Node("tower", "tower.lstm", "core", {"lstm": ("lstm", LSTM)}),
        Node("mixer.width9", "conv.stem", "core.conv_list.0", BRANCH),
        Node("mixer.width15", "conv.stem", "core.conv_list.1", BRANCH),
        Node("tower.stage{i+1}", "conv.legnet", "core.seqextractor", bottleneck("inv_res_blc{i}", "resize_blc{i}")),
        Node("tower.positions", "embed.positions", "core.pos_embedding", WEIGHT),
        Node("tower.layer{i+1}", "tower.conformer_layer", "core.blocks.{i}", CONFORMER),
        Node("mapper", "conv.block", "final.mapper", {"conv": ("", LINEAR)}),
        Node("activity", "head.scalar", "final.linear", {"layers.0": ("0", LINEAR)}),
    ),
    assumed=("module names of the published code of the human nets; no published checkpoint was read",),
)
