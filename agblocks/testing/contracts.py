"""The contracts of a block, in the order they are tried. A new one is a function in a file beside this, and a line."""

from __future__ import annotations

from .compiling import compiled, exported, inductor
from .contract import Contract
from .losses import loss
from .promises.parameters import deepcopy, gradients, reset, seed, state_dict
from .promises.reach import reach
from .promises.shapes import lengths, shape
from .promises.values import dtype, inputs_kept, repeatable, rows

ONE = ("block", "head")

CONTRACTS: tuple[Contract, ...] = (
    Contract("shape", "the declared shape is the real one", shape, times=3),
    Contract("repeatable", "evaluation depends on weights and inputs alone", repeatable, needs=("shape",)),
    Contract("inputs", "no input is changed in place", inputs_kept, needs=("shape",)),
    Contract("rows", "rows of a batch do not touch each other in evaluation", rows, needs=("repeatable",)),
    Contract("dtype", "float64 and bfloat16 are kept", dtype, needs=("shape",)),
    Contract("gradients", "a gradient reaches every parameter", gradients, needs=("dtype",)),
    Contract("state_dict", "the state is saved and loaded whole", state_dict, needs=("repeatable",)),
    Contract("seed", "the same seed draws the same weights", seed),
    Contract("reset", "reset_parameters draws all anew, as built", reset, needs=("seed",)),
    Contract("deepcopy", "a deep copy computes the same and shares nothing", deepcopy, needs=("repeatable",)),
    Contract("lengths", "every admitted length works, others are refused by the rule", lengths, ONE, ("shape",)),
    Contract("reach", "outputs move within the declared reach, and to its ends", reach, ONE, ("repeatable", "rows")),
    Contract("loss", "the loss is finite and masked", loss, ("head",), ("repeatable", "dtype")),
    Contract("compile", "torch.compile changes nothing", compiled, needs=("repeatable", "inputs"), once=True),
    Contract("export", "torch.export changes nothing", exported, needs=("repeatable", "inputs"), once=True),
    Contract(
        "inductor", "torch.compile with inductor changes nothing", inductor, needs=("compile",), once=True, slow=True
    ),
)


def named(name: str) -> Contract:
    """A contract by name. Raises KeyError with the names there are."""
    for contract in CONTRACTS:
        if contract.name == name:
            return contract
    raise KeyError(f"there is no contract {name!r}; there are {', '.join(c.name for c in CONTRACTS)}")
