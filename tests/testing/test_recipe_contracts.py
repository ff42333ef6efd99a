"""Whole random recipes, and single mutations of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agblocks import RecipeError
from agblocks.testing import RECIPE_CONTRACTS, Broken, profiles, strategies, survives
from agblocks.testing.mutations import MUTATORS, as_text


@pytest.mark.parametrize("contract", RECIPE_CONTRACTS, ids=lambda c: c.name)
@settings(profiles.sparing(60 if profiles.night() else 6))
@given(recipe=strategies.recipes())
def test_random_recipes(contract, recipe):
    contract.check(recipe)


@settings(profiles.sparing(2000 if profiles.night() else 80))
@given(data=st.data())
def test_mutations(data):
    recipe = data.draw(st.shared(strategies.recipes(), key="recipe"))
    survives(data.draw(strategies.mutations(recipe)))


@pytest.mark.parametrize("mutate", dict.fromkeys(MUTATORS), ids=lambda f: f.__name__)
@settings(profiles.sparing(500 if profiles.night() else 15))
@given(data=st.data())
def test_each_mutation_on_a_small_recipe(mutate, data):
    recipe = {
        "recipe": 1,
        "name": "small",
        "inputs": {"dna": "B 4 L", "organism": "B"},
        "nodes": {
            "n0": {"block": "encoder.stack", "in": "dna", "args": {"stages": [
                {"block": "conv.stem", "args": {"channels": 4}}, {"block": "pool.max", "args": {"pool": 2}}]}},
            "n1": {"block": "embed.organism", "in": {"x": "n0", "organism": "organism"}, "shape": "B 4 L/2"},
        },
        "heads": {"h0": {"block": "head.scalar", "in": "n1", "args": {"targets": 1}, "weight": 0.5}},
    }  # fmt: skip
    mutant = mutate(data.draw, recipe)
    survives(mutant)
    if isinstance(mutant, dict):
        survives(as_text(mutant))


def test_a_recipe_error_without_a_place_would_be_found(monkeypatch):
    from agblocks.testing import recipe_contracts

    def resolve(mutant):
        raise KeyError("lost")

    monkeypatch.setattr(recipe_contracts, "resolve", resolve)
    with pytest.raises(Broken, match="KeyError instead of a RecipeError"):
        survives({})


def test_survives_gives_what_it_found():
    assert isinstance(survives({"recipe": 2}), RecipeError)
