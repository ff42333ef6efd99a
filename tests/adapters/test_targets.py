"""Which modules a spec means, against a naive reading of the same rules; and what is said where it means none."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import agblocks
from agblocks.adapters.errors import NoTargetMatch, TargetCountMismatch
from agblocks.adapters.targets import glob_matcher, select
from agblocks.layers import role


@pytest.fixture(scope="module")
def alphagenome():
    return agblocks.build("alphagenome", device="meta")


def naive_glob(pattern, name):
    """Part by part, by recursion."""

    def walk(patterns, parts):
        if not patterns:
            return not parts
        if patterns[0] == "**":
            return any(walk(patterns[1:], parts[n:]) for n in range(len(parts) + 1))
        return bool(parts) and one(patterns[0], parts[0]) and walk(patterns[1:], parts[1:])

    def one(pattern, part):
        if not pattern:
            return not part
        if pattern[0] == "*":
            return one(pattern[1:], part) or (bool(part) and one(pattern, part[1:]))
        return bool(part) and pattern[0] in ("?", part[0]) and one(pattern[1:], part[1:])

    return walk(pattern.split("."), name.split("."))


words = st.text("ab1", min_size=1, max_size=3)
names = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.lists(
    st.one_of(words, st.text("ab*?", min_size=1, max_size=3), st.just("**")), min_size=1, max_size=4
).map(lambda parts: ".".join("**" if set(p) == {"*"} and len(p) > 1 else p for p in parts))


@given(patterns, names)
def test_a_glob_is_anchored_and_goes_by_parts(pattern, name):
    assert bool(glob_matcher(pattern)(name)) == naive_glob(pattern, name)


def test_no_substrings(alphagenome):
    assert not select(alphagenome, {"glob": ["encoder.stage1"]}).keys() - {"encoder.stage1"}
    with pytest.raises(
        NoTargetMatch, match=re.escape("a glob is the whole name, like 'tower.pair1.from_track.q' or '**.q'")
    ):
        select(alphagenome, {"glob": ["q"]})
    with pytest.raises(NoTargetMatch):
        select(alphagenome, {"regex": ["attention"]})
    assert len(select(alphagenome, {"regex": [r"tower\.layer\d+\.attention\.q"]})) == 9


def test_roles(alphagenome):
    found = select(alphagenome, {"role": ["attn.q", "attn.v"]})
    assert len(found) == 18 and all(m.role in ("attn.q", "attn.v") for m in found.values())
    pair = select(alphagenome, {"role": ["pair.*"]})
    assert pair and not found.keys() & pair.keys()
    with pytest.raises(NoTargetMatch, match=r"role 'attn.qq' matches no module; did you mean attn.q"):
        select(alphagenome, {"role": ["attn.qq"]})


def test_every_pattern_must_match(alphagenome):
    with pytest.raises(NoTargetMatch, match="'nope'"):
        select(alphagenome, {"glob": ["tower.layer1.attention.q", "nope"]})
    with pytest.raises(NoTargetMatch, match="none of them fits the rest"):
        select(alphagenome, {"role": ["attn.q", "conv.main"], "glob": ["tower.**"]})
    with pytest.raises(NoTargetMatch, match="exclude"):
        select(alphagenome, {"role": ["attn.q"], "exclude": ["nowhere.**"]})


def test_conditions_hold_together(alphagenome):
    linears = select(alphagenome, {"type": ["Linear"], "glob": ["tower.layer1.**"]})
    assert set(linears) == {
        "tower.layer1.bias.linear", *(f"tower.layer1.attention.{n}" for n in ("q", "k", "v", "out")),
        "tower.layer1.mlp.up", "tower.layer1.mlp.down",
    }  # fmt: skip
    rest = select(alphagenome, {"type": ["Linear"], "glob": ["tower.layer1.**"], "exclude": ["**.mlp.*"]})
    assert set(linears) - set(rest) == {"tower.layer1.mlp.up", "tower.layer1.mlp.down"}


@pytest.mark.parametrize(
    ("wanted", "layers"),
    [
        ("-2:", [8, 9]),
        (":3", [1, 2]),
        ("4:6", [4, 5]),
        (":", range(1, 10)),
        ([1, -1], [1, 9]),
        ([3], [3]),
        (":-7", [1, 2]),
    ],
)
def test_layers(alphagenome, wanted, layers):
    found = select(alphagenome, {"role": ["attn.q"], "layers": wanted})
    assert list(found) == [f"tower.layer{n}.attention.q" for n in layers]


def test_stages(alphagenome):
    found = select(alphagenome, {"role": ["conv.main"], "stages": [6, -1]})
    assert {name.split(".")[1] for name in found} == {"stage6", "stage7"}
    assert all(name.startswith("encoder.") for name in found)
    with pytest.raises(NoTargetMatch, match=r"there is encoder.stage 1 to 7"):
        select(alphagenome, {"role": ["conv.main"], "stages": [8]})
    with pytest.raises(NoTargetMatch, match="numbered layer"):
        select(alphagenome, {"glob": ["encoder.**"], "role": ["conv.main"], "layers": "2:"})


def test_expect(alphagenome):
    assert len(select(alphagenome, {"role": ["attn.q"], "expect": 9})) == 9
    with pytest.raises(TargetCountMismatch, match="matches 9 modules, expected 8"):
        select(alphagenome, {"role": ["attn.q"], "expect": 8})


def test_a_shared_module_is_one_under_any_of_its_names():
    shared = role(nn.Linear(2, 2), "attn.q")
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": nn.Linear(2, 2)})
    assert list(select(model, {"role": ["attn.q"]})) == ["a"]
    assert list(select(model, {"glob": ["b.0"]})) == ["a"]
    assert list(select(model, {"glob": ["*", "b.*"], "type": ["Linear"]})) == ["a", "c"]


def test_a_compiled_model_is_looked_through():
    model = nn.Sequential(nn.Linear(2, 2))
    assert list(select(torch.compile(model), {"type": ["Linear"]})) == ["0"]
