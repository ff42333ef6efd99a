"""borzoi-pytorch (johahi): Borzoi, and Flashzoi, which differs in its attention."""

from __future__ import annotations

from .enformer import FEED_FORWARD, RELATIVE_LAYER
from .mapping import BATCH_NORM, LINEAR, Leaves, Map, Node

NAC: Leaves = {"norm": ("norm", BATCH_NORM), "conv": ("conv_layer", LINEAR)}
SEPARABLE: Leaves = {"depthwise": ("0", {"weight": "weight"}), "pointwise": ("1", LINEAR)}

# One matrix for queries, keys and values of flash-attn: eight heads of queries, then four of keys, then four of values.
GROUPED_LAYER: Leaves = {
    "attention": ("0.fn", {
        "norm": ("0", LINEAR),
        **{
            name: ("1.mha.Wqkv", {part: (part, f"rows {rows}") for part in ("weight", "bias")})
            for name, rows in (("q", "0:2/4"), ("k", "2:3/4"), ("v", "3:4/4"))
        },
        "out": ("1.mha.out_proj", LINEAR),
    }),
    "mlp": ("", FEED_FORWARD),
}  # fmt: skip

BORZOI = Map(
    "borzoi-pytorch",
    (
        Node("encoder.stage1.conv", "conv.stem", "conv_dna", {"conv": ("conv_layer", LINEAR)}),
        Node("encoder.stage7.conv", "conv.block", "unet1.1", NAC),
        Node("encoder.stage{i+2}.conv", "conv.block", "res_tower.{2*i}", NAC),
        Node("tower.layer{i+1}", "tower.relative_layer", "transformer.{i}", RELATIVE_LAYER),
        Node(
            "tower.layer{i+1}", "tower.grouped_layer", "transformer.{i}", GROUPED_LAYER,
            assumed="Flashzoi's attention as flash-attn lays it out, eight heads and four of keys; it was not run here",
        ),
        # Their last number counts from the finest.
        Node("decoder.up{2**(i+5)}", "conv.up_separable", "", {
            "main": ("upsampling_unet{i}.0", NAC),
            "skip": ("horizontal_conv{i}", NAC),
            "separable": ("separable{i}.conv_layer", SEPARABLE),
        }),
        Node("pointwise.conv", "conv.block", "final_joined_convs.0", NAC),
        Node("{head}", "head.coverage", "{head}_head", {"conv": ("", LINEAR)}),
    ),
)  # fmt: skip
