"""What the data say, in sentences, and what they leave open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .comparisons import Compared
from .curves import fits
from .groups import Grouped, control_name
from .html import Child, Markup, interval, join, number, tag
from .means import Means
from .pareto import data_axes


def summary(grouped: Grouped, means: Means, compared: Sequence[Compared]) -> Markup | None:
    """For every data set and target the highest mean and what it was compared with; then what is not decided."""
    items = [_best(grouped, means, compared, dict(labels), target) for labels, target in _questions(grouped)]
    items = [item for item in items if item]
    if not items:
        return tag("p", "No cell has a result yet: nothing can be said.", class_="note")
    return join([tag("ul", *items, class_="answer"), *_open(compared)])


def _questions(grouped: Grouped) -> list[tuple[tuple[tuple[str, str], ...], str]]:
    axes = data_axes(grouped)
    found: dict[tuple[tuple[tuple[str, str], ...], str], None] = {}
    for group in grouped.groups:
        if group.control is None:
            labels = tuple((a, group.labels[a]) for a in axes)
            found |= dict.fromkeys((labels, target) for target in grouped.targets(group))
    return list(found)


def _best(
    grouped: Grouped, means: Means, compared: Sequence[Compared], labels: dict[str, str], target: str
) -> Markup | None:
    """The group with the highest mean; that it is the highest is no claim, what it is compared with may be."""
    inside = [g for g in grouped.groups if g.control is None and fits(g, labels)]
    ranked = [(mean, g) for g in inside if (mean := means.get((g.number, target, "pearson"))) is not None]
    if not ranked:
        return None
    mean, group = max(ranked, key=lambda pair: pair[0].mean)
    name = group.says(without=tuple(labels))
    said: list[Child] = [
        tag("b", " · ".join([*labels.values(), target])), ": highest mean r ",
        tag("a", f"{number(mean.mean)} {interval(mean.low, mean.high)}".strip(), href=f"#{group.anchor}"),
        f" ({name}, {mean.units} unit{'s' if mean.units != 1 else ''})",
    ]  # fmt: skip
    own = [one for one in compared if one.group is group and one.target == target]
    for one in own:
        other = control_name(one.against) if one.against != "reference" else f"the reference ({_other(one, labels)})"
        sure = one.found.verdict if one.found.verdict in _SURE else ""
        said += ["; against ", other, ": ", tag("span", one.found.sentence, class_=f"verdict {sure}" if sure else None)]
    verdicts = {one.found.verdict for one in own}
    class_ = "open" if verdicts & {"none", "few"} or not own else "worse" if "worse" in verdicts else "better"
    return tag("li", *said, ".", class_=class_)


_SURE = ("better", "worse")


def _other(one: Compared, labels: dict[str, str]) -> str:
    differing = [v for a, v in one.other.labels.items() if one.group.labels.get(a) != v]
    return ", ".join(differing) or one.other.says(without=tuple(labels))


def _open(compared: Sequence[Compared]) -> list[Markup]:
    """How many comparisons decide nothing, so that nobody takes silence for sameness."""
    made = [tag("p", "A highest mean among many is high partly by luck; only comparisons with an interval that leaves "
                "out zero are claims.", class_="quiet")]  # fmt: skip
    counts = Counter(one.found.verdict for one in compared)
    undecided = counts["none"] + counts["few"]
    if not compared:
        made.append(tag("p", "The study names no reference and has no controls: nothing was compared.", class_="note"))
    elif undecided:
        few = f", {counts['few']:,} of them for too few units" if counts["few"] else ""
        made.append(tag("p", f"What can't be concluded: {undecided:,} of {len(compared):,} ",
                        tag("a", "comparisons", href="#comparisons"), f" decide nothing{few}. That no difference can "
                        "be shown does not mean that there is none.", class_="note"))  # fmt: skip
    return made
