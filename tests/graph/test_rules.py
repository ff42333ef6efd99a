"""Length rules against a look at every length."""

from itertools import islice

from hypothesis import assume, given
from hypothesis import strategies as st

from agblocks.graph.dims import ceil_div, floor_div, symbol
from agblocks.graph.rules import Condition, LengthRule, meet

L = symbol("L")
DIMS = st.builds(
    lambda down, up, plus, floor: (floor_div if floor else ceil_div)(L, down) * up + plus,
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(-3, 3),
    st.booleans(),
)
CONDITIONS = st.one_of(
    st.builds(lambda d, n: Condition("divides", d, n), DIMS, st.integers(1, 9)),
    st.builds(lambda d, n: Condition("at least", d, n), DIMS, st.integers(1, 40)),
    st.builds(
        lambda n, k: Condition("equal", ceil_div(L, n * k) * k, ceil_div(L, n)), st.integers(1, 9), st.integers(1, 5)
    ),
)


@given(st.lists(CONDITIONS, max_size=4))
def test_the_sieve_finds_exactly_the_lengths_that_fit(conditions):
    rule = LengthRule(conditions)
    assume(not rule.contradictory)
    wanted = [n for n in range(1, 400) if all(c.holds({"L": n}) for c in conditions)]
    found = [n for n in islice(rule.lengths(), 400) if n < 400]
    assert found == wanted


@given(DIMS, DIMS)
def test_meeting_says_when_two_lengths_are_equal(left, right):
    met = meet(left, right)
    equal = [left.at({"L": n}) == right.at({"L": n}) for n in range(2000)]
    if met is True:
        assert all(equal)
    elif met is False:
        assert left.slopes != right.slopes or not any(equal)
    else:
        assert equal == [met.holds({"L": n}) for n in range(2000)]


@given(st.lists(CONDITIONS, min_size=1, max_size=3))
def test_contradictions_are_found(conditions):
    rule = LengthRule(conditions)
    if rule.contradictory:
        assert not any(rule.admits({"L": n}) for n in range(1, 3000))


def test_a_unet_over_seven_pools_and_a_pair_map_wants_multiples_of_2048():
    trunk = ceil_div(L, 128)
    skips = [meet(trunk * (128 // s), ceil_div(L, s)) for s in (64, 32, 16, 8, 4, 2, 1)]
    assert str(LengthRule(skips)) == "L must be a multiple of 128"
    pair = meet(ceil_div(trunk, 16) * 16, trunk)
    assert str(LengthRule([*skips, pair])) == "L must be a multiple of 2048"


def test_a_unet_that_stops_early_admits_more():
    skips = [meet(ceil_div(L, 128) * (128 // s), ceil_div(L, s)) for s in (64, 32)]
    assert str(LengthRule(skips)) == "L must be 0, 97..127 modulo 128"
    assert list(islice(LengthRule(skips).lengths(), 3)) == [97, 98, 99]


def test_bounds_in_words():
    assert str(LengthRule([Condition("at least", floor_div(L, 16), 1)])) == "L must be at least 16"
    both = LengthRule([Condition("divides", L, 4), Condition("at least", L - 10, 1)])
    assert str(both) == "L must be a multiple of 4 and at least 12"
    assert str(LengthRule([])) == "any length"


def test_an_endless_period_is_left_in_words_but_stays_exact():
    strange = meet(ceil_div(L, 65_521) * 65_521, ceil_div(L, 65_519) * 65_519)
    rule = LengthRule([strange])
    assert rule.residues() is None
    assert not rule.admits({"L": 65_520})
    assert rule.admits({"L": 65_521 * 65_519})
