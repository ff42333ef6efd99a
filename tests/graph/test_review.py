"""What a review broke once: each stays mended."""

import pytest
import torch

from agblocks import InputError, RecipeError, build, resolve

TINY = {"recipe": 1, "base": "tiny"}


def said(recipe, *overrides, **more):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, *overrides, **more)
    return str(caught.value)


def test_a_recipe_that_removes_an_inner_stage_is_self_contained():
    made = resolve({**TINY, "remove": ["encoder.stage3"], "set": {"encoder.stage4.in": "encoder.stage2"}})
    assert resolve(made.recipe).digest == made.digest


def test_a_round_trip_keeps_the_order_in_which_weights_are_drawn():
    extra = {"e": {"block": "conv.embed", "in": "dna", "args": {"channels": 8}}}
    one = resolve({**TINY, "nodes": extra, "heads": {"h": {"block": "head.scalar", "in": "e"}}})
    two = resolve(one.recipe)
    assert list(one.nodes) == list(two.nodes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder.stage1.inner=3"], "has no argument 'inner'"),
        (["encoder.stage1.in=3"], "an input is an edge's name, not a whole number (3)"),
        (["activity.in={x: 3}"], "an input is an edge's name, not a whole number (3)"),
        (["encoder.in.dna.x=3"], "there is no node 'encoder.in.dna'"),
        (["nodes.encoder.channels=8", "encoder.channels=12"], "set the same thing"),
        (["activity.in=encoder", "activity.in.x=encoder.stage1"], "set the same thing"),
        (["inputs.dna=B 4 B"], "first axis, and no other, is the batch"),
        (["inputs.dna=B 4 1\u0663"], "a number or a capital symbol"),
        ([f"a{i}.x=1" for i in range(5000)], "more than 500 overrides"),
        (["encoder.stages=65536"], "more than 2000 nodes"),
    ],
)  # fmt: skip
def test_overrides_end_in_located_errors(overrides, message):
    assert message in said("tiny", *overrides)


def test_a_head_is_no_recipe():
    assert "a head is a block with a loss" in said({**TINY, "replace": {"activity": {"recipe": "tiny", "in": "dna"}}})


def test_recipes_named_by_nodes_that_nobody_reads_are_looked_for():
    unread = {"me": {"recipe": "nosuch", "in": "dna"}}
    assert "there is no recipe 'nosuch'" in said({**TINY, "nodes": unread})


@pytest.mark.parametrize("name", ["a" * 3000, "a\0b", ""])
def test_names_that_no_file_can_have(name):
    assert "there is no" in said(name)
    assert "there is no recipe" in said({"recipe": 1, "base": name})


def test_nested_recipes_are_bounded_and_their_verbs_answered(tmp_path):
    nodes = "".join(f"  n{i}: {{recipe: b1, in: d}}\n" for i in range(60))
    (tmp_path / "b0.yaml").write_text(f"recipe: 1\ninputs: {{d: B 4 L}}\nnodes:\n{nodes}keep: ['*']\n")
    (tmp_path / "b1.yaml").write_text(
        f"recipe: 1\ninputs: {{d: B 4 L}}\nnodes:\n{nodes.replace('b1', 'b2')}keep: ['*']\n"
    )
    (tmp_path / "b2.yaml").write_text("recipe: 1\ninputs: {d: B 4 L}\nkeep: [d]\n")
    assert "more than 64 nested recipes" in said(tmp_path / "b0.yaml")
    (tmp_path / "one.yaml").write_text("recipe: 1\nbase: tiny\nset: {encoder.nosuch.kernel: 3}\n")
    (tmp_path / "two.yaml").write_text(
        "recipe: 1\ninputs: {dna: B 4 L}\nnodes: {p: {recipe: one, in: dna}}\nkeep: [p.encoder]\n"
    )
    assert "there is no node 'p.encoder.nosuch'" in said(tmp_path / "two.yaml")


def test_an_outer_verb_stands_over_a_nested_one(tmp_path):
    (tmp_path / "one.yaml").write_text("recipe: 1\nbase: tiny\nset: {encoder.stage2.kernel: 3}\n")
    (tmp_path / "two.yaml").write_text(
        "recipe: 1\ninputs: {dna: B 4 L}\nnodes: {p: {recipe: one, in: dna}}\nkeep: [p.encoder]\n"
        "replace: {p.encoder.stage2: {block: conv.down, args: {growth: 8}}}\n"
    )
    assert resolve(tmp_path / "two.yaml").nodes["p.encoder.stage2"].args["kernel"] == 5


def test_keep_takes_one_pattern_and_refuses_what_is_none():
    assert resolve("tiny", keep="encoder.stage2").keep == ("encoder.stage2",)
    assert "keep lists names or patterns, not 3" in said("tiny", keep=[3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(None), "should be a tensor, not NoneType"),
        (lambda m: m("x"), "should be a tensor, not str"),
        (lambda m: m(torch.zeros(1, 4, 8), outputs=[1]), "outputs should be a list of names"),
        (lambda m: m(torch.zeros(1, 4, 0)), "axis 2 of input 'dna' [B 4 L] is empty"),
    ],
)
def test_odd_calls(call, message):
    model = build("tiny", seed=0)
    with pytest.raises(InputError) as caught:
        call(model)
    assert message in str(caught.value)
