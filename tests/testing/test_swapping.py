"""Any encoder, tower, decoder and heads: a model that runs, or a refusal that says what would fit."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agblocks import RecipeError, resolve
from agblocks.graph.registry import entries, lookup
from agblocks.testing import profiles, strategies
from agblocks.testing.recipe_promises import shapes
from agblocks.testing.swapping import Parts, parts

MANY = 1000 if profiles.night() else 80


@st.composite
def random_parts(draw):
    """Parts with small arguments of their own."""
    tower, decoder = (draw(st.none() | st.sampled_from(parts(family))) for family in ("tower", "decoder"))
    heads = tuple(draw(st.lists(st.sampled_from(parts("head")), min_size=1, max_size=2)))
    made = Parts(draw(st.sampled_from(parts("encoder"))), tower, decoder, heads)
    blocks = {**made.trunk, **{f"head{number}": block for number, block in enumerate(heads, 1)}}
    args = {name: draw(strategies.arguments(lookup(block))) for name, block in blocks.items()}
    return Parts(made.encoder, tower, decoder, heads, args, draw(st.sampled_from(("L", "L", "L", "256"))))


@settings(profiles.sparing(MANY))
@given(random_parts())
def test_random_parts_run_or_are_refused_with_what_would_fit(made):
    found = made.fit()
    if isinstance(found, RecipeError):
        assert found.problems
        for problem in found.problems:
            helps(made.recipe(), problem)
    elif next(found.rule().lengths("L")) <= 4096:
        shapes(made.recipe())


def helps(recipe, problem):
    """A refusal has a place; of a wire it names edges that do fit, or blocks that make such; else it quotes values."""
    assert problem.path, problem
    node, wire, port = problem.path.partition(".in.")
    if not wire:
        assert re.search(r"\d|'\w+'", problem.message), problem
        return
    said = "\n".join(problem.notes)
    if "wants whole numbers below" in problem.message or "at any length" in said:
        return
    if edges := re.search(r"outputs that would fit: (.*)", said):
        section, _, name = node.partition(".")
        if name not in recipe[section]:
            return  # inside a composite: not ours to rewire
        for edge in edges[1].split(", "):
            spec = recipe[section][name]
            rewired = {**spec, "in": {**spec["in"], port: edge}}
            assert not wrong_there({**recipe, section: {**recipe[section], name: rewired}}, problem.path), edge
    elif length := re.search(r"it would fit at L = (\d+)", said):
        stated = {**recipe, "inputs": {**recipe["inputs"], "dna": f"B 4 {length[1]}"}}
        assert not wrong_there(stated, problem.path)
    else:
        kind = re.search(r"no output so far would fit; a ([\w ]+) comes from (.*)", said)
        assert kind, problem
        for block in kind[2].split(", "):
            assert kind[1] in {made.kind for made in entries()[block].signature.outputs}


def wrong_there(recipe, path):
    try:
        resolve(recipe)
    except RecipeError as error:
        return [problem.message for problem in error.problems if problem.path == path]
    return []


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            Parts("encoder.alphagenome", "tower.transformer", None, ("head.contacts",)),
            "no output so far would fit; a pair map comes from tower.pair_update",
        ),
        (Parts("encoder.legnet", None, None, ("head.vector",)), "no output so far would fit; a vector comes from"),
        (
            Parts("encoder.legnet", None, "decoder.unet", args={"decoder": {"to": 5}}),
            "from stride 16 of 'encoder.pool', steps of 2 don't come to stride 5; 'to' may be 8, 4, 2, 1",
        ),
    ],
)
def test_what_a_refusal_says(made, said):
    assert said in str(made.fit())


def test_the_families_have_what_stands_by_itself():
    assert {"tower.alphagenome", "tower.lstm", "tower.transformer"} <= set(parts("tower"))
    assert "tower.layer" not in parts("tower")
    assert "tower.pair_update" not in parts("tower")
    assert {"encoder.alphagenome", "encoder.legnet", "encoder.stack"} <= set(parts("encoder"))
