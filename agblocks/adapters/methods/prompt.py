"""Prompts of DNA: learnt bases where a construct has none of its own, and a learnt vector for a condition."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Examples, Positive, PositiveFloat

from ..adapter import Adapter, Phase, given, main, regiven, remade
from ..affine import Affine, has_bias
from ..errors import AdapterError
from ..parts.dense import cast, unset
from ..place import Place

Text = Annotated[str, Examples(("ACGTA", "NNNNN"))]
Order = Annotated[str, Examples(("ACGT", "AGCT"))]
SURE = 0.97  # of a base that a text states, so that it can still be learnt away


class Bases(nn.Module):
    """Learnt distributions over bases, one sequence for all that read the same DNA: logits (positions, 4)."""

    def __init__(self, place: Place, length: int, tau: float, text: str | None, order: str):
        super().__init__()
        self.tau, self.text, self.order = tau, text, order
        self.logits = unset(place, length, 4)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """U(+-0.5); or a text's bases at 0.97."""
        drawn = torch.empty(self.logits.shape, dtype=self.logits.dtype)
        if self.text is None:
            drawn.uniform_(-0.5, 0.5, generator=generator)
        else:
            drawn.zero_()
            for row, letter in zip(drawn, self.text, strict=True):
                if letter != "N":
                    row[self.order.index(letter)] = self.tau * math.log(3 * SURE / (1 - SURE))
        with torch.no_grad():
            self.logits.copy_(drawn)

    def forward(self) -> Tensor:
        """The distributions, (4, positions)."""
        return torch.softmax(self.logits / self.tau, -1).T


@adapter("flank", role="stem")
class Flank(Adapter):
    """`length` learnt distributions over bases, `softmax(logits / tau)`, in place of some of the DNA, as long as it is.

    `where`: the `left` end, the `right`, `both` (half of them each, the left has one more), or the `unknown` bases:
    the first `length` of an example, from the left; unknown are those with four equal channels (N, as 0 or 0.25).
    Each stands for what the construct has there in fact but nobody wrote down: barcode, promoter, adapter sequence.
    `strand`, where whole sequences are shown on their other strand too: `forward` puts the flank on what is read,
    whichever strand it is; `flag` turns it with the sequence, by the fifth channel that says which examples were
    turned (`input.reverse`); `mirror`, with `both`, has the right end be the reverse complement of the left one, which
    is then the same on either strand. Where only an insert is turned, and its flanks stay, `forward` is right.
    Sites: what reads DNA, four or five channels of it: the stem. `order` says which base is which channel.
    Parameters: 4 * length (half of it for `mirror`) whatever the sites, which read one DNA; U(+-0.5), or from a `text`
    of as many letters (N: all alike).
    Outputs change at the start; not mergeable.
    Source: Lester et al. 2021 (prompt tuning; 10 positions, U(+-0.5) as in AdapterHub), as bases instead of vectors.
    Use when: measurements come from a construct whose surroundings the model has not seen.
    """

    phase = Phase.IN_SCALE
    shared: Bases

    def __init__(
        self,
        place: Place,
        *,
        length: Positive = 10,
        where: Literal["left", "right", "both", "unknown"] = "both",
        strand: Literal["forward", "flag", "mirror"] = "forward",
        tau: PositiveFloat = 1.0,
        text: Text | None = None,
        order: Order = "ACGT",
    ):
        super().__init__(place)
        if place.inputs not in (4, 5):
            reads = "an unknown number of" if place.inputs is None else place.inputs
            raise place.refuse("flank", f"it reads {reads} channels, not 4 (5 with a flag); say by glob what reads DNA")
        if strand == "flag" and place.inputs != 5:
            raise place.refuse("flank", "it reads no flag of what is turned; strand: forward or mirror")
        self.identity = False
        self.axis, self.length, self.where, self.strand = place.axis, length, where, strand
        self.complement = [order.index("TGCA"["ACGT".index(base)]) for base in order]  # channel by channel

    @classmethod
    def common(
        cls, places: Sequence[Place], *, length: int, strand: str, tau: float, text: str | None, order: str, **_: Any
    ) -> Bases:
        """The flank, which is the same wherever the DNA is read."""
        return Bases(places[0], length // 2 if strand == "mirror" else length, tau, text, order)

    @staticmethod
    def check(*, length: int, where: str, strand: str, text: str | None, order: str, **_: Any) -> str | None:
        """What of the arguments does not go together."""
        if sorted(order) != sorted("ACGT"):
            return f"order is the four bases as the channels have them, like AGCT, not {order!r}"
        if strand == "mirror" and (where != "both" or length % 2):
            return f"strand: mirror wants where: both and an even length, not {where!r} and {length}"
        rows = length // 2 if strand == "mirror" else length
        if text is not None and (len(text) != rows or set(text) - set("ACGTN")):
            return f"text is {rows} letters A C G T N, one for each that is learnt, not {text!r}"
        return None

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Nothing of its own."""

    def bases(self) -> Tensor:
        """The distributions in the order they stand in, (4, length)."""
        made: Tensor = self.shared()
        return torch.cat((made, self._turned(made)), -1) if self.strand == "mirror" else made

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x = given(module, args, kwargs)
        track = x if self.axis % 3 == 1 else x.transpose(1, 2)
        if track.shape[-1] < self.length:
            raise AdapterError(
                f"'flank' at {self.path!r} has {self.length} positions, and the DNA only {track.shape[-1]}"
            )
        dna, bases = track[:, :4], cast(self.bases(), x)
        placed = self._placed(dna, bases)
        if self.strand == "flag":
            turned = track[:, 4:5, :1] > 0.5
            placed = torch.where(turned, self._turned(self._placed(self._turned(dna), bases)), placed)
        new = torch.cat((placed, track[:, 4:]), 1)
        return regiven(module, args, kwargs, new if self.axis % 3 == 1 else new.transpose(1, 2))

    def _placed(self, dna: Tensor, bases: Tensor) -> Tensor:
        """DNA (batch, 4, positions) with the flank in it."""
        if self.where == "unknown":
            unknown = dna.amax(1) == dna.amin(1)
            place = unknown.cumsum(-1) - 1
            mine = bases.T[place.clamp(0, self.length - 1)].transpose(1, 2)
            return torch.where((unknown & (place < self.length))[:, None], mine, dna)
        left = {"left": self.length, "right": 0, "both": (self.length + 1) // 2}[self.where]
        right = self.length - left
        spread = bases.expand(dna.shape[0], 4, self.length)
        return torch.cat((spread[..., :left], dna[..., left : dna.shape[-1] - right], spread[..., left:]), -1)

    def _turned(self, dna: Tensor) -> Tensor:
        """The other strand of (..., 4, positions)."""
        return torch.stack([dna[..., channel, :] for channel in self.complement], -2).flip(-1)


@adapter("condition", role="stem")
class Condition(Adapter):
    """`y' = y + c`: a learnt vector for a condition, a cell type or an assay, at every position; or one for each label.

    `at`: what the module gives (`output`) or reads (`input`). `count` conditions are told apart by the `label`: the
    name of a whole-number argument that the module itself is called with, like `organism` of `embed.organism`.
    Sites: whatever has known channels. Parameters: count * channels. Starts at 0, so nothing changes. One condition
    merges into the bias of what gives it, and behind a linear map's input into the map's; a table does not.
    Source: prompt tuning (Lester et al. 2021) in its additive form; AlphaGenome's organism embedding is one.
    Use when: under a hundred measurements, or one model for several conditions.
    """

    decays = False

    def __init__(
        self,
        place: Place,
        *,
        at: Literal["output", "input"] = "output",
        count: Positive = 1,
        label: Annotated[str, Examples(("organism",))] | None = None,
    ):
        super().__init__(place)
        self.phase = Phase.BIAS if at == "output" else Phase.IN_SCALE  # type: ignore[misc]
        self.axis, self.at, self.label = place.axis, at, label
        width = place.width("condition") if at == "output" else place.inputs
        if width is None:
            raise place.refuse("condition", "nothing says how many channels it reads; at: output, or a probe batch")
        self.position = -1
        if label is not None:
            names = [*inspect.signature(place.module.forward).parameters]
            if label not in names:
                raise place.refuse("condition", f"it is called with {', '.join(names)}, and not with {label!r}")
            self.position = names.index(label)
        self.c = self.parameter(count, width)

    @staticmethod
    def check(*, count: int, label: str | None, **_: Any) -> str | None:
        """A table wants a label, and one condition none."""
        if (count > 1) != (label is not None):
            said = "needs the label that tells them apart" if count > 1 else "needs no label"
            return f"count: {count} {said}"
        return None

    def acts_before(self) -> bool:  # type: ignore[override]
        return self.at == "input"

    def acts_after(self) -> bool:  # type: ignore[override]
        return self.at == "output"

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Zeros."""
        nn.init.zeros_(self.c)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return regiven(module, args, kwargs, self._added(given(module, args, kwargs), args, kwargs))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        return remade(out, self._added(main(out), args, kwargs))

    def _added(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        c: Tensor = self.c
        if self.label is not None:
            label = kwargs[self.label] if self.label in kwargs else args[self.position]
            c = F.embedding(label, c)
        shape = [1] * x.dim()
        shape[0], shape[self.axis] = c.shape
        return x + cast(c, x).view(shape)

    def unfoldable(self, module: nn.Module) -> str | None:
        if self.label is not None:
            return "a bias is the same for every label"
        if not has_bias(module):
            return "it has no bias to add to, and merging makes no new parameters"
        if self.at == "input" and not isinstance(module, nn.Linear):
            return "only a linear map turns what is added to its input into a bias; convolutions pad with zeros"
        return super().unfoldable(module)

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        c = self.c.detach().double()[0]
        return affine.plus(bias=c if self.at == "output" else affine.weight @ c)
