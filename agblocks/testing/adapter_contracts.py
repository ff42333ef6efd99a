"""The contracts of a kind of adapter: what every one keeps, wherever it can sit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..adapters import Kind
from ..graph.adapter_kinds import lookup
from .adapter_promises.acting import as_data, base_kept, identity, inactive, moves, says, trains
from .adapter_promises.keeping import copied, dtypes, on_meta, saved, seeded
from .adapter_promises.merging import half_merge, merge
from .adapter_promises.running import checkpointed, compiled, contexts, exported, functional, norms_rest, pure
from .adapter_trial import Trial, trials
from .contract import Broken


@dataclass(frozen=True)
class AdapterContract:
    """A promise that every kind of adapter keeps."""

    name: str
    says: str
    check: Callable[[Trial], None]
    few: bool = False  # costly: on two models, not on all


def check_adapter(kind: str | type, *names: str) -> None:
    """Try every contract (or those named) on a kind, wherever it can sit. Raises `Broken` with a line to see it again.

    Use when: you have written a kind of adapter. `check_adapter("lora")`, `check_adapter(MyAdapter)`.
    """
    entry: Kind = lookup(kind) if isinstance(kind, str) else kind.kind  # type: ignore[attr-defined]
    for contract in ADAPTER_CONTRACTS if not names else [named(name) for name in names]:
        found = trials(entry)
        for trial in [found[0], found[-1]] if contract.few else found:
            try:
                contract.check(trial)
            except Exception as error:
                told = f"{entry.name!r} breaks {contract.name!r} ({contract.says})\n  {type(error).__name__}: {error}"
                raise Broken(f"{told}\n  to see it again: {trial!r}.check({contract.name!r})") from error


def named(name: str) -> AdapterContract:
    """A contract by name."""
    for contract in ADAPTER_CONTRACTS:
        if contract.name == name:
            return contract
    raise KeyError(f"there is no contract {name!r}; there are {', '.join(c.name for c in ADAPTER_CONTRACTS)}")


ADAPTER_CONTRACTS: tuple[AdapterContract, ...] = (
    AdapterContract("says", "its docstring says sites, parameters, source, when to use it", says, few=True),
    AdapterContract("data", "its spec survives JSON and text", as_data),
    AdapterContract("identity", "at the start it changes nothing, to the bit, or little, and says so", identity),
    AdapterContract("inactive", "while another acts it wants no gradients, what its sites share neither", inactive),
    AdapterContract("moves", "trained, it changes the model", moves),
    AdapterContract("base", "the base is as it was, attached and detached", base_kept),
    AdapterContract("trains", "gradients reach all of it and nothing else", trains),
    AdapterContract("merge", "merged equals hooked, and unmerges to the bit; or is refused by name", merge),
    AdapterContract("half", "merging and unmerging in float32 and bfloat16", half_merge),
    AdapterContract("seed", "initial values come from the seed alone", seeded),
    AdapterContract("meta", "it can be counted on the meta device", on_meta),
    AdapterContract("saved", "saved alone and loaded it is the same", saved),
    AdapterContract("copied", "copies and pickles are whole and independent", copied),
    AdapterContract("dtypes", "half precision, float64 and autocast", dtypes),
    AdapterContract("contexts", "switching off and on", contexts),
    AdapterContract("pure", "a forward pass changes nothing", pure),
    AdapterContract("norms", "statistics of frozen norms rest", norms_rest),
    AdapterContract("functional", "functional_call reaches it", functional),
    AdapterContract("checkpoint", "checkpointing gives the same gradients", checkpointed),
    AdapterContract("compile", "torch.compile, one graph", compiled, few=True),
    AdapterContract("export", "torch.export of the wrapper", exported, few=True),
)
