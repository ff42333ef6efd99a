"""What of a model trains, and when: a policy as data, in Python, in settings, on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RunError
from .terms import FULL, Terms, as_terms
from .unfreeze import Unfreeze, as_steps


@dataclass(frozen=True)
class Tune:
    """What trains from the start (`what`), and what joins after that (`later`). Frozen, and JSON-able.

    Terms, of which several add up (`last:2+decoder`):
    * full: everything, that is, flags of parameters are left as they are;
    * head: the recipe's heads, and no more;
    * last:N: the last N layers of the tower (`tower.layer8`, `tower.layer9`), or of an encoder without a tower its last
      N stages; and the heads. What lies between them and the heads, a decoder say, stays frozen unless it is named;
    * from:NAME: that node, stage or composite and everything that reads it, directly or not; and the heads;
    * to:NAME: that node, stage or composite and everything that it reads, directly or not;
    * anything else is a pattern over the names of nodes, modules and parameters, and takes what lies under them:
      `encoder.stage6`, `tower.layer[1-4]`, `**.bias`. `*` stands within one part of a name, `**` for any parts.
      The heads train if they are named;
    * not:TERM freezes what the term names: of what the other terms name, or without others of everything.
      `not:to:encoder.stage3` freezes the first three stages. The heads that last:N and from:NAME add by themselves are
      not among it.
    Parameters that are not of the recipe's model (adapters around it) are left as they are.

    later: steps (`Unfreeze`), as `[(3, "encoder.stage7"), Unfreeze("full", plateau=5)]` or as text,
        `3=encoder.stage7,6=full` or `plateau=full`: after 3 epochs stage 7 too.
    Errors: `RunError` for another form; names are checked when a model is there.
    Use when: weights were loaded, and rows are few: head below a hundred or so, last:4 to some thousands, full above.
    Source: the guide's numbers are rules of thumb, from proteins (Molfun's documentation, section 10).
    """

    what: Terms = (FULL,)
    later: tuple[Unfreeze, ...] = ()

    def __post_init__(self) -> None:
        what: Any = self.what
        later: Any = self.later
        object.__setattr__(self, "what", as_terms(what))
        object.__setattr__(self, "later", as_steps(later))
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
        return ",".join(map(str, self.later))

    @property
    def plateaus(self) -> tuple[Unfreeze, ...]:
        """The steps that begin a new stage of training, in order."""
        return tuple(step for step in self.later if step.after is None)

    @property
    def joining(self) -> tuple[tuple[int, int, Terms], ...]:
        """(stage, epochs of that stage, terms) of everything, in order: when it begins to train."""
        found: list[tuple[int, int, Terms]] = [(0, 0, self.what)]
        stage = 0
        for step in self.later:
            stage += step.after is None
            found.append((stage, step.after or 0, step.train))
        return tuple(found)

    @classmethod
    def parse(cls, tune: str, unfreeze: str = "") -> Tune:
        """The command line's form: `head`, `3=encoder.stage6+encoder.stage7,6=full`."""
        return cls(tune, unfreeze)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives the same policy back."""
        return {"what": list(self.what), "later": [step.to_dict() for step in self.later]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tune:
        """The policy that `to_dict` wrote."""
        if set(values) != {"what", "later"}:
            raise RunError(f"a policy of what trains has what and later, not {', '.join(sorted(values)) or 'nothing'}")
        return cls(values["what"], values["later"])
