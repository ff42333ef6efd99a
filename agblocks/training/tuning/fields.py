"""The fields of a transfer, each read with everything that is wrong told apart by its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...errors import AgblocksError, shown
from ...graph.adapter_spec import AdapterSpec, as_spec
from ..errors import RunError
from .loads import Load, as_loads
from .rates import Rates, as_rates
from .terms import Terms, as_terms
from .unfreeze import Unfreeze, as_steps

Where = tuple[str | int, ...]
Wrong = list[tuple[Where, str]]


class TransferError(RunError):
    """Everything that is wrong with a transfer. `wrong` holds (path, message) of each, the path below the section."""

    def __init__(self, wrong: Sequence[tuple[Where, str]]):
        self.wrong = tuple(wrong)
        super().__init__("; ".join(f"{at(path)}: {message}" for path, message in self.wrong))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.wrong,)


def at(path: Where, section: str = "transfer") -> str:
    """`transfer.unfreeze[1].plateau`."""
    return section + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def told(path: Where, wrong: Wrong, read: Callable[[], Any], otherwise: Any) -> Any:
    """What is read; or the other value where that fails, and the message goes to `wrong`, under its path."""
    try:
        return read()
    except AgblocksError as error:
        message = str(error).lstrip()
        for name in (*READ, path[-1]):
            message = message.removeprefix(f"{name}: ")
        wrong.append((path, message))
        return otherwise


def _entries(name: str, value: Any, wrong: Wrong, read: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Each entry of a list by itself, so that all that are wrong are told."""
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(told((name, i), wrong, partial(read, entry), None) for i, entry in enumerate(value))


def _terms(name: str, value: Any, wrong: Wrong) -> Terms:
    before = len(wrong)
    if value is None or value == () or value == []:
        return ()
    _entries(name, value, wrong, lambda term: as_terms([term], name))
    return () if len(wrong) > before else told((name,), wrong, lambda: as_terms(value, name), ())


def _weights(name: str, value: Any, wrong: Wrong) -> tuple[Load, ...]:
    before = len(wrong)
    _entries(name, value, wrong, lambda entry: as_loads([entry]))
    return () if len(wrong) > before else told((name,), wrong, lambda: as_loads(value), ())


def _steps(name: str, value: Any, wrong: Wrong) -> tuple[Unfreeze, ...]:
    before = len(wrong)
    if isinstance(value, (Unfreeze, Mapping)):
        value = [value]
    _entries(name, value, wrong, lambda entry: as_steps([entry]))
    return () if len(wrong) > before else told((name,), wrong, lambda: as_steps(value), ())


def _rates(name: str, value: Any, wrong: Wrong) -> Rates:
    before = len(wrong)
    for key, factor in value.items() if isinstance(value, Mapping) else ():
        told((name, str(key)), wrong, partial(as_rates, [(key, factor)]), ())
    return () if len(wrong) > before else told((name,), wrong, lambda: as_rates(value), ())


def _adapters(name: str, value: Any, wrong: Wrong) -> tuple[AdapterSpec, ...] | None:
    if value is None:
        return None
    if isinstance(value, (str, Mapping, AdapterSpec)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        wrong.append(((name,), f"{shown(value)}; wanted a list of adapters, like [{{adapter: lora, role: attn.q}}]"))
        return None
    return _entries(name, value, wrong, as_spec)


READ: dict[str, Callable[[str, Any, Wrong], Any]] = {
    "weights": _weights, "reinit": _terms, "tune": _terms, "freeze": _terms, "unfreeze": _steps, "rates": _rates,
    "adapters": _adapters,
}  # fmt: skip
