"""enformer-pytorch (lucidrains), into which the official Enformer was converted."""

from __future__ import annotations

from .mapping import BATCH_NORM, LINEAR, Leaves, Map, Node

WEIGHT: Leaves = {"weight": "weight"}
NAC: Leaves = {"norm": ("0", BATCH_NORM), "conv": ("2", LINEAR)}  # norm, activation, convolution
POOL: Leaves = {"pool.weight": ("weight", "o i 1 1 -> o i")}
FEED_FORWARD: Leaves = {"norm": ("1.fn.0", LINEAR), "up": ("1.fn.1", LINEAR), "down": ("1.fn.4", LINEAR)}

RELATIVE_LAYER: Leaves = {
    "attention": ("0.fn", {
        "norm": ("0", LINEAR),
        "q": ("1.to_q", WEIGHT),
        "k": ("1.to_k", WEIGHT),
        "v": ("1.to_v", WEIGHT),
        "positions": ("1.to_rel_k", WEIGHT),
        "content_bias": ("1.rel_content_bias", "1 h 1 d -> h d"),
        "position_bias": ("1.rel_pos_bias", "1 h 1 d -> h d"),
        "out": ("1.to_out", LINEAR),
    }),
    "mlp": ("", FEED_FORWARD),
}  # fmt: skip

ENFORMER = Map(
    "enformer-pytorch",
    (
        Node("encoder.stage1.conv", "conv.stem", "stem", {"conv": ("0", LINEAR)}),
        Node("encoder.stage1.pointwise", "conv.block", "stem.1.fn", NAC),
        # Their pools close a stage, ours open the next one.
        Node("encoder.stage2.pool", "pool.attention", "stem.2.to_attn_logits", POOL),
        Node("encoder.stage{i+3}.pool", "pool.attention", "conv_tower.{i}.2.to_attn_logits", POOL),
        Node("encoder.pool", "pool.attention", "conv_tower.{last}.2.to_attn_logits", POOL, last=5),
        Node("encoder.stage{i+2}.conv", "conv.block", "conv_tower.{i}.0", NAC),
        Node("encoder.stage{i+2}.pointwise", "conv.block", "conv_tower.{i}.1.fn", NAC),
        Node("tower.layer{i+1}", "tower.relative_layer", "transformer.{i}", RELATIVE_LAYER),
        Node("pointwise.conv", "conv.block", "final_pointwise.1", NAC),
        Node(
            "{head}",
            "head.coverage",
            "_heads.{head}.0",
            {"conv.weight": ("weight", "o i -> o i 1"), "conv.bias": "bias"},
        ),
    ),
    # The trunk's tensors are there twice: by their parts' names, and by their place in the whole.
    aliases=(
        ("_trunk.1.", "stem."),
        ("_trunk.2.", "conv_tower."),
        ("_trunk.4.", "transformer."),
        ("_trunk.6.", "final_pointwise."),
    ),
)  # fmt: skip
