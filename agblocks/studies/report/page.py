"""The report as one page: everything it shows is in the file, nothing is fetched."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars

from ..results import STATES, Results
from .cells import cells_data, cells_table
from .choices import choices
from .comparisons import Compared, comparisons_table
from .curve_drawing import METRICS, draw_curves, legend
from .curves import curves
from .groups import Grouped
from .heat import draw_similarity
from .html import Child, Markup, join, tag
from .look import looks
from .means import Means
from .methods import methods
from .missing import missing
from .pareto import COSTS, trades
from .pareto_drawing import draw_trades
from .points import points_table
from .shared import Part, parts_list
from .summary import summary

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shown:
    """All that the page and the files are made of."""

    results: Results
    grouped: Grouped
    flat: polars.DataFrame
    means: Means
    compared: Sequence[Compared]
    parts: Sequence[Part]


def page(shown: Shown, pictures: Sequence[str]) -> str:
    """The whole document. pictures: names of the PNG files that lie beside it."""
    results = shown.results
    parts = {
        "answer": ("What the data say", summary(shown.grouped, shown.means, shown.compared)),
        "curves": ("Transfer curves", _curves(shown)),
        "cost": ("Accuracy against cost", _trades(shown)),
        "similarity": ("Similarity", _similarity(results)),
        "comparisons": ("Comparisons", comparisons_table(shown.grouped, shown.compared)),
        "points": ("Every point", join([
            tag("p", "Each point of the figures: cells that differ only in ", _and(shown.grouped.over),
                ". A number's cells are linked in its last column."),
            points_table(shown.grouped, shown.means),
        ])),
        "cells": ("All cells", join([
            tag("p", "A cell is one training or one probe. Its name unfolds the recipe's digest, the weights, the "
                "command that makes it again, and what was chosen. The same rows are in ", _file("cells.csv"), " and ",
                _file("cells.parquet"), "."),
            cells_table(results, shown.flat), cells_data(results, shown.flat),
        ])),
        "missing": ("What is missing", missing(results)),
        "methods": ("Methods", methods(shown)),
        "files": ("Files", _files(pictures)),
    }  # fmt: skip
    wide = ("comparisons", "points", "cells")
    there = {key: part for key, part in parts.items() if part[1]}
    nav = tag("nav", tag("ul", [tag("li", tag("a", title, href=f"#{key}")) for key, (title, _) in there.items()]),
              aria_label="Sections")  # fmt: skip
    sections = [
        tag("section", tag("h2", title, id=f"{key}-title"), body, id=key, aria_labelledby=f"{key}-title",
            class_="wide" if key in wide else None)
        for key, (title, body) in there.items()
    ]  # fmt: skip
    return _document(results, [_head(results), nav, tag("main", *sections, id="main")])


def _document(results: Results, body: Sequence[Child]) -> str:
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        # Nothing may be fetched, whatever a label says.
        tag("meta", http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{results.plan.name}: report"),
        tag("style", Markup((_HERE / "page.css").read_text())),
    ]  # fmt: skip
    script = tag("script", Markup((_HERE / "page.js").read_text()))
    skip = tag("a", "to the content", href="#main", class_="skip")
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', skip, *body, script), lang='en')}\n"


def _head(results: Results) -> Markup:
    plan = results.plan
    words = {"done": "done", "failed": "failed", "refused": "unreadable", "missing": "not run"}
    counts = [(state, results.count(state)) for state in STATES]
    facts = [
        tag("li", tag("b", f"{number:,}"), f" {words[state]}", class_=None if state == "done" else "bad")
        for state, number in counts
        if number or state == "done"
    ]
    if plan.digest:
        facts.append(tag("li", "study ", tag("code", plan.digest)))
    if plan.agblocks:
        facts.append(tag("li", f"agblocks {plan.agblocks}"))
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts.append(tag("li", f"report of {today}"))
    left = sum(number for state, number in counts if state != "done")
    note = tag("p", f"This study is not complete: {left:,} of {len(results.cells):,} cells have no result. ",
               tag("a", "What is missing", href="#missing"), class_="note") if left else None  # fmt: skip
    return tag(
        "header", tag("h1", plan.name), tag("p", plan.about, class_="lead") if plan.about else None,
        tag("ul", *facts, class_="facts"), tag("p", tag("code", plan.command)) if plan.command else None, note,
    )  # fmt: skip


def _curves(shown: Shown) -> Markup | None:
    grouped = shown.grouped
    known = looks(grouped)
    figures = {}
    for metric, name in METRICS.items():
        made = curves(grouped, shown.means, metric)
        if made.panels:
            figures[metric] = (name, tag("div", *draw_curves(made), class_="panels"))
    if not figures:
        return None
    said = tag("p", f"Each point is the mean over {_and(grouped.over)} of held-out rows, with its ",
               tag("a", "interval", href="#methods"), "; each links to its cells. Panels of one target share their "
               "axis; a bar without a cap goes on beyond it.")  # fmt: skip
    return join([said, legend(list(known.values())), choices("metric", "Score", figures)])


def _trades(shown: Shown) -> Markup | None:
    figures = {}
    for cost, (_, name) in COSTS.items():
        made = trades(shown.grouped, shown.means, cost)
        if made:
            figures[cost] = (name, tag("div", *draw_trades(made, shown.grouped), class_="panels"))
    if not figures:
        return None
    said = tag("p", "Points on the dashed front are strong in colour: nothing cheaper is as accurate, judged by the "
               "means alone. Whether a step along it is more than chance, the comparisons say. Thin lines go along the "
               "stages of one encoder.")  # fmt: skip
    known = legend(list(looks(shown.grouped).values()))
    return join([said, known, choices("cost", "Cost", figures), parts_list(shown.grouped, shown.parts)])


def _similarity(results: Results) -> Markup | None:
    drawn = [draw_similarity(name, made) for name, made in results.similarity.items()]
    return join(drawn) if drawn else None


def _files(pictures: Sequence[str]) -> Markup:
    names = ["cells.csv", "cells.parquet", "comparisons.csv", *pictures]
    said = tag("p", "Beside this page, if it was not moved alone:")
    return join([said, tag("ul", [tag("li", _file(name)) for name in names])])


def _file(name: str) -> Markup:
    return tag("a", name, href=name)


def _and(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1] if names else "nothing") if part)
