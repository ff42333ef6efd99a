"""alphagenome-pytorch (genomicsxai), which holds the weights of the official AlphaGenome: 677 tensors."""

from __future__ import annotations

from .mapping import LINEAR, Leaves, Map, Node

RMS: Leaves = {"weight": "weight", "bias": "bias", "mean_square": "running_var"}
CONV: Leaves = {**LINEAR, "scale": ("scale", "c 1 1 -> c")}
WEIGHT: Leaves = {"weight": "weight"}
ORGANISMS: Leaves = {"embedding.weight": "organism_embed.weight"}

PAIR_UPDATE: Leaves = {
    "from_track": ("seq2pair", {
        "q_bias": ("q_r_bias", "1 1 h d -> h d"),
        "k_bias": ("k_r_bias", "1 1 h d -> h d"),
        "norm": ("norm_seq2pair", LINEAR),
        "q": ("linear_q", WEIGHT),
        "k": ("linear_k", WEIGHT),
        "position": ("linear_pos_features", LINEAR),
        "row": ("linear_y_q", WEIGHT),
        "column": ("linear_y_k", WEIGHT),
        "out": ("linear_pair", LINEAR),
    }),
    "attention": ("row_attn", {
        "norm": ("norm", LINEAR),
        "q": ("linear_q", WEIGHT),
        "k": ("linear_k", WEIGHT),
        "v": ("linear_v", LINEAR),
    }),
    "mlp": ("pair_mlp", {
        "norm": ("norm", LINEAR),
        "up": ("linear1", LINEAR),
        "down": ("linear2", LINEAR),
    }),
}  # fmt: skip

LAYER: Leaves = {
    "bias": ("attn_bias", {"norm": ("norm", RMS), "linear": ("proj", WEIGHT)}),
    "attention": ("mha", {
        "norm": ("norm", RMS),
        "q": ("q_proj", WEIGHT),
        "k": ("k_proj", WEIGHT),
        "v": ("v_proj", WEIGHT),
        "norm_q": ("norm_q", LINEAR),
        "norm_k": ("norm_k", LINEAR),
        "norm_v": ("norm_v", LINEAR),
        "out": ("linear_embedding", LINEAR),
        "norm_out": ("final_norm", RMS),
    }),
    "mlp": ("mlp", {
        "norm": ("norm", RMS),
        "up": ("fc1", LINEAR),
        "down": ("fc2", LINEAR),
        "norm_out": ("final_norm", RMS),
    }),
}  # fmt: skip

UP: Leaves = {
    "main": ("", {"scale": "residual_scale", "norm": ("conv_in.norm", RMS), "conv": ("conv_in.conv", CONV)}),
    "norm_skip": ("pointwise.norm", RMS),
    "conv_skip": ("pointwise.conv", LINEAR),
    "norm_out": ("conv_out.norm", RMS),
    "conv_out": ("conv_out.conv", CONV),
}

ALPHAGENOME = Map(
    "alphagenome-pytorch",
    (
        Node("encoder.stage1", "conv.embed", "encoder.dna_embedder", {
            "conv1": ("conv1", LINEAR), "norm2": ("block.norm", RMS), "conv2": ("block.conv", CONV),
        }),
        Node("encoder.stage{i+2}", "conv.down", "encoder.down_blocks.{i}", {
            "norm1": ("block1.norm", RMS), "conv1": ("block1.conv", CONV),
            "norm2": ("block2.norm", RMS), "conv2": ("block2.conv", CONV),
        }),
        Node("trunk", "embed.organism", "organism_embed", {"embedding.weight": "weight"}),
        Node("tower.pair{i}", "tower.pair_update", "tower.blocks.{2*i-2}.pair_update", PAIR_UPDATE),
        Node("tower.layer{i+1}", "tower.layer", "tower.blocks.{i}", LAYER, optional=("bias",)),
        Node("decoder.up{2**(last-i)}", "conv.up", "decoder.up_blocks.{i}", UP, last=6),
        Node("embed_128bp", "embed.track", "embedder_128bp", {
            "project": ("project_in", LINEAR), "norm": ("norm", RMS), **ORGANISMS,
        }),
        Node("embed_1bp", "embed.track", "embedder_1bp", {
            "project": ("project_in", LINEAR), "project_coarse": ("project_skip", WEIGHT),
            "norm": ("norm", RMS), **ORGANISMS,
        }, optional=("project_coarse",)),
        Node("embed_pair", "embed.pair", "embedder_pair", {"norm": ("norm", LINEAR), **ORGANISMS}),
        # Both resolutions of a head share one tensor of theirs, the track means.
        Node("{head}_{r}bp", "head.tracks", "heads.{head}", {
            "linear": ("convs.{r}", LINEAR), "scale": "residual_scales.{r}", "track_means": "track_means",
        }),
        Node("contact_maps", "head.contacts", "contact_maps_head.linear", {
            "linear.weight": ("weight", "o i u -> o u i"), "linear.bias": "bias",
        }),
        Node("splice_sites", "head.splice_sites", "splice_sites_classification_head", {"linear": ("conv", LINEAR)}),
        Node("splice_usage", "head.splice_usage", "splice_sites_usage_head", {"linear": ("conv", LINEAR)}),
        Node("splice_junctions", "head.splice_junctions", "splice_sites_junction_head", {
            "linear": ("conv", LINEAR),
            **{name: f"rope_params.{name}" for name in ("pos_donor", "pos_acceptor", "neg_donor", "neg_acceptor")},
        }),
    ),
    optional=("track_means",),
)  # fmt: skip
