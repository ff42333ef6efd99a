"""Property tests for blocks and recipes, one's own included. See docs/testing.md.

from agblocks.testing import check_block
check_block(MyBlock)
"""

from .case import Case, GraphCase
from .check import BlockBroken, check_block
from .contract import Broken, Contract, CounterExample
from .contracts import CONTRACTS
from .recipe_contracts import RECIPE_CONTRACTS, check_recipe, survives

__all__ = [
    "CONTRACTS", "RECIPE_CONTRACTS", "BlockBroken", "Broken", "Case", "Contract", "CounterExample", "GraphCase",
    "check_block", "check_recipe", "survives",
]  # fmt: skip
