"""How the numbers were made, in the report itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..statistics.paired import LEVEL
from ..statistics.paired import RESAMPLES as DRAWS
from .groups import control_name
from .html import Child, Markup, tag
from .means import RESAMPLES

if TYPE_CHECKING:
    from .page import Shown

_CONTROLS = {
    "random": "the same cell with an encoder as each block draws its own first values: what training brought",
    "kmer": "ridge on counts of k-mers, fitted to the same rows: what needs no model",
    "full": "the whole model trained on the same rows: what freezing and cutting cost",
}


def methods(shown: Shown) -> Markup:
    """Units, intervals, corrections, costs: what a reader needs to judge the numbers."""
    ranks = RESAMPLES["spearman"]
    rows: dict[str, Child] = {
        "unit": _units(shown),
        "score": "Of held-out test rows that neither training nor the choice of penalties and epochs has seen, "
        "all rows of a fold together. A correlation of constant predictions does not exist and is left out, not zero.",
        "interval": f"{LEVEL:.0%}. Its variance is the sum of three: of the held-out rows, by {DRAWS:,} resamples of "
        f"them ({ranks} for Spearman's), the same rows for all models; of the folds; and of the seeds. As folds share "
        "training rows, their scores are not independent, and rows count twice. It says what to expect of new rows, "
        "training sets of this size and seeds, not of other assays. An interval in the figures is of that group alone: "
        "two that overlap may well differ.",
        "comparison": "The difference in Pearson's r on the same rows, folds and seeds; a unit that one of the two "
        "does not have takes no part. Better or worse is said only where the corrected interval leaves out zero.",
        "correction": _families(shown),
        "controls": _controls(shown),
        "front": "A point is on the front where no other has a higher mean at the same or a lower cost. It is drawn by "
        "means and has no interval.",
        "cost": _cost(shown),
        "a cell's own interval": "In cells.csv, as far as it was made: of that one model, rows resampled.",
    }
    pairs = [(tag("dt", name), tag("dd", said)) for name, said in rows.items() if said]
    return tag("dl", *pairs, class_="pairs")


def _units(shown: Shown) -> str:
    over = shown.grouped.over
    axes = shown.results.axes
    counts = [f"{len(axes[a])} {a}{'s' if len(axes[a]) != 1 else ''} ({', '.join(axes[a])})" for a in over]
    if not counts:
        return "A cell: the study names no folds and no seeds, so nothing is averaged and no difference can be shown."
    few = [a for a in over if len(axes[a]) < 2]
    said = f"One model on one set of held-out rows: {' times '.join(counts)}."
    return said + "".join(f" With one {a}, what another {a} would change is not seen." for a in few)


def _families(shown: Shown) -> str | None:
    counts = Counter(one.against for one in shown.compared)
    if not counts:
        return None
    names = {a: "the reference" if a == "reference" else control_name(a) for a in counts}
    listed = ", ".join(f"{n:,} against {names[a]}" for a, n in counts.items())
    sizes = sorted({one.found.family for one in shown.compared if one.found.family})
    size = f" of {sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "") if sizes else ""
    return (
        f"{listed}. Those of one target of one data set against the same thing are a family{size}: they are corrected "
        "together, by the least p-value of the family (Westfall and Young's single step), so that all intervals of a "
        f"family hold at once with {LEVEL:.0%}. With few folds and many comparisons such intervals are wide; the "
        "column alone says what each would be if it were the only one."
    )


def _controls(shown: Shown) -> Child:
    there = dict.fromkeys(group.control for group in shown.grouped.groups if group.control)
    if not there:
        return "The study has none: nothing says what training of the encoder brought, or what needs no model."
    return [tag("div", tag("b", control_name(c)), f": {_CONTROLS.get(c, 'named by the study')}.") for c in there]


def _cost(shown: Shown) -> str | None:
    costs = list(shown.results.costs.values())
    if not costs:
        return None
    devices = ", ".join(sorted({c.device for c in costs if c.device})) or "a device that is not named"
    threads = ", ".join(sorted({str(c.threads) for c in costs if c.threads is not None}))
    bases = ", ".join(sorted({f"{c.bases:,.0f}" for c in costs if c.bases is not None}))
    at = f" at {bases} bases" if bases else ""
    with_ = f" with {threads} thread{'s' if threads != '1' else ''}" if threads else ""
    return (
        f"Parameters and multiply-adds are counted; latency and peak memory are measured{at} on {devices}{with_}, "
        "latency as the median of repeats. A group's cost is the median over its units, of the model cut where its "
        "head reads."
    )
