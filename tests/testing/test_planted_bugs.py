import re

import planted
import pytest

from agblocks.testing import CONTRACTS, BlockBroken, Case, GraphCase, check_block
from agblocks.testing.check import entry_of


@pytest.fixture(autouse=True)
def _forget():
    with planted.registered():
        yield


@pytest.mark.parametrize("make", [planted.healthy, planted.good_head, planted.good_composite], ids=lambda f: f.__name__)
def test_healthy_blocks_pass(make):
    check_block(make())


@pytest.mark.parametrize(("make", "contract"), planted.BUGS.items(), ids=[f.__name__ for f in planted.BUGS])
def test_each_planted_bug_is_found_by_its_contract_alone(make, contract):
    costly = {"compile", "export"} - {contract}
    quick = [c.name for c in CONTRACTS if not c.slow and c.name not in costly]
    with pytest.raises(BlockBroken) as caught:
        check_block(make(), contracts=quick)
    assert [found.contract.name for found in caught.value.found] == [contract]
    (found,) = caught.value.found
    # The line to paste shows it again.
    line = re.search(r"^ +(Case\(.*\)\.check\('\w+'\))$", found.told(), re.M)
    assert line is not None
    with pytest.raises(Exception) as again:  # noqa: PT011
        eval(line[1], {"Case": Case, "GraphCase": GraphCase})
    assert str(again.value).splitlines()[0][:40] in str(found)
    # Minimal: as small as the bug allows.
    assert max(size for shape in found.case.shapes.values() for size in shape) <= 4


def test_a_length_that_does_not_work_is_found():
    with pytest.raises(BlockBroken) as caught:
        check_block(planted.loose_lengths(), contracts=["shape"])
    assert "Case('bad.lengths'" in str(caught.value)


def test_what_is_not_registered_says_so():
    with pytest.raises(ValueError, match="'Conv' is not registered"):
        check_block(planted.Conv)


def test_excused_and_unknown_contracts():
    bad = planted.in_place()
    bad.excused = {"inputs": "shows that excuses are heard"}
    check_block(bad, contracts=["inputs"])
    with pytest.raises(KeyError, match="there is no contract 'colour'"):
        check_block(bad, contracts=["colour"])


def test_every_contract_has_a_planted_bug():
    without = {c.name for c in CONTRACTS} - set(planted.BUGS.values())
    assert without == {"seed", "deepcopy", "lengths", "export", "inductor"}


def test_entry_of_a_composite_function():
    function = planted.good_composite()
    assert entry_of(function).name == "good.stack"
