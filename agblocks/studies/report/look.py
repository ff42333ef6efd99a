"""How a line looks in every figure: colour, mark and dash together, so that colour alone says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .groups import Group, Grouped, control_name
from .svg import COLOURS, DASHES, MARKS

# Okabe and Ito's colours, as page.css has them for light pages; PNG files take them from here.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b57f00", "#3a97cf", "#6b6b6b")
INK = "#222222"


@dataclass(frozen=True)
class Look:
    """Which colour, mark and dash; `hollow` for random encoders. Controls without a line of their own are ink."""

    name: str
    colour: int | None
    mark: int
    dash: str = ""
    hollow: bool = False

    @property
    def class_(self) -> str:
        """Its classes in the page."""
        return f"{'ink' if self.colour is None else f's{self.colour}'}{' hollow' if self.hollow else ''}"

    @property
    def hex(self) -> str:
        """Its colour in PNG files."""
        return INK if self.colour is None else OKABE_ITO[self.colour]


Key = tuple[str | None, str | None]  # control, label of the line


def line_of(group: Group, grouped: Grouped) -> Key:
    """Which line a group is a point of."""
    return group.control, group.labels.get(grouped.line) if grouped.line else None


def looks(grouped: Grouped) -> Mapping[Key, Look]:
    """A look for every line of a study, the same in all figures."""
    options = grouped.results.axes.get(grouped.line, ()) if grouped.line else ()
    place = {label: i for i, label in enumerate(options)}
    made: dict[Key, Look] = {}
    bare = 0
    found = dict.fromkeys(line_of(group, grouped) for group in grouped.drawn)
    # The study's own lines first, then each control's.
    controls = list(dict.fromkeys(control for control, _ in found))
    for key in sorted(found, key=lambda key: (controls.index(key[0]), place.get(key[1] or "", -1))):
        control, label = key
        if label is None and control is not None:
            made[key] = Look(control_name(control), None, (4 + bare) % len(MARKS), DASHES[1 + bare % 4], True)
            bare += 1
            continue
        i = 0 if label is None else place[label]
        name = " · ".join(part for part in (control_name(control) if control else "", label or "") if part)
        # Past seven lines the colours come again, with other marks and dashes.
        mark, dash = (i + i // COLOURS) % len(MARKS), DASHES[(2 if control else 0) + (i // COLOURS) % 3]
        made[key] = Look(name or "all cells", i % COLOURS, mark, dash, control is not None)
    return made
