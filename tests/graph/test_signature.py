"""Signatures and reach chains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.graph.dims import ceil_div, symbol
from agblocks.graph.reach import Field, follow, parse_chain
from agblocks.graph.signature import Unbound, parse_axes, parse_signature


def test_ports_axes_and_symbols():
    signature = parse_signature("x: B C L, skip?: B S L*2, organism: B < organisms -> out: B S L*2, pair: B P P F")
    assert [p.name for p in signature.inputs] == ["x", "skip", "organism"]
    assert [p.optional for p in signature.inputs] == [False, True, False]
    assert [p.kind for p in (*signature.inputs, *signature.outputs)] == ["track", "track", "label", "track", "pair map"]
    assert signature.symbols == ("C", "L", "S")
    assert str(signature.inputs[2].below) == "organisms"
    assert str(parse_signature(str(signature))) == str(signature)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x B C", "'x B C' is not 'name: axes'"),
        ("x: B C -> ", "no output after '->'"),
        ("x: B C* -> out: B", "'C*' is not an axis"),
        ("x: B L**2 -> out: B", "use names, whole numbers"),
        ("x: B L//2 -> out: B", "use names, whole numbers"),
        ("x: B f(L) -> out: B", "use names, whole numbers"),
        ("x: B C, x: B C -> out: B", "two ports are named 'x'"),
        ("x: B " + "(" * 300 + " -> out: B", "longer than 200"),
    ],
)
def test_what_is_no_signature(text, said):
    with pytest.raises(ValueError, match="^.*") as caught:
        parse_signature(text)
    assert said in str(caught.value)


def test_axes_evaluate():
    (axis,) = parse_axes("ceil((L-2*c)/pool)")
    assert axis.evaluate({"L": symbol("L"), "c": 3, "pool": 4}, []) == ceil_div(symbol("L") - 6, 4)
    imposed = []
    assert str(parse_axes("L/2")[0].evaluate({"L": symbol("L")}, imposed)) == "L/2"
    assert [str(c) for c in imposed] == ["L must be a multiple of 2"]
    assert parse_axes("channels|C")[0].evaluate({"channels": None, "C": 4}, []) == 4
    with pytest.raises(Unbound):
        parse_axes("S")[0].evaluate({}, [])
    with pytest.raises(ValueError, match="249 is not a multiple of 2"):
        parse_axes("L/2")[0].evaluate({"L": symbol("249")}, [])


def receptive_field(chain, length=400):
    """Which inputs reach the middle output, by pushing sets of positions through the chain."""
    seen = [{i} for i in range(length)]
    for word, numbers in chain:
        if word == "conv":
            half = numbers[0] // 2
            seen = [set().union(*seen[max(0, i - half) : i + half + 1]) for i in range(len(seen))]
        elif word == "pool":
            seen = [set().union(*seen[i : i + numbers[0]]) for i in range(0, len(seen), numbers[0])]
        elif word == "up":
            seen = [s for s in seen for _ in range(numbers[0])]
        else:
            seen = seen[numbers[0] :]
    return seen


WORDS = st.one_of(
    st.tuples(st.just("conv"), st.tuples(st.sampled_from([1, 3, 5]))),
    st.tuples(st.just("pool"), st.tuples(st.integers(1, 3))),
    st.tuples(st.just("shift"), st.tuples(st.integers(0, 3))),
)


@given(st.lists(WORDS, max_size=5))
def test_fields_are_what_positions_see(chain):
    seen = receptive_field(chain)
    text = " ".join(f"{word}({numbers[0]})" for word, numbers in chain)
    field = follow(Field(), text, {})
    middle = len(seen) // 2
    if len(seen) > 20:
        assert (min(seen[middle]), max(seen[middle])) == (
            field.stride * middle + field.low,
            field.stride * middle + field.high,
        )
        assert len(seen[middle]) == field.width


def test_published_receptive_fields():
    alphagenome = "conv(15) conv(5)" + " pool(2) conv(5) conv(5)" * 6 + " pool(2)"
    enformer = "conv(15) conv(1) pool(2)" + " conv(5) conv(1) pool(2)" * 6
    assert follow(Field(), alphagenome, {}).width == 1154
    assert follow(Field(), enformer, {}).width == 646


@pytest.mark.parametrize("chain", ["conv", "conv()", "dense(3)", "conv(3", "conv(1,2,3)", "conv(3) )"])
def test_what_is_no_chain(chain):
    with pytest.raises(ValueError, match="number|axis"):
        parse_chain(chain)
