"""Exact lengths against plain integer arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.graph.dims import Length, ceil_div, floor_div, number, symbol, text

L = symbol("L")
STEPS = st.lists(st.tuples(st.sampled_from(["ceil", "floor", "times", "plus"]), st.integers(1, 7)), max_size=7)


def symbolic(steps):
    length = L
    for word, k in steps:
        if word == "ceil":
            length = ceil_div(length, k)
        elif word == "floor":
            length = floor_div(length, k)
        else:
            length = length * k if word == "times" else length + (k - 4)
    return length


def plain(steps, n):
    for word, k in steps:
        if word == "ceil":
            n = (n + k - 1) // k
        elif word == "floor":
            n = n // k
        else:
            n = n * k if word == "times" else n + (k - 4)
    return n


@given(STEPS, st.integers(0, 5000))
def test_a_length_is_what_integers_give(steps, n):
    assert symbolic(steps).at({"L": n}) == plain(steps, n)


@given(STEPS, st.integers(0, 200))
def test_a_period_adds_exactly_its_slope(steps, n):
    length = symbolic(steps)
    grown = length.at({"L": n + length.period}) - length.at({"L": n})
    assert grown == length.slopes["L"] * length.period


@given(STEPS, STEPS, st.integers(0, 500))
def test_sums_of_lengths(one, other, n):
    total = symbolic(one) + symbolic(other)
    assert (total if isinstance(total, int) else total.at({"L": n})) == plain(one, n) + plain(other, n)


@given(st.lists(st.integers(1, 6), max_size=6))
def test_nested_roundings_merge(factors):
    length, product = L, 1
    for factor in factors:
        length, product = ceil_div(length, factor), product * factor
    assert length == ceil_div(L, product)


def test_what_is_read_aloud():
    trunk = ceil_div(L, 128)
    assert (text(trunk), str(trunk)) == ("L/128", "ceil(L/128)")
    assert (text(trunk * 2), str(trunk * 2)) == ("L/64", "ceil(L/128)*2")
    assert (text(floor_div(L, 16)), str(floor_div(L, 16))) == ("L/16", "floor(L/16)")
    assert text(L - 20) == "L-20"
    assert text(L * 3) == "L*3"
    assert text(ceil_div(L - 10, 4)) == "L/4-2"
    assert str(ceil_div(ceil_div(L, 2) * 3, 4)) == "ceil((ceil(L/2)*3)/4)"


def test_a_stated_length_is_a_number_that_knows_its_stride():
    bins = ceil_div(symbol("249"), 128)
    assert isinstance(bins, Length)
    assert number(bins) == 2
    assert text(bins) == "2"
    assert bins.slopes == {"249": pytest.approx(1 / 128)}


def test_cancelling_leaves_a_plain_number():
    assert L - L == 0
    assert (L + 5) - L == 5
    assert isinstance(L.exactly(2) * 2, Length)
    assert L.exactly(2) * 2 == L
