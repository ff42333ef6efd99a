"""Inputs that a call may leave out: how they are written, where they may be wired, and what the model does with them."""

import copy
import io

import pytest
import torch

import agblocks
from agblocks import InputError, RecipeError, build, diff, resolve
from agblocks.graph import describe
from agblocks.testing import check_recipe

RECIPE = {
    "recipe": 1,
    "name": "sites",
    "inputs": {"dna": "B 4 L", "organism": "B", "positions?": "B 4 3 < L"},
    "nodes": {"encoder": {"block": "conv.stem", "in": "dna", "args": {"channels": 6, "kernel": 3}}},
    "heads": {
        "sites": {"block": "head.splice_sites", "in": {"x": "encoder", "organism": "organism"}},
        "junctions": {
            "block": "head.splice_junctions",
            "in": {"x": "encoder", "organism": "organism", "probabilities": "sites", "positions": "positions"},
            "args": {"tissues": 2, "candidates": 3, "channels": 4},
        },
    },
}
PAIR = {"block": "tower.pair_update", "args": {"channels": 4, "heads": 2, "key_dim": 4, "pool": 2}}


def changed(**parts):
    made = copy.deepcopy(RECIPE)
    for key, value in parts.items():
        made[key] = {**made.get(key, {}), **value} if isinstance(value, dict) else value
    return made


def said(recipe, *overrides):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, *overrides)
    return str(caught.value)


@pytest.fixture(scope="module")
def model():
    return build(RECIPE, seed=0).eval()


@pytest.fixture(scope="module")
def inputs():
    dna = torch.eye(4)[torch.randint(4, (2, 20), generator=torch.Generator().manual_seed(0))].mT
    return {"dna": dna, "organism": torch.tensor([0, 1])}


POSITIONS = torch.tensor([[1, 5, -1], [2, 9, 12], [0, -1, -1], [3, 4, 19]]).expand(2, 4, 3)
BOTH = ["junctions", "junctions.positions"]


def test_it_may_be_there_or_not(model, inputs):
    without = model(**inputs, outputs=BOTH)
    given = model(**inputs, positions=POSITIONS, outputs=BOTH)
    assert torch.equal(given["junctions.positions"], POSITIONS)
    assert not torch.equal(without["junctions"], given["junctions"])
    for made in (model(**inputs, positions=None, outputs=BOTH), model(*inputs.values(), outputs=BOTH)):
        assert torch.equal(made["junctions"], without["junctions"])
    again = model(*inputs.values(), without["junctions.positions"], outputs=BOTH)
    assert torch.equal(again["junctions"], without["junctions"])


def test_what_is_given_is_checked(model, inputs):
    with pytest.raises(InputError, match=r"axis 2 of input 'positions' \[B 4 3\] whole numbers should be 3, but is 2"):
        model(**inputs, positions=POSITIONS[:, :, :2])
    with pytest.raises(InputError, match="axis 0 of input 'positions' .* should be 2, but is 1"):
        model(**inputs, positions=POSITIONS[:1])
    with pytest.raises(InputError, match="input 'organism' .* is missing"):
        model(dna=inputs["dna"], positions=POSITIONS)
    with pytest.raises(InputError, match="input 'positions' .* is missing"):
        model(**inputs, outputs=["positions"])
    with pytest.raises(TypeError, match="whole numbers, not torch.float32") as caught:
        model(**inputs, positions=POSITIONS.float())
    assert "in node 'junctions'" in caught.value.__notes__[0]


def test_an_input_of_another_number_is_told_what_to_state():
    message = said(RECIPE, "junctions.candidates=4", "junctions.tissues=3")
    assert "axis 'candidates' of 'positions' should be 4, but 'positions' has 3" in message
    assert "it would fit with inputs.positions=B 4 4 < L (now 'B 4 3 < L'" in message
    assert message.count("was set at") == 1, "one line, however many overrides there are"
    resolve(RECIPE, "junctions.candidates=4", "junctions.tissues=3", "inputs.positions=B 4 4 < L")
    firm = changed(inputs={"positions?": "B 5 3 < L"})
    assert "it would fit with inputs.positions=B 4 4 < L (now 'B 5 3 < L'" in said(firm, "junctions.candidates=4")
    assert "it would fit with inputs.dna=B 4 L (now 'B 5 L', at command line" in said("tiny", "inputs.dna=B 5 L")


def test_a_node_that_fails_without_it_says_where(model, inputs):
    with pytest.raises(IndexError) as caught:
        model(inputs["dna"], torch.tensor([0, 7]))
    assert "with x = encoder" in caught.value.__notes__[0]


def test_every_promise_of_recipes():
    check_recipe(RECIPE)


def test_it_is_shown():
    resolved = resolve(RECIPE)
    assert "positions?  input" in " ".join(describe.table(resolved).split(" ")).replace("   ", "  ")
    assert 'positions(["positions? [B 4 3] whole numbers"])' in describe.mermaid(resolved)
    assert resolved.recipe["inputs"]["positions?"] == "B 4 3 < L"
    firm = changed(inputs={})
    firm["inputs"] = {"dna": "B 4 L", "organism": "B", "positions": "B 4 3 < L"}
    assert [str(c) for c in diff(resolve(firm), resolved)] == [
        "~ inputs.positions: [B 4 3] whole numbers -> [B 4 3] whole numbers, may be left out"
    ]
    with pytest.raises(InputError, match="input 'positions' .* is missing"):
        build(firm)(dna=torch.zeros(1, 4, 20), organism=torch.zeros(1, dtype=torch.long))


def test_the_length_can_be_set():
    resolved = resolve(RECIPE, "inputs.positions=B 4 5 < L", "junctions.candidates=5")
    assert resolved.info("junctions").shape == "[B 5 5 4]"
    assert resolved.inputs["positions"].optional


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"nodes": {"more": {"block": "conv.stem", "in": "track"}}, "inputs": {"track?": "B 4 L"}, "keep": ["more"]},
         "nodes.more.in: 'track' may be left out of a call, but 'conv.stem' needs its 'x'"),
        ({"nodes": {"up": {"block": "embed.track", "in": {"x": "encoder", "organism": "organism", "coarse": "track"}}},
          "inputs": {"track?": "B 9 L"}, "keep": ["up"]},
         "nodes.up.in.coarse: 'track' may be left out of a call, but here it alone would say what 'S' is"),
        ({"inputs": {"positions": "B 4 3 < L"}}, "inputs.positions: 'positions' is named twice"),
        ({"inputs": {"positions?": "B 4 3 < K"}}, "inputs.positions: no input has an axis 'K'"),
        ({"inputs": {"positions?": "B 4 3 < l"}}, "an input's axis is a number or a capital symbol"),
        ({"inputs": {"positions?": "B 4 3"}},
         "'positions' wants a track of whole numbers [B 4 candidates < L], but 'positions' is [B 4 3]"),
        ({"inputs": {"positions?": "B 4 7 < L"}}, "axis 'candidates' of 'positions' should be 3, but 'positions' has 7"),
        ({"inputs": {"po sitions?": "B 4 3 < L"}}, "a name is letters, digits and underscores"),
    ],
)  # fmt: skip
def test_what_is_said(parts, message):
    assert message in said(changed(**parts))


def test_bases_keep_it(tmp_path):
    import json

    (tmp_path / "base.yaml").write_text(json.dumps(RECIPE))
    mine = tmp_path / "mine.yaml"
    mine.write_text('{"recipe": 1, "base": "base", "inputs": {"positions?": "B 4 3 < L", "more?": "B"}}')
    assert resolve(mine).inputs["positions"].optional
    mine.write_text('{"recipe": 1, "base": "base", "inputs": {"positions": "B 4 3 < L"}}')
    assert "the base has 'positions?: B 4 3 < L'" in said(mine)


def test_a_nested_recipe_has_optional_inputs_too(inputs):
    outer = {
        "recipe": 1,
        "inputs": {"dna": "B 4 L", "organism": "B", "sites?": "B 4 3 < L"},
        "nodes": {
            "wired": {"recipe": RECIPE, "in": {"dna": "dna", "organism": "organism", "positions": "sites"}},
            "bare": {"recipe": RECIPE, "in": {"dna": "dna", "organism": "organism"}},
        },
        "keep": ["wired.junctions", "wired.junctions.positions", "bare.junctions", "bare.junctions.positions"],
    }
    model = build(outer, seed=0).eval()
    out = model(**inputs, sites=POSITIONS)
    assert torch.equal(out["wired.junctions.positions"], POSITIONS)
    assert not torch.equal(out["bare.junctions.positions"], POSITIONS)
    assert "positions" not in model.resolved.nodes["bare.junctions"].inputs
    assert "wired.junctions" in model(**inputs)
    needed = copy.deepcopy(outer)
    needed["nodes"]["wired"]["recipe"] = {
        **RECIPE,
        "inputs": {"dna": "B 4 L", "organism": "B", "positions": "B 4 3 < L"},
    }
    assert "'sites' may be left out, but the recipe needs its input 'positions'" in said(needed)


def test_a_pair_map_may_be_left_out():
    """Where the block says by an argument what the port would decide, nothing hangs on whether it is there."""
    recipe = {
        "recipe": 1,
        "inputs": {"x": "B 6 8", "pair?": "B 4 4 4"},
        "nodes": {"update": {**PAIR, "in": {"x": "x", "pair": "pair"}}},
        "keep": ["update"],
    }
    model = build(recipe, seed=0).eval()
    x, pair = torch.randn(1, 6, 8), torch.randn(1, 4, 4, 4)
    assert model(x=x)["update"].shape == model(x=x, pair=pair)["update"].shape
    assert not torch.equal(model(x=x)["update"], model(x=x, pair=pair)["update"])


def test_an_ordinary_module(model, inputs):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert torch.equal(other(**inputs)["junctions"], model(**inputs)["junctions"])
    quick = torch.compile(model, backend="aot_eager", fullgraph=True)
    for given in ({}, {"positions": POSITIONS}):
        torch.testing.assert_close(quick(**inputs, **given)["junctions"], model(**inputs, **given)["junctions"])
    program = torch.export.export(model, (), {**inputs, "positions": POSITIONS}, strict=False)
    exported = program.module()(**inputs, positions=POSITIONS)
    torch.testing.assert_close(exported["junctions"], model(**inputs, positions=POSITIONS)["junctions"])


def test_tables_of_sequences_train_models_that_have_one():
    """An input that may be left out needs no value there."""
    from agblocks.training.wiring import wire

    recipe = changed(heads={"activity": {"block": "head.scalar", "in": "encoder"}})
    wiring = wire(resolve(recipe), ["y"], heads={"activity": ["y"]}, inputs={"organism": 0})
    assert (wiring.dna, wiring.constants) == ("dna", (("organism", 0),))


def test_the_editor_schema_takes_it():
    import jsonschema

    from agblocks.graph.editor import json_schema

    jsonschema.validate(RECIPE, json_schema())
    assert agblocks.resolve(RECIPE).digest


def test_readers_of_an_input_narrow_it_in_any_order():
    """One reader may take fewer labels than another: the input then has the fewest. A stated bound must fit them all."""
    nodes = {
        name: {"block": "embed.organism", "in": {"x": "dna", "organism": "organism"}, "args": {"organisms": count}}
        for name, count in (("four", 4), ("two", 2))
    }
    for order in (nodes, dict(reversed(nodes.items()))):
        recipe = {"recipe": 1, "inputs": {"dna": "B 4 L", "organism": "B"}, "nodes": order, "keep": ["*"]}
        assert resolve(recipe).inputs["organism"].below == 2
    recipe["inputs"]["organism"] = "B < 2"
    assert resolve(recipe).inputs["organism"].below == 2
    recipe["inputs"]["organism"] = "B < 4"
    assert "nodes.two.in.organism: 'organism' wants whole numbers below 2, but 'organism' goes to 3" in said(recipe)
