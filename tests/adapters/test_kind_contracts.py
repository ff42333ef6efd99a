"""Every registered kind of adapter keeps every contract: the matrix is generated, a new kind is walked by being there."""

import pytest

from agblocks.adapters import kinds
from agblocks.testing.adapter_contracts import ADAPTER_CONTRACTS, check_adapter


@pytest.mark.parametrize("contract", ADAPTER_CONTRACTS, ids=lambda c: c.name)
@pytest.mark.parametrize("kind", sorted(kinds()))
def test_contract(kind, contract):
    check_adapter(kind, contract.name)
