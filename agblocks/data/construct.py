"""What stands around the insert: from a row of a table to what the model reads, and back to the insert.

Three different things are called "the sequence" in reporter assays: what the table holds (often with cloning
adapters), the insert that differs between rows, and what the model reads (insert with promoter, barcode,
...). A `Construct` says how they hang together. It is stored with the trained model, so that prediction
elsewhere assembles the same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from .errors import DataError, count, near
from .sequence import unknown_letter

Pad = Literal["none", "left", "right", "both"]
_TEXT = ("left", "right", "strip_left", "strip_right", "flank_left", "flank_right")
_FORMAT = 1


@dataclass(frozen=True)
class Construct:
    """The constant parts around an insert, and the length of the model's input.

    strip_left, strip_right: constant ends of the table's sequences; taken off to get the insert.
    left, right: constant sequence around the insert in the model's input.
    flank_left, flank_right: what really lies beyond `left` and `right` on the plasmid; never in the input,
        only shifted into view by augmentation.
    length, pad: a stated length of the assembled input. With pad "none" it is checked; else N is added on
        that side ("both": the odd base goes to the right). Nothing is ever cut.

    Padding is not neutral: a convolution with a bias, and every norm, turns N into something, which leaks
    into the real positions; no mask at the pool undoes that. Inputs of different lengths are better kept in
    batches of equal length (the loader does so by itself); pad when a model is bound to one length, and then
    always to the same one.

    Errors: `DataError` for unknown letters, an impossible length or pad, a sequence without its adapters, or
    one that does not fit the stated length.
    Use when: the table's sequences carry adapters, or the model should see promoter, barcode or adapters.
    """

    left: str = ""
    right: str = ""
    strip_left: str = ""
    strip_right: str = ""
    flank_left: str = ""
    flank_right: str = ""
    length: int | None = None
    pad: Pad = "none"

    def __post_init__(self) -> None:
        for name in _TEXT:
            value = getattr(self, name)
            if not isinstance(value, str):
                raise DataError(f"construct: {name} is {value!r}, wanted a sequence (text)")
            if (bad := unknown_letter(value)) is not None:
                raise DataError(f"construct: {name}, position {bad[0]}: unknown letter {bad[1]!r}")
            object.__setattr__(self, name, normal(value))
        if self.length is not None and (type(self.length) is not int or self.length < 1):
            raise DataError(f"construct: length is {self.length!r}, wanted a whole number of bases above 0")
        if self.pad not in get_args(Pad):
            raise DataError(f"construct: pad is {self.pad!r}, wanted one of {', '.join(get_args(Pad))}")
        if self.pad != "none" and self.length is None:
            raise DataError(f"construct: pad={self.pad!r} needs a length to pad to")

    def insert(self, sequence: str) -> str:
        """The insert of a table's sequence: adapters off, upper case, T for U."""
        text = normal(sequence)
        for side, adapter, found in (
            ("start", self.strip_left, text[: len(self.strip_left)]),
            ("end", self.strip_right, text[len(text) - len(self.strip_right) :]),
        ):
            if found != adapter:
                raise DataError(
                    f"the sequence should {side} with the constant adapter {adapter}, found {found!r} "
                    f"({_short(text)}); bare inserts are read by Construct.bare()"
                )
        kept = text[len(self.strip_left) : len(text) - len(self.strip_right)]
        if len(text) <= len(self.strip_left) + len(self.strip_right):
            raise DataError(f"nothing is left of the {count(len(text), 'base')} once both adapters are off")
        return kept

    def assemble(self, sequence: str) -> str:
        """What the model reads for a table's sequence: `left` + insert + `right`, padded if so stated."""
        core = self.left + self.insert(sequence) + self.right
        before, after = self._padding(len(core))
        return "N" * before + core + "N" * after

    def insert_span(self, insert: int) -> tuple[int, int]:
        """Where an insert of that many bases lies in the assembled input: first, and one past the last."""
        before, _ = self._padding(len(self.left) + insert + len(self.right))
        start = before + len(self.left)
        return start, start + insert

    def bare(self) -> Construct:
        """The same construct for sequences that come without the table's adapters."""
        return replace(self, strip_left="", strip_right="")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives the same construct back."""
        return {"construct": _FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Construct:
        """The construct that `to_dict` wrote. Strict: all keys, no others, no conversion of types."""
        names = ["construct", *(f.name for f in fields(cls))]
        if not isinstance(values, Mapping):
            raise DataError(f"construct: found {type(values).__name__}, wanted a mapping with keys {names}")
        for key in values:
            if key not in names:
                raise DataError(f"construct: unknown key {key!r}; {near(str(key), names)}")
        if missing := [n for n in names if n not in values]:
            raise DataError(f"construct: missing {count(len(missing), 'key')}: {', '.join(missing)}")
        if values["construct"] != _FORMAT or type(values["construct"]) is not int:
            raise DataError(f"construct: format {values['construct']!r}, this version reads {_FORMAT}")
        return cls(**{n: values[n] for n in names[1:]})

    def _padding(self, core: int) -> tuple[int, int]:
        if self.length is None:
            return 0, 0
        lack = self.length - core
        if lack < 0 or (lack > 0 and self.pad == "none"):
            hint = "nothing is ever cut" if lack < 0 else "pad='left', 'right' or 'both' would add N"
            raise DataError(
                f"the assembled construct has {count(core, 'base')} ({len(self.left)} + "
                f"{core - len(self.left) - len(self.right)} + {len(self.right)}), "
                f"but its stated length is {self.length:,}; {hint}"
            )
        before = {"none": 0, "left": lack, "right": 0, "both": lack // 2}[self.pad]
        return before, lack - before


def normal(sequence: str) -> str:
    """Upper case, with T for U: the form in which sequences are stored and compared."""
    return sequence.upper().replace("U", "T")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}, {len(text):,} bases"
