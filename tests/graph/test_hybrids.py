"""The shipped hybrids: one published model's encoder, tower or decoder in another, in a few lines."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from agblocks import build, resolve
from agblocks.graph.describe import parameters
from agblocks.graph.find import shipped

ENCODERS = {"alphagenome": 7, "enformer": 7, "legnet": 4}
SMALL = {
    "alphagenome_enformer_tower": [
        "encoder.channels=8", "encoder.growth=4", "tower.depth=2", "tower.heads=4", "tower.key_dim=6",
        "embed_128bp.channels=8", "embed_1bp.channels=8", "splice_junctions.candidates=4", "inputs.positions=B 4 4 < L",
    ],
    "enformer_alphagenome_tower": [
        "encoder.channels=32", "encoder.divisible_by=4", "tower.depth=2", "tower.heads=2", "tower.key_dim=8",
        "tower.pair_channels=8", "tower.pair_heads=2", "tower.pair_key_dim=4", "crop.target_length=5",
    ],
    "legnet_unet": ["encoder.stem=8", "encoder.channels=[6, 8, 10, 12]"],
    "alphagenome_transformer_tower": [
        "encoder.channels=8", "encoder.growth=4", "tower.depth=1", "tower.heads=2", "tower.head_dim=32",
        "embed_128bp.channels=8", "embed_1bp.channels=8", "splice_junctions.candidates=4", "inputs.positions=B 4 4 < L",
    ],
}  # fmt: skip


def of(name, top):
    return sum(count for node, count in parameters(resolve(name)).items() if node.partition(".")[0] == top)


def test_all_are_here_and_short():
    found = {name for name, file in shipped().items() if file.parent.name == "hybrids" and "/" not in name}
    assert found == set(SMALL)
    assert all(len(Path(shipped()[name]).read_text().splitlines()) <= 12 for name in found)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_one_runs_at_the_shortest_lengths(name):
    model = build(name, *SMALL[name], seed=0).eval()
    rule = model.resolved.rule()
    for length in islice((n for n in rule.lengths("L")), 2):
        given = {"dna": torch.zeros(1, 4, length)}
        given["dna"][:, 0] = 1
        if "organism" in model.resolved.inputs:
            given["organism"] = torch.tensor([1])
        with torch.no_grad():
            made = model(**given)
        assert set(made) == set(model.resolved.heads)
        for head, value in made.items():
            axes = model.resolved.info(head).axes
            assert list(value.shape) == [d if isinstance(d, int) else d.at({"B": 1, "L": length}) for d in axes]
            assert value.isfinite().all()


def test_parts_are_the_published_ones():
    assert of("alphagenome_enformer_tower", "encoder") == 89_972_992
    assert of("alphagenome_enformer_tower", "tower") == 174_242_816
    assert of("alphagenome_enformer_tower", "decoder") == 111_501_447
    assert of("enformer_alphagenome_tower", "encoder") == 50_877_952
    assert of("enformer_alphagenome_tower", "tower") == 191_801_088
    assert resolve("enformer_alphagenome_tower").info("tower.pair").shape == "[B L/2048 L/2048 128]"
    assert of("legnet_unet", "encoder") == of("mpralegnet", "encoder")
    assert resolve("legnet_unet").info("profile").shape == "[B 2 L]"


@pytest.mark.parametrize("name", [name for name in SMALL if "alphagenome" in name])
def test_heads_count_the_tracks_that_each_organism_has(name):
    """As AlphaGenome's do: where they stand, the padded ones of mouse stay out of the loss."""
    published, hybrid = resolve("alphagenome"), resolve(name)
    shared = set(hybrid.heads) & set(published.heads)
    assert shared
    for head in shared:
        wanted, found = (recipe.nodes[head].args.get("real") for recipe in (published, hybrid))
        assert found == wanted, head


@pytest.mark.parametrize(("encoder", "stage"), [(e, s) for e, n in ENCODERS.items() for s in range(1, n + 1)])
def test_encoders_end_at_each_stage(encoder, stage):
    resolved = resolve(f"ablations/{encoder}_mpra_stage{stage}")
    inside = {node.split(".")[1] for node in resolved.nodes if node.startswith("encoder.")}
    stem = {"stem"} if encoder == "legnet" else set()
    assert inside == {f"stage{i}" for i in range(1, stage + 1)} | stem
    reader = resolved.nodes["mapper" if encoder == "legnet" else "activity"]
    assert resolved.edge(f"encoder.stage{stage}") == reader.inputs["x"]
    assert set(resolved.heads) == {"activity"}
