"""The oracle, and the strategies beside it."""

import subprocess
import sys

import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agblocks.graph.registry import entries, lookup
from agblocks.testing import oracle, profiles, strategies


@pytest.mark.parametrize(
    ("signature", "args", "shapes", "wanted"),
    [
        ("x: B C L -> out: B C+growth ceil(L/pool)", {"growth": 3, "pool": 2}, {"x": (2, 4, 5)}, {"out": (2, 7, 3)}),
        ("x: B C L -> out: B C floor((L-1)/2)", {}, {"x": (2, 4, 5)}, {"out": (2, 4, 2)}),
        ("x: B C L -> out: B channels|C L*2", {"channels": None}, {"x": (1, 4, 5)}, {"out": (1, 4, 10)}),
        ("x: B C L, s?: B S L/2 -> out: B S|C L", {}, {"x": (1, 4, 6)}, {"out": (1, 4, 6)}),
        ("x: B C L, s?: B S L/2 -> out: B S|C L", {}, {"x": (1, 4, 6), "s": (1, 9, 3)}, {"out": (1, 9, 6)}),
        ("x: B P P C -> out: B P P C, v: B C", {}, {"x": (1, 3, 3, 2)}, {"out": (1, 3, 3, 2), "v": (1, 2)}),
    ],
)
def test_shapes_in_numbers(signature, args, shapes, wanted):
    assert oracle.outputs(signature, args, shapes) == wanted


@pytest.mark.parametrize(
    ("signature", "shapes"),
    [
        ("x: B C L, s: B S L/2 -> out: B C L", {"x": (1, 4, 5), "s": (1, 9, 2)}),
        ("x: B C L>=7 -> out: B C L", {"x": (1, 4, 6)}),
        ("x: B C L -> out: B C L-6", {"x": (1, 4, 6)}),
        ("x: B P P C -> out: B C", {"x": (1, 3, 4, 2)}),
        ("x: B C L -> out: B C", {"x": (1, 3)}),
        ("x: B C L, s?: B S L -> out: B S L", {"x": (1, 3, 3)}),
    ],
)
def test_shapes_that_do_not_fit(signature, shapes):
    with pytest.raises(oracle.Unfit):
        oracle.outputs(signature, {}, shapes)


@pytest.mark.parametrize("name", [e.name for e in entries().values() if e.target.__module__.startswith("agblocks.")])
def test_arguments_are_valid_by_construction(name):
    from agblocks.graph.arguments import model_of

    entry = lookup(name)

    @settings(profiles.sparing(20))
    @given(strategies.arguments(entry))
    def check(args):
        model_of(entry)(**args)

    check()


@settings(profiles.sparing(30))
@given(data=st.data())
def test_wirings_fit_and_inputs_match_them(data):
    entry = lookup("embed.track")
    args = data.draw(strategies.arguments(entry))
    shapes = data.draw(strategies.wirings(entry, args))
    oracle.outputs(str(entry.signature), args, shapes)
    inputs = data.draw(strategies.inputs(entry))
    assert list(inputs) == ["x", "organism", "coarse"]
    assert not inputs["organism"].is_floating_point()


def test_fixed_arguments():
    with planted.registered():
        entry = planted.healthy().entry

        @settings(profiles.sparing(5))
        @given(strategies.cases(entry, {"kernel": 7, "growth": st.just(1)}))
        def check(case):
            assert (case.full_args["kernel"], case.full_args["growth"]) == (7, 1)

        check()
        with pytest.raises(ValueError, match=r"'good\.conv' has no argument 'colour'"):
            strategies.arguments(entry, {"colour": 1})


def test_agblocks_does_not_import_hypothesis():
    code = "import agblocks, sys; assert 'hypothesis' not in sys.modules; assert 'agblocks.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
