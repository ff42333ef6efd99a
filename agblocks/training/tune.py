"""What of a model trains, and when: a policy as data, in Python, in settings, on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import shown
from .errors import RunError

FULL, HEAD = "full", "head"
_FORMS = "full, head, last:2, from:encoder.stage4, or patterns of names like encoder.stage6+tower.**"
_NAME = r"\w+(\.\w+)*"
_TERM = re.compile(rf"full|head|last:[1-9]\d{{0,5}}|from:{_NAME}|[\w*?\[\]!-]+(\.[\w*?\[\]!-]+)*", re.ASCII)

Terms = tuple[str, ...]


@dataclass(frozen=True)
class Tune:
    """What trains from the start (`what`), and what joins after so many epochs (`later`). Frozen, and JSON-able.

    Terms, of which several add up (`last:2+decoder`):
    * full: everything, that is, flags of parameters are left as they are;
    * head: the recipe's heads, and no more;
    * last:N: the last N layers of the tower (`tower.layer8`, `tower.layer9`), or of an encoder without a tower its last
      N stages; and the heads. What lies between them and the heads, a decoder say, stays frozen unless it is named;
    * from:NAME: that node, stage or composite and everything that reads it, directly or not; and the heads;
    * anything else is a pattern over the names of nodes, modules and parameters, and takes what lies under them:
      `encoder.stage6`, `tower.layer[1-4]`, `**.bias`. `*` stands within one part of a name, `**` for any parts.
      The heads train if they are named.
    Parameters that are not of the recipe's model (adapters around it) are left as they are.

    later: `[(3, "encoder.stage7"), (6, "full")]`, or the text `3=encoder.stage7,6=full`: after 3 epochs stage 7 too.
    Errors: `RunError` for another form; names are checked when a model is there.
    Use when: weights were loaded, and rows are few: head below a hundred or so, last:4 to some thousands, full above.
    Source: the guide's numbers are rules of thumb, from proteins (Molfun's documentation, section 10).
    """

    what: Terms = (FULL,)
    later: tuple[tuple[int, Terms], ...] = ()

    def __post_init__(self) -> None:
        what: Any = self.what
        later: Any = self.later
        object.__setattr__(self, "what", _terms(what))
        entries = [_entry(part) for part in _parts(later)] if isinstance(later, str) else list(later)
        object.__setattr__(self, "later", tuple((_epochs(after), _terms(terms)) for after, terms in entries))
        after = [epochs for epochs, _ in self.later]
        if after != sorted(set(after)):
            raise RunError(
                f"unfreeze: after {', '.join(map(str, after))} epochs; wanted each later than the one before"
            )
        if self.later and FULL in self.what:
            raise RunError("unfreeze: everything trains from the start; say tune=head, or what else is to come first")

    @property
    def is_full(self) -> bool:
        return FULL in self.what

    @property
    def tune(self) -> str:
        """`what` as text."""
        return "+".join(self.what)

    @property
    def unfreeze(self) -> str:
        """`later` as text."""
        return ",".join(f"{epochs}={'+'.join(terms)}" for epochs, terms in self.later)

    @classmethod
    def parse(cls, tune: str, unfreeze: str = "") -> Tune:
        """The command line's form: `head`, `3=encoder.stage6+encoder.stage7,6=full`."""
        return cls(tune, unfreeze)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives the same policy back."""
        return {"what": list(self.what), "later": [[epochs, list(terms)] for epochs, terms in self.later]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tune:
        """The policy that `to_dict` wrote."""
        if set(values) != {"what", "later"}:
            raise RunError(f"a policy of what trains has what and later, not {', '.join(sorted(values)) or 'nothing'}")
        return cls(values["what"], values["later"])


def _terms(said: str | Iterable[str]) -> Terms:
    terms = tuple(said.split("+")) if isinstance(said, str) else tuple(said)
    for term in terms:
        if not isinstance(term, str) or not _TERM.fullmatch(term):
            raise RunError(f"tune: {shown(term)}; wanted {_FORMS}")
    if not terms or len(set(terms)) < len(terms) or (FULL in terms and len(terms) > 1):
        raise RunError(f"tune: {'+'.join(terms)!r}; wanted different terms, and full by itself")
    return terms


def _parts(text: str) -> list[str]:
    return text.split(",") if text else []


def _entry(part: str) -> tuple[str, str]:
    epochs, equals, terms = part.partition("=")
    if not equals:
        raise RunError(f"unfreeze: {shown(part)}; wanted epochs=what, like 3=encoder.stage6+encoder.stage7")
    return epochs.strip(), terms.strip()


def _epochs(said: Any) -> int:
    if isinstance(said, str) and re.fullmatch(r"[0-9]{1,9}", said):
        said = int(said)
    if type(said) is not int or said < 1:
        raise RunError(f"unfreeze: {shown(said)}; wanted a whole number of epochs from 1, like 3=encoder.stage7")
    return said
