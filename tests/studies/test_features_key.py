"""Keys of features: what changes a feature changes them, and nothing else does."""

import copy

import numpy as np
import pytest
import torch
from features_helpers import NET, net
from hypothesis import given, settings
from hypothesis import strategies as st

import agblocks
from agblocks.data import Construct, encode
from agblocks.data.sequence import reverse_complement
from agblocks.studies.features.key import document, fingerprints, row_keys, space
from agblocks.testing.recipe_promises import renamed

DNA = st.text(alphabet="ACGT", min_size=1, max_size=30)


def tap(model, edge="down", **more):
    told = {"pool": "mean", "stored": "float32", "computed": "float32", "construct": Construct(), **more}
    return space(document(fingerprints(model, [edge])[edge], **told))


@given(DNA, DNA, st.booleans(), st.booleans())
def test_rows_have_one_key_exactly_where_letters_and_strand_are_the_same(one, two, turned, other):
    (a,), (b,) = row_keys(encode(one), turned), row_keys(encode(two), other)
    assert (a == b) == ((one, turned) == (two, other))
    assert len(a) == 16


@given(st.lists(st.text(alphabet="ACGTN", min_size=7, max_size=7), min_size=1, max_size=9), st.data())
def test_a_row_has_its_key_in_any_batch(rows, data):
    strands = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    together = row_keys(encode(rows), strands)
    assert together == [row_keys(encode(row), bool(s))[0] for row, s in zip(rows, strands, strict=True)]
    order = np.arange(len(rows))[::-1]
    assert row_keys(encode(rows)[order], strands[order]) == together[::-1]


def test_a_sequence_and_its_reverse_complement_differ_even_where_it_is_a_palindrome():
    assert reverse_complement("GAATTC") == "GAATTC"
    assert row_keys(encode("GAATTC"), True) != row_keys(encode("GAATTC"), False)


NAMES = [name for name, _ in net().named_parameters()] + [name for name, _ in net().named_buffers()]
BELOW = {"stem": ("stem.",), "down": ("stem.", "down."), "deep": ("stem.", "down.", "deep.")}


@given(st.sampled_from(sorted(BELOW)), st.sampled_from(NAMES), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_weights_below_the_tap_count_and_those_above_do_not(edge, name, place):
    model = net()
    kept = name in model.state_dict()
    before = tap(model, edge)
    tensor = dict([*model.named_parameters(), *model.named_buffers()])[name]
    with torch.no_grad():
        flat = tensor.view(-1)
        flat[place % flat.numel()] += 1
    assert (tap(model, edge) != before) == (kept and name.startswith(BELOW[edge]))


def test_the_last_bit_of_one_weight_counts():
    model = net()
    before = tap(model)
    with torch.no_grad():
        weight = next(iter(model.stem.parameters()))
        weight.view(torch.int32).view(-1)[0] ^= 1
    assert tap(model) != before


def test_types_of_weights_count():
    assert tap(net()) != tap(net().double()) != tap(net().bfloat16())


@pytest.mark.parametrize("edge", ["stem", "down", "deep", "activity"])
def test_names_comments_and_other_nodes_do_not_count(edge):
    model = net()
    other = agblocks.build(renamed(NET), seed=0)
    assert sorted(fingerprints(model, ["stem", "down", "deep"]).values()) == sorted(
        fingerprints(other, [node for node in other.resolved.nodes if node not in other.resolved.heads]).values()
    )
    remarked = agblocks.build(
        "# a remark\nrecipe: 1\ninputs: {dna: B 4 L}  # DNA\nnodes:\n"
        "  stem: {block: conv.stem, in: dna, args: {norm: batch, kernel: 7, channels: 8}}\n"
        "  down: {block: conv.down, in: stem, args: {growth: 4}, shape: B 12 L/2}\n"
        "  deep: {block: conv.down, in: down, args: {growth: 4}}\n"
        "heads:\n  activity: {block: head.scalar, in: deep, args: {hidden: [8], dropout: 0.2}}\n"
    )
    remarked.load_state_dict(model.state_dict())
    assert tap(remarked, edge) == tap(model, edge)


def test_a_cut_model_shares_its_features():
    whole = net()
    heads = {"activity": {**NET["heads"]["activity"], "in": "down"}}
    short = agblocks.build({**NET, "heads": heads}, seed=4)
    shared = {n: v for n, v in whole.state_dict().items() if n.startswith(("stem.", "down."))}
    short.load_state_dict(shared, strict=False)
    assert tap(short, "down") == tap(whole, "down") != tap(whole, "stem")


def test_arguments_without_weights_count():
    """A pool of another size has no weight of its own."""
    other = copy.deepcopy(NET)
    other["nodes"]["down"]["args"]["pool"] = 4
    one, two = net(), agblocks.build(other, seed=0)
    two.load_state_dict(one.state_dict())
    assert tap(one, "down") != tap(two, "down") and tap(one, "stem") == tap(two, "stem")


CONSTRUCTS = st.builds(
    Construct, left=st.sampled_from(["", "A", "ACG"]), right=st.sampled_from(["", "T"]),
    strip_left=st.sampled_from(["", "G"]), strip_right=st.sampled_from(["", "C"]),
    flank_left=st.sampled_from(["", "TTT"]), flank_right=st.sampled_from(["", "GG"]),
    length=st.sampled_from([None, 50]),
)  # fmt: skip


@given(CONSTRUCTS, CONSTRUCTS)
def test_every_part_of_a_construct_counts(one, two):
    keys = [
        space(document("0" * 64, pool="mean", stored="float32", computed="float32", construct=c)) for c in (one, two)
    ]
    assert (keys[0] == keys[1]) == (one == two)


@pytest.mark.parametrize(
    "more",
    [{"pool": "max"}, {"stored": "bfloat16"}, {"computed": "float32, autocast bfloat16"}, {"ambiguous": "fraction"},
     {"constants": {"organism": 1}}],
)  # fmt: skip
def test_everything_else_that_changes_a_feature_counts(more):
    model = net()
    assert tap(model, **more) != tap(model)
    assert tap(model, **more) == tap(copy.deepcopy(model), **more)


def test_fingerprints_of_several_edges_are_those_of_each():
    model = net()
    assert fingerprints(model, ["stem", "deep"]) == {**fingerprints(model, ["stem"]), **fingerprints(model, ["deep"])}
