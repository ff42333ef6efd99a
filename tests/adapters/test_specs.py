"""Adapters as data: forms, defaults, and what is said of wrong ones."""

import pytest

from agblocks import AdapterSpec, RecipeError
from agblocks.errors import AgblocksError
from agblocks.graph.adapter_spec import digest


def test_forms_mean_the_same():
    spec = AdapterSpec("lora", role=["attn.q", "attn.v"], rank=8)
    assert (
        spec == AdapterSpec("lora") == AdapterSpec.parse("lora") == AdapterSpec.parse("lora:role=attn.q+attn.v,rank=8")
    )
    assert spec == AdapterSpec.from_dict({"adapter": "lora", "role": ["attn.q", "attn.v"], "rank": 8})
    assert hash(spec) == hash(AdapterSpec("lora")) and str(spec) == "lora:role=attn.q+attn.v"
    assert spec != AdapterSpec("lora", rank=4)
    assert digest([spec]) != digest([spec, spec]) != digest([AdapterSpec("lora", rank=4)])


def test_a_target_replaces_the_aim_and_a_narrowing_keeps_it():
    assert AdapterSpec("lora", glob="head").target == {"glob": ["head"]}
    narrowed = AdapterSpec("lora", layers="-2:", exclude="tower.layer9.**")
    assert narrowed.target == {"role": ["attn.q", "attn.v"], "layers": "-2:", "exclude": ["tower.layer9.**"]}
    assert AdapterSpec.parse("lora:layers=1+3").target["layers"] == [1, 3]
    assert AdapterSpec.parse("lora:layers=-4:").target["layers"] == "-4:"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rank": 0}, "rank: 0 is not a whole number, > 0"),
        ({"rank": "8"}, "rank: '8' is not a whole number"),
        ({"rnak": 8}, "rnak: 'lora' has no argument or target field 'rnak'; did you mean rank?"),
        ({"init": "xavier"}, "init: 'xavier' is not kaiming | he | gaussian | pissa"),
        ({"role": 3}, "role: role is a text or a list of texts, not 3"),
        ({"regex": "("}, "regex: '(' is no regular expression"),
        ({"layers": "last"}, "layers: layers is a list of numbers or a slice like '-4:', not 'last'"),
        ({"type": "nn.Linear"}, "type: type is the name of a class, like Linear"),
        ({"expect": 0}, "expect: expect is the number of modules, not 0"),
    ],
)
def test_wrong_ones(fields, said):
    with pytest.raises(RecipeError) as caught:
        AdapterSpec("lora", **fields)
    assert said in str(caught.value)


def test_everything_wrong_comes_at_once():
    with pytest.raises(RecipeError) as caught:
        AdapterSpec("lora", rank=0, alpha=-1.0, role=1)
    assert len(caught.value.problems) == 3


def test_wrong_texts():
    with pytest.raises(AgblocksError, match=r"no adapter is registered as 'lroa'; did you mean lora"):
        AdapterSpec.parse("lroa:rank=8")
    with pytest.raises(AgblocksError, match="'rank' should be name=value"):
        AdapterSpec.parse("lora:rank")
    with pytest.raises(AgblocksError, match="is said twice"):
        AdapterSpec.parse("lora:rank=4,rank=8")
