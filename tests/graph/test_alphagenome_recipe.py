"""The shipped AlphaGenome: its names, sizes and length rules, and what is run for which output."""

from collections import Counter

import pytest
import torch

from agblocks import build, resolve
from agblocks.graph import describe
from agblocks.testing import check_recipe

NODES = ["encoder", "trunk", "tower", "decoder", "embed_128bp", "embed_1bp", "embed_pair"]
HEADS = [
    "atac_1bp", "atac_128bp", "dnase_1bp", "dnase_128bp", "procap_1bp", "procap_128bp", "cage_1bp", "cage_128bp",
    "rna_seq_1bp", "rna_seq_128bp", "chip_tf_128bp", "chip_histone_128bp", "contact_maps", "splice_sites",
    "splice_usage", "splice_junctions",
]  # fmt: skip


def test_the_published_size():
    resolved = resolve("alphagenome")
    assert list(dict.fromkeys(n.partition(".")[0] for n in resolved.nodes if n not in resolved.heads)) == NODES
    assert list(resolved.heads) == HEADS
    assert resolved.heads["splice_junctions"] == 0.2
    assert all(weight == 1 for head, weight in resolved.heads.items() if head != "splice_junctions")
    counts = describe.parameters(resolved)
    assert sum(counts.values()) == 450_452_613
    assert sum(n for name, n in counts.items() if name not in HEADS) == 403_918_983
    of = Counter()
    for head in HEADS:
        of[head.removesuffix("_128bp").removesuffix("_1bp")] += counts[head]
    assert of == {
        "atac": 2_361_344, "dnase": 3_542_016, "procap": 1_180_672, "cage": 5_903_360, "rna_seq": 7_084_032,
        "chip_tf": 10_230_272, "chip_histone": 7_082_496, "contact_maps": 7_224, "splice_sites": 15_370,
        "splice_usage": 2_256_316, "splice_junctions": 6_870_528,
    }  # fmt: skip
    assert counts["trunk"] == 3_072
    assert (counts["embed_128bp"], counts["embed_1bp"], counts["embed_pair"]) == (4_733_952, 5_905_920, 512)


def test_each_organisms_real_tracks():
    real = {name: node.args.get("real") for name, node in resolve("alphagenome").nodes.items() if name in HEADS}
    for head, counts in {
        "atac": [167, 18], "dnase": [305, 67], "procap": [12, 0], "cage": [546, 188], "rna_seq": [667, 173],
        "chip_tf": [1617, 127], "chip_histone": [1116, 183],
    }.items():  # fmt: skip
        assert {tuple(real[f"{head}_{r}bp"]) for r in (1, 128) if f"{head}_{r}bp" in HEADS} == {tuple(counts)}
    assert (real["contact_maps"], real["splice_usage"], real["splice_junctions"]) == ([28, 8], [734, 180], [367, 90])
    squashed = [n for n, node in resolve("alphagenome").nodes.items() if node.args.get("squash")]
    assert squashed == ["rna_seq_1bp", "rna_seq_128bp"]


@pytest.fixture(scope="module")
def small():
    return build("alphagenome_small", seed=0).eval()


@pytest.fixture(scope="module")
def inputs():
    letters = torch.randint(4, (2, 2048), generator=torch.Generator().manual_seed(0))
    return {"dna": torch.eye(4)[letters].mT, "organism": torch.tensor([0, 1])}


def test_the_small_one_has_every_part(small):
    whole, resolved = resolve("alphagenome"), small.resolved
    assert list(resolved.heads) == list(whole.heads)
    assert {n.entry.name for n in resolved.nodes.values()} == {n.entry.name for n in whole.nodes.values()}
    assert str(resolved.rule()) == str(whole.rule()) == "L must be a multiple of 2048"
    assert sum(p.numel() for p in small.parameters()) < 200_000


def test_the_small_one_keeps_every_promise_of_recipes(small):
    check_recipe(small.resolved.recipe)


def test_the_full_size_at_its_shortest_length():
    """On the meta device: every output has the resolved shape."""
    model = build("alphagenome", device="meta").eval()
    dna, organism = torch.zeros(1, 4, 2048, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")
    for name, value in model(dna=dna, organism=organism).items():
        assert list(value.shape) == [d if isinstance(d, int) else d.at({"B": 1, "L": 2048})
                                     for d in model.resolved.info(name).axes]  # fmt: skip


def test_heads_at_128_bp_never_run_the_decoder(small, inputs):
    called = []
    hooks = [
        small.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name.partition(".")[0]))
        for name in small.resolved.nodes
    ]
    try:
        small(**inputs, outputs=[head for head in HEADS if head.endswith("_128bp")] + ["contact_maps"])
        assert not {"decoder", "embed_1bp", "splice_sites"} & set(called)
        called.clear()
        small(**inputs, outputs=["splice_junctions"])
        assert {"decoder", "splice_sites"} <= set(called)
        assert not {"embed_pair", "contact_maps", "splice_usage"} & set(called)
        called.clear()
        small(dna=inputs["dna"][:, :, :281], outputs=["encoder"])
        assert set(called) == {"encoder"}
    finally:
        for hook in hooks:
            hook.remove()


def test_every_head_learns(small, inputs):
    """Outputs on their scales, and a loss of all heads together that reaches every parameter."""
    twice = {
        "dna": inputs["dna"].repeat(1, 1, 2),
        "organism": inputs["organism"],
    }  # rows of the pair map of two entries
    out = small(**twice, outputs=[*HEADS, *small.loss_outputs, "splice_sites.logits", "splice_usage.logits"])
    assert out["atac_1bp"].shape == out["atac_1bp.scaled"].shape == (2, 3, 4096)
    assert out["splice_junctions"].shape == (2, 8, 8, 6)
    torch.testing.assert_close(out["splice_sites"], out["splice_sites.logits"].softmax(1))
    torch.testing.assert_close(out["splice_usage"], out["splice_usage.logits"].sigmoid())
    targets = {head: torch.rand(out[head].shape) * 3 for head in HEADS}
    targets["splice_sites"] = (targets["splice_sites"] > 2).float()
    total = small.loss(out, targets)
    parts = {head: small.loss(out, {head: targets[head]}) for head in HEADS}
    torch.testing.assert_close(sum(parts.values()), total)
    small.zero_grad()
    total.backward()
    lacking = [name for name, p in small.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert lacking == []


def test_targets_of_padded_tracks_change_no_loss(small, inputs):
    out = small(**inputs, outputs=small.loss_outputs)
    for head in HEADS:
        real = small.resolved.nodes[head].args.get("real")
        if real is None:
            continue
        target = torch.rand(out.get(head, out.get(f"{head}.scaled", out.get(f"{head}.logits"))).shape)
        other = target.clone()
        if head in ("contact_maps", "splice_junctions"):
            tissues = target.shape[-1] // (2 if head == "splice_junctions" else 1)
            other.unflatten(-1, (-1, tissues))[1, ..., real[1] :] = 77
        else:
            other[1, real[1] :] = 77
        args = small.resolved.nodes[head].args
        assert (other != target).any() == (real[1] < args.get("tracks", args.get("tissues")))
        assert small.loss(out, {head: target}) == small.loss(out, {head: other}), head
