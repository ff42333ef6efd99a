"""Every registered block of agblocks under every contract: a new block is covered by being registered.

One block under one contract by hand: `check_block("conv.down", contracts=["rows"])`.
"""

import pytest

from agblocks.graph.registry import entries
from agblocks.testing import CONTRACTS

# Blocks that plug-ins or other tests registered are not ours to test.
OURS = [entry for entry in entries().values() if entry.target.__module__.startswith("agblocks.")]


def _walk():
    for entry in OURS:
        for contract in CONTRACTS:
            if entry.kind in contract.kinds:
                marks = [pytest.mark.slow] if contract.slow else []
                yield pytest.param(entry, contract, id=f"{entry.name}-{contract.name}", marks=marks)


@pytest.mark.parametrize(("entry", "contract"), _walk())
def test_contract(entry, contract):
    if why := contract.applies(entry):
        pytest.skip(why)
    contract(entry)
