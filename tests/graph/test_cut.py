"""A recipe cut at edges: both parts are recipes, and one behind the other they are the whole."""

import json

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agblocks import InputError, RecipeError, build, resolve
from agblocks.errors import AgblocksError
from agblocks.graph.cost import typical_lengths
from agblocks.graph.cut import boundary, cut
from agblocks.graph.dims import ceil_div, floor_div, symbol
from agblocks.graph.editor import json_schema
from agblocks.graph.lengths import Sized, lengths_of
from agblocks.graph.rules import Condition, LengthRule
from agblocks.testing.recipes import recipes

SMALL = (
    "tiny", "mpra_small", "alphagenome_small", "enformer_small", "borzoi_small", "flashzoi_small", "deepstarr_small",
    "dream_attn_small", "dream_cnn_small", "dream_rnn_small", "mpralegnet_small",
)  # fmt: skip


def inputs_of(resolved, lengths, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    values, made = {**lengths, "B": batch}, {}
    for name, info in resolved.inputs.items():
        shape = [axis if isinstance(axis, int) else int(axis.at(values)) for axis in info.axes]
        if info.integer:
            made[name] = torch.randint(0, info.below or 2, shape, generator=generator)
        else:
            made[name] = torch.eye(4, dtype=dtype)[torch.randint(4, (batch, shape[2]), generator=generator)].mT
    return made


def parts_of(whole, resolved, edge, dtype):
    """Both parts built, with the whole's tensors by name."""
    found = cut(resolved, [edge])
    states = found.split(whole.state_dict())
    models = []
    for part, state in zip((found.prefix, found.suffix), states, strict=True):
        model = build(part, dtype=dtype, seed=1).eval()
        model.load_state_dict(state, strict=True)
        models.append(model)
    return found, states, models


def check_cut(resolved, edge, whole, given_inputs, wanted, dtype):
    found, states, (prefix, suffix) = parts_of(whole, resolved, edge, dtype)
    assert resolved.edge(edge) in (*found.edges, *found.prefix.keep, *found.prefix.heads)
    # What each is made of.
    assert not set(found.prefix.nodes) & set(found.suffix.nodes)
    assert {*found.prefix.nodes, *found.suffix.nodes} == set(resolved.nodes)
    assert not states[0].keys() & states[1].keys()
    assert {**states[0], **states[1]}.keys() == whole.state_dict().keys()
    assert {*found.prefix.heads, *found.suffix.heads} == set(resolved.heads)
    # What is known of the edges.
    for part in (found.prefix, found.suffix):
        for name, info in part.edges.items():
            assert (info.digest, info.exact) == (resolved.edges[name].digest, resolved.edges[name].exact)
        again = resolve(json.loads(json.dumps(part.recipe)))
        assert (again.digest, list(again.nodes), again.inputs) == (part.digest, list(part.nodes), part.inputs)
    # What they compute.
    across = prefix(**{n: v for n, v in given_inputs.items() if n in found.prefix.inputs}, outputs=[
        *found.edges, *found.prefix.heads])  # fmt: skip
    rest = {name: value for name, value in given_inputs.items() if name in found.suffix.inputs}
    made = {**across, **suffix(**rest, **{name: across[name] for name in found.edges})}
    for head in resolved.heads:
        torch.testing.assert_close(made[head], wanted[head], rtol=0, atol=0, equal_nan=True)


SLOW = pytest.mark.slow  # sixty edges, and most cuts go through all stages


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) if n == "alphagenome_small" else n for n in SMALL])
@torch.no_grad()
def test_every_edge_of_every_small_recipe(name, dtype):
    resolved = resolve(name)
    whole = build(resolved, seed=0, dtype=dtype).eval()
    values = inputs_of(resolved, typical_lengths(resolved, 1), dtype=dtype)
    wanted = whole(**values)
    tried = 0
    for edge in resolved.edges:
        before = {node.name for node in resolved.needed([edge])}
        if edge not in resolved.inputs and not before.issuperset(resolved.heads):
            check_cut(resolved, edge, whole, values, wanted, dtype)
            tried += 1
    assert tried >= len(resolved.nodes) - 2


@torch.no_grad()
def test_stages_and_tower_of_a_u_net():
    resolved = resolve("alphagenome_small")
    whole = build(resolved, seed=0).eval()
    values = inputs_of(resolved, typical_lengths(resolved, 1))
    wanted = whole(**values)
    for edge in ("encoder.stage3", "encoder", "tower", "tower.pair", "decoder", "embed_128bp"):
        check_cut(resolved, edge, whole, values, wanted, torch.float32)


@given(recipes(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@torch.no_grad()
def test_random_recipes(recipe, random):
    resolved = resolve(recipe)
    assume(resolved.heads)
    edges = [e for e in resolved.edges if e not in resolved.inputs]
    edges = [e for e in edges if not {n.name for n in resolved.needed([e])}.issuperset(resolved.heads)]
    assume(edges)
    whole = build(resolved, seed=0).eval()
    values = inputs_of(resolved, typical_lengths(resolved, 1))
    check_cut(resolved, random.choice(edges), whole, values, whole(**values), torch.float32)


def test_a_u_net_takes_its_skips_along():
    found = cut(resolve("alphagenome_small"), ["encoder"])
    assert set(found.edges) == {"encoder.pool", *(f"encoder.stage{i}" for i in range(1, 8))}
    assert found.edges[0] == "encoder.pool"  # what was asked for
    assert {name for name in found.suffix.inputs if name not in found.edges} == {"organism", "positions"}
    assert found.suffix.info("encoder").exact == "[B 40 ceil(L/128)]"
    assert str(found.suffix.rule()) == str(resolve("alphagenome_small").rule())


def test_lengths_of_a_suffix_belong_together():
    resolved = resolve("alphagenome_small")
    found = cut(resolved, ["encoder"])
    suffix, prefix = build(found.suffix, seed=0).eval(), build(found.prefix, seed=0).eval()
    tracks = prefix(dna=torch.zeros(1, 4, 4096), outputs=found.edges)
    rest = {"organism": torch.zeros(1, dtype=torch.long)}
    heads = ["rna_seq_1bp"]
    assert suffix(**tracks, **rest, outputs=heads)["rna_seq_1bp"].shape[-1] == 4096
    wrong = {**tracks, "encoder.stage4": tracks["encoder.stage4"][..., :-1]}
    with pytest.raises(InputError, match=r"axis 2 of input 'encoder.stage4' \[B 28 L/8\] is 511: no length of the"):
        suffix(**wrong, **rest, outputs=heads)
    short = {name: track[..., : -(-track.shape[-1] // 2 + 1)] for name, track in tracks.items()}
    with pytest.raises(InputError):
        suffix(**short, **rest, outputs=heads)
    odd = prefix(dna=torch.zeros(1, 4, 4000), outputs=found.edges)
    with pytest.raises(InputError, match="does not fit"):
        suffix(**odd, **rest, outputs=heads)
    with pytest.raises(InputError, match="input 'encoder.stage2' .* is missing"):
        suffix(**{n: v for n, v in tracks.items() if n != "encoder.stage2"}, **rest, outputs=heads)


def test_one_stage_of_an_encoder_only_model_needs_no_other():
    found = cut(resolve("mpra_small"), "encoder.stage2")
    assert list(found.suffix.inputs) == ["encoder.stage2"]
    assert "dna" not in found.suffix.inputs and list(found.prefix.inputs) == ["dna"]
    assert not found.prefix.heads


def test_a_part_can_be_cut_again():
    resolved = resolve("mpra_small")
    first = cut(resolved, ["encoder.stage2"])
    second = cut(first.suffix, ["encoder.stage3"])
    assert list(second.prefix.inputs) == ["encoder.stage2"] and list(second.suffix.inputs) == ["encoder.stage3"]
    assert second.prefix.cut == ("encoder.stage2",) and second.suffix.cut == ("encoder.stage3",)
    assert second.suffix.digest == cut(resolved, ["encoder.stage3"]).suffix.digest
    assert second.suffix.digest != resolved.digest


def test_the_digest_says_where_a_recipe_was_cut():
    resolved = resolve("mpra_small")
    digests = {resolved.digest, *(cut(resolved, [f"encoder.stage{i}"]).suffix.digest for i in (1, 2, 3))}
    assert len(digests) == 4
    (head,) = resolved.heads
    assert cut(resolved, ["encoder.stage2"]).suffix.info(head).digest == resolved.info(head).digest


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (["encoder.stage9"], r"there is no output 'encoder.stage9'; .*encoder.stage"),
        (["dna"], "'dna' is an input: nothing comes before it"),
        (["activity"], r"nothing is left below 'activity': the recipe's heads \(activity\) all come before it"),
        ([], "a cut needs at least one edge"),
    ],
)
def test_impossible_cuts_say_why(edges, message):
    with pytest.raises(InputError, match=message):
        cut(resolve("mpra_small"), edges)


def test_dropped_edges_say_how_to_keep_them():
    recipe = {**dict(resolve("mpra_small").recipe)}
    recipe["heads"] = {"activity": {**recipe["heads"]["activity"], "in": "encoder.stage2"}}
    with pytest.raises(InputError, match="'encoder.stage3' was dropped, as no head reads it; keep it by"):
        cut(resolve(recipe), ["encoder.stage3"])


PLAIN = {
    "recipe": 1,
    "inputs": {"dna": "B 4 L"},
    "nodes": {"stem": {"block": "conv.stem", "in": "dna", "args": {"channels": 8}}},
    "heads": {"activity": {"block": "head.scalar", "in": "stem"}},
}


@pytest.mark.parametrize(
    ("given_edges", "message"),
    [
        ("stem2", "cut.0.: there is no edge 'stem2'; .*stem"),
        ("dna", "cut.0.: 'dna' is an input already"),
        ("activity", "cut.0.: 'activity' is a head: nothing of the model would be left of it"),
        (["stem", "other"], "cut.1.: nothing reads 'other'"),
        (["stem", "side"], "cut.1.: nothing that is left reads 'side'"),
    ],
)
def test_a_written_cut_is_checked(given_edges, message):
    more = {
        "other": {"block": "conv.stem", "in": "dna", "args": {"channels": 8}},
        "side": {"block": "conv.stem", "in": "dna", "args": {"channels": 8}},
        "stem": {"block": "conv.block", "in": "side", "args": {"channels": 8}},
    }
    with pytest.raises(RecipeError, match=message):
        resolve({**PLAIN, "nodes": more, "cut": given_edges})


def test_a_node_is_given_whole():
    resolved = resolve("alphagenome_small")
    with pytest.raises(RecipeError, match=r"'splice_sites' is given, but its node still has to make|is a head"):
        resolve({**resolved.recipe, "cut": ["splice_sites"]})


def test_a_cut_recipe_is_not_nested():
    inner = {**PLAIN, "cut": "stem"}
    outer = {
        "recipe": 1,
        "inputs": {"dna": "B 4 L"},
        "nodes": {"model": {"recipe": inner, "in": "dna"}},
        "heads": {"out": {"block": "head.vector", "in": "model"}},
    }
    with pytest.raises(AgblocksError, match="the nested recipe is cut"):
        resolve(outer)


def test_a_suffix_asked_for_what_came_before_says_so():
    suffix = build(cut(resolve("mpra_small"), ["encoder.stage2"]).suffix)
    with pytest.raises(InputError, match="'encoder.stage1.*' is not computed: this is what reads 'encoder.stage2"):
        suffix.resolved.edge("encoder.stage1")


def test_adapters_stay_with_the_suffix():
    resolved = resolve({**resolve("mpra_small").recipe, "adapters": [{"adapter": "lora", "role": "conv.main"}]})
    found = cut(resolved, ["encoder.stage2"])
    assert not found.prefix.adapters and found.suffix.adapters == resolved.adapters


@torch.no_grad()
def test_a_head_that_another_node_reads_is_on_one_side():
    recipe = {
        **PLAIN,
        "nodes": {**PLAIN["nodes"], "more": {"block": "conv.stem", "in": "stem", "args": {"channels": 6}}},
        "heads": {
            "tracks": {"block": "head.tracks", "in": {"x": "stem", "organism": "organism"}, "args": {"tracks": 3}},
            "late": {"block": "head.scalar", "in": "tracks", "weight": 2},
            "other": {"block": "head.scalar", "in": "more"},
        },
        "inputs": {"dna": "B 4 L", "organism": "B"},
    }
    resolved = resolve(recipe)
    found = cut(resolved, ["tracks"])
    assert list(found.prefix.heads) == ["tracks"] and found.suffix.heads == {"late": 2.0, "other": 1.0}
    whole = build(resolved, seed=0).eval()
    values = inputs_of(resolved, {"L": 30})
    check_cut(resolved, "tracks", whole, values, whole(**values), torch.float32)


def test_boundary_is_where_frozen_nodes_end():
    resolved = resolve("mpra_small")
    nodes = list(resolved.nodes)
    frozen = [name for name in nodes if name.startswith(("encoder.stage1", "encoder.stage2"))]
    assert boundary(resolved, frozen) == (resolved.edge("encoder.stage2"),)
    assert boundary(resolved, nodes) == (resolved.edge("encoder"),)  # never the head
    assert boundary(resolved, [name for name in nodes if not name.startswith("encoder.stage1")]) == ()
    assert boundary(resolved, []) == ()


def test_boundary_of_a_u_net():
    resolved = resolve("alphagenome_small")
    encoder = [name for name in resolved.nodes if name.startswith("encoder.")]
    assert set(boundary(resolved, encoder)) == set(cut(resolved, ["encoder"]).edges)


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.sampled_from(["ceil", "floor"]), st.sampled_from([1, 2, 3, 4, 8, 128]), st.integers(-9, 9))),
    st.sampled_from([1, 2, 16]),
)
def test_lengths_are_found_from_sizes(length, made, step):
    """Whatever sizes one length gives, a length that gives them all and fits the rule is found."""
    rule = LengthRule([Condition("divides", symbol("L"), step)])
    length = length * step
    axes = []
    for index, (kind, by, more) in enumerate(made):
        dim = (ceil_div if kind == "ceil" else floor_div)(symbol("L"), by) + more
        if not isinstance(dim, int) and dim.at({"L": length}) > 0:
            axes.append(Sized(f"x{index}", 2, dim, dim.at({"L": length})))
    values, wrong = lengths_of(axes, {"B": 2}, rule)
    assert wrong is None
    if axes:
        assert all(axis.length.at(values) == axis.size for axis in axes)
        assert rule.admits(values)


def test_lengths_that_no_input_has():
    half, quarter = ceil_div(symbol("L"), 2), ceil_div(symbol("L"), 4)
    axes = [Sized("a", 2, half, 10), Sized("b", 2, quarter, 4)]
    assert lengths_of(axes, {}, LengthRule([]))[1] is axes[1]
    assert lengths_of([Sized("a", 2, half * 2, 7)], {}, LengthRule([]))[1] is not None
    assert lengths_of(axes[:1], {"L": 30}, LengthRule([]))[1] is axes[0]


def test_a_cut_model_exports_and_shows():
    from agblocks.graph.describe import summary

    found = cut(resolve("mpra_small"), ["encoder.stage2"])
    said = summary(found.suffix)
    assert "encoder.stage2" in said and "input" in said
    model = build(found.suffix, seed=0).eval()
    (name,) = found.suffix.inputs
    x = torch.randn(2, found.suffix.inputs[name].axes[1], 20)
    exported = torch.export.export(model, (x,)).module()  # by position: torch.export has no name with a dot
    torch.testing.assert_close(exported(x), model(**{name: x}), rtol=0, atol=0)


def test_the_whole_package_knows_the_key():
    assert "cut" in json_schema()["properties"]
