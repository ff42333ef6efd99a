"""The report of a study: files, numbers that are those of the cells, and text that stays text."""

import html.parser
import itertools
import json
import unicodedata

import made_study
import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_helpers import PROBES

from agblocks.studies import load_study, plan, run_study
from agblocks.studies.report import write
from agblocks.studies.report.groups import grouped
from agblocks.studies.report.heat import colour_of
from agblocks.studies.report.html import amount, interval, number, tag
from agblocks.studies.report.kept import kept
from agblocks.studies.report.look import looks
from agblocks.studies.report.svg import Scale, log_ticks, ticks
from agblocks.studies.results import read
from agblocks.studies.statistics import Unit, paired

HOSTILE = "<script>alert('x')</script> & \"quoted\" é \u202e $x_1$"
SMALL = {
    "encoders": ("alphagenome", "enformer"), "stages": 3, "ways": ("probe", HOSTILE), "folds": ("0", "3"),
    "seeds": ("0", "1"), "rows": 40, "bootstrap": 10, "name": f"stage_transfer {HOSTILE}", "about": HOSTILE,
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """The tables, ids and links of a page, and whether its elements are closed in order."""

    VOID = ("meta", "input", "br", "link", "col")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.rows, self.headings = [], [], [], [], {}, []
        self.table, self.cell, self.scripts = None, None, 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.ids += [held["id"]] if "id" in held else []
        self.links += [held["href"]] if tag == "a" else []
        self.sources += [v for k, v in attributes if k in ("src", "href") and tag != "a"]
        assert not any(k.startswith("on") for k in held)
        if tag == "table":
            self.table = self.rows.setdefault(held["class"].split()[-1] if "class" in held else "", [])
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.table[-1].append(self.cell)
            self.cell = None


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    made_study.make(folder, **SMALL, failed=2, missing=3)
    write(folder)
    return folder


@pytest.fixture(scope="module")
def page(out):
    return Page((out / "report" / "index.html").read_text())


def test_every_file_is_there(out):
    names = {path.name for path in (out / "report").iterdir()}
    assert {"index.html", "cells.csv", "cells.parquet", "comparisons.csv"} < names
    pictures = sorted(name for name in names if name.endswith(".png"))
    assert pictures == sorted([
        *(f"curves_{m}.png" for m in ("pearson", "spearman", "mse")),
        *(f"cost_{c}.png" for c in ("macs_per_base", "latency_1_ms", "latency_32_ms", "parameters", "peak_mb")),
        "similarity_stages.png", "similarity_architectures.png",
    ])  # fmt: skip
    assert all((out / "report" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    csv, parquet = (
        polars.read_csv(out / "report" / "cells.csv"),
        polars.read_parquet(out / "report" / "cells.parquet"),
    )
    assert len(csv) == len(parquet) and csv.columns == parquet.columns


def test_the_page_needs_nothing_else(page):
    assert all(source.startswith("data:") for source in page.sources)
    assert not [link for link in page.links if ":" in link or link.startswith("/")]
    files = {link for link in page.links if not link.startswith("#")}
    assert files >= {"cells.csv", "cells.parquet", "comparisons.csv", "curves_pearson.png"}


def test_every_link_leads_somewhere(out, page):
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {f"cell-{cell}" for cell in read(out).cells} <= set(page.ids)
    assert all((out / "report" / link).is_file() for link in page.links if not link.startswith("#"))


def test_text_of_users_stays_text(out, page):
    assert page.scripts == 2  # what stands behind the cells, and the page's own
    text = (out / "report" / "index.html").read_text()
    assert "<script>alert" not in text and "<img" not in text and "\u202e" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in text


def test_all_sections_are_there(page):
    assert page.headings[1:] == [
        "What the data say", "Transfer curves", "Accuracy against cost", "Similarity", "Comparisons", "Every point",
        "All cells", "What is missing", "Methods", "Files",
    ]  # fmt: skip


def test_points_are_means_of_their_cells(out, page):
    """The table of points against the result files, read apart."""
    plan = json.loads((out / "plan.json").read_text())
    wanted = {}
    for entry in plan["entries"]:
        path = out / "cells" / entry["cell"] / "result.json"
        if entry["control"] is None and path.exists():
            for score in json.loads(path.read_text())["scores"]["test"]:
                labels = entry["labels"]
                key = (labels["data"], labels["encoder"], labels["tap"], labels["way"], score["target"])
                wanted.setdefault(key, {}).setdefault(labels["fold"], []).append(score["pearson"])
    head, *rows = page.rows["points"]
    at = {name: i for i, name in enumerate(head)}
    found = {}
    for row in rows:
        if not row[at["control"]]:
            key = tuple(
                row[at[name]].replace("\ufffd", "\u202e") for name in ("data", "encoder", "tap", "way", "target")
            )
            found[key] = row
    assert {k for k, row in found.items() if row[at["Pearson r"]] != "–"} == set(wanted)
    for key, by_fold in wanted.items():
        mean = np.mean([np.mean(values) for values in by_fold.values()])
        units = sum(map(len, by_fold.values()))
        assert found[key][at["Pearson r"]] == number(mean), key
        assert found[key][at["units"]] == ("4" if units == 4 else f"{units} of 4")


def test_comparisons_are_those_of_the_statistics(out):
    """The family of comparisons with the reference, made by hand from the predictions."""
    plan = json.loads((out / "plan.json").read_text())
    units = {}
    for entry in plan["entries"]:
        path = out / "cells" / entry["cell"] / "predictions.parquet"
        if entry["control"] is None and path.exists():
            kept, labels = polars.read_parquet(path), entry["labels"]
            for target in made_study.TARGETS[labels["data"]]:
                pair = [kept[f"{part}_{target}"].to_numpy() for part in ("observed", "predicted")]
                key = (labels["data"], labels["encoder"], labels["tap"], labels["way"], target)
                units.setdefault(key, []).append(Unit(labels["fold"], labels["seed"], kept["id"].to_list(), *pair))
    reference = {k: (k[0], k[1], "encoder.stage1", "probe", k[4]) for k in units}
    wanted = {}
    for data, target in {(k[0], k[4]) for k in units}:
        wanted |= paired(units, {k: v for k, v in reference.items() if k != v and (k[0], k[4]) == (data, target)})
    frame = polars.read_csv(out / "report" / "comparisons.csv", schema_overrides={"axis_way": polars.String})
    found = {
        tuple(row[name] for name in ("axis_data", "axis_encoder", "axis_tap", "axis_way", "target")): row
        for row in frame.filter(polars.col("against") == "reference").iter_rows(named=True)
    }
    assert found.keys() == wanted.keys()
    for key, difference in wanted.items():
        assert found[key]["difference"] == pytest.approx(difference.mean)
        assert found[key]["verdict"] == difference.verdict and found[key]["sentence"] == difference.sentence
        assert found[key]["low"] == pytest.approx(difference.low, rel=0.02)  # the simulation depends on the order
    counts = dict(frame.group_by("against").len().iter_rows())
    assert counts["random"] == counts["kmer"] == counts["full"] == 2 * 3 * 2 * 3


def test_nothing_is_called_better_where_the_interval_covers_zero(tmp_path):
    made_study.make(
        tmp_path, encoders=("a",), stages=3, ways=("probe",), data=("lentimpra",), signal=False, rows=40, failed=0,
        missing=0, controls=("random",),
    )  # fmt: skip
    write(tmp_path)
    frame = polars.read_csv(tmp_path / "report" / "comparisons.csv")
    covers = (frame["low"] <= 0) & (frame["high"] >= 0)
    assert covers.any() and set(frame.filter(covers)["verdict"]) == {"none"}
    assert "decide nothing" in (tmp_path / "report" / "index.html").read_text()


def test_a_study_that_has_only_been_planned(tmp_path):
    made_study.make(tmp_path, encoders=("a",), stages=2, ways=("probe",), folds=("0",), seeds=("0",), rows=20)
    for path in tmp_path.glob("cells/*/*"):
        path.unlink()
    page = Page(write(tmp_path, tmp_path / "elsewhere").read_text())
    assert "What is missing" in page.headings and "Transfer curves" not in page.headings
    assert "nothing can be said" in (tmp_path / "elsewhere" / "index.html").read_text()
    assert not (tmp_path / "report").exists()


def test_one_cell_and_no_axes(tmp_path):
    """The least study: one option each, no reference, no controls, no costs."""
    made_study.make(
        tmp_path, encoders=("a",), stages=1, ways=("probe",), data=("lentimpra",), folds=("0",), seeds=("0",),
        controls=(), failed=0, missing=0, rows=20,
    )  # fmt: skip
    for path in tmp_path.glob("costs/*"):
        path.unlink()
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "reference": None, "report": {"over": []}}))
    page = Page(write(tmp_path).read_text())
    assert "Comparisons" not in page.headings and "Transfer curves" in page.headings
    text = (tmp_path / "report" / "index.html").read_text()
    assert "nothing was compared" in text and "have no cost" in text


def test_damaged_predictions_are_refused_and_said(tmp_path):
    made_study.make(
        tmp_path, encoders=("a",), stages=2, ways=("probe",), data=("lentimpra",), failed=0, missing=0, rows=30
    )
    results = read(tmp_path)
    groups = grouped(results)
    own = next(g for g in groups.groups if g.control is None)
    cut, swapped, gone = (results.predictions(cell) for cell in list(own.units.values())[:3])
    cut.write_bytes(cut.read_bytes()[:-40])
    swapped.write_bytes(next(p for p in tmp_path.glob("cells/*/predictions.parquet") if p != swapped).read_bytes())
    gone.unlink()
    held = kept(groups)
    assert len(held.problems) == 3 and len(held.units[own.number, "HepG2"]) == 3
    said = {str(path): next(p for p in held.problems if str(path) in p) for path in (cut, swapped, gone)}
    assert "cannot be read" in said[str(cut)] and "in the result" in said[str(swapped)]
    assert "no such file" in said[str(gone)]
    text = write(tmp_path).read_text()
    assert "Files that were refused" in text and str(cut) in text


def test_data_that_do_not_fit_together_are_not_compared(tmp_path):
    """One model's rows measured otherwise than another's: the rest is compared, and the reason given."""
    made_study.make(
        tmp_path, encoders=("a",), stages=3, ways=("probe",), data=("lentimpra",), failed=0, missing=0, rows=30,
        controls=(),
    )  # fmt: skip
    results = read(tmp_path)
    path = results.predictions(next(e.cell for e in results.plan.entries if e.labels["tap"] == "encoder.stage2"))
    polars.read_parquet(path).with_columns(
        polars.col("observed_HepG2") * 2, polars.col("predicted_HepG2") * 2
    ).write_parquet(path)
    assert "these are not the same data" in write(tmp_path).read_text()
    frame = polars.read_csv(tmp_path / "report" / "comparisons.csv")
    assert frame["axis_tap"].to_list() == ["encoder.stage3"]


def test_every_line_of_a_study_looks_its_own(tmp_path):
    made_study.make(
        tmp_path, encoders=("a",), stages=1, ways=tuple(f"way{i:02}" for i in range(30)), data=("lentimpra",),
        folds=("0",), seeds=("0",), rows=10, failed=0, missing=0, predictions=False,
    )  # fmt: skip
    found = looks(grouped(read(tmp_path))).values()
    assert len(found) == 62
    own = [(look.colour, look.mark, look.dash, look.hollow) for look in found]
    assert len(set(own)) == len(own)
    first = [look for look in found if not look.hollow][:7]
    assert len({look.colour for look in first}) == len({look.mark for look in first}) == 7


@given(st.text(), st.text())
def test_markup_round_trips(said, title):
    class Reader(html.parser.HTMLParser):
        held, attribute = "", None

        def handle_data(self, data):
            self.held += data

        def handle_starttag(self, name, attributes):
            assert name == "p"
            self.attribute = dict(attributes)["title"]

    reader = Reader()
    reader.feed(tag("p", said, title=title))
    reader.close()

    # Controls and what turns the direction of text are shown as a mark; line ends as HTML reads them.
    def seen(text):
        kept_text = "".join("\ufffd" if unicodedata.category(c) in HIDDEN and c not in "\n\t" else c for c in text)
        return kept_text

    assert reader.held == seen(said) and reader.attribute == seen(title)


HIDDEN = ("Cc", "Cf", "Cs")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low, wide):
    high = low + wide
    if not high > low:
        return
    made = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), wide)
    assert all(low - slack <= t <= high + slack for t in made) and len(made) <= 8
    assert made == sorted(made)


@given(st.floats(1e-3, 1e12), st.floats(2.1, 1e6))
def test_log_ticks_are_inside(low, times):
    made = log_ticks(low, low * times)
    assert made == sorted(made) and all(low <= t <= low * times for t in made)


def test_scales_and_words():
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5) and Scale(0, 2, 10, 0)(0.5) == 7.5
    assert (number(-0.1234), number(None), number(float("nan"))) == ("−0.123", "–", "–")
    assert (amount(88_800), amount(12.54), amount(0.0412), amount(3.0)) == ("88,800", "12.5", "0.0412", "3")
    assert interval(-0.1, 0.2) == "[−0.100, 0.200]" and interval(None, 1) == interval(float("nan"), 1) == ""


def test_numbers_on_colours_can_be_read():
    """WCAG's contrast of at least 4.5 for every value's number on its colour."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for value in np.linspace(-0.2, 1.2, 141):
        colour, dark = colour_of(value)
        contrast = 1.05 / (light(colour) + 0.05) if dark else (light(colour) + 0.05) / 0.05
        assert contrast >= 4.5, value
    ends = [light(colour_of(v)[0]) for v in np.linspace(0, 1, 30)]
    assert all(a < b for a, b in itertools.pairwise(ends))


def test_a_real_miniature_study(tmp_path):
    """Probes that were really run, kept and scored: read, averaged, compared and shown."""
    planned = plan(load_study(PROBES))
    assert run_study(planned, tmp_path / "out", costs=False).ok
    page = Page(write(tmp_path / "out", tmp_path / "report").read_text())
    assert page.headings[:3] == ["probes", "What the data say", "Transfer curves"]
    flat = polars.read_parquet(tmp_path / "report" / "cells.parquet")
    assert set(flat["state"]) == {"done"} and set(flat["cell"]) == set(planned.cells)
    kmer = flat.filter(polars.col("control") == "kmer")
    assert set(kmer["fold"]) == {"0", "3"} and len(kmer) == 2 and kmer["tap"].null_count() == 2
    own = flat.filter(polars.col("control").is_null())
    assert sorted(zip(own["tap"], own["pool"], own["fold"], strict=True)) == sorted(
        itertools.product(("encoder.stage1", "encoder.stage3"), ("mean", "peak"), ("0", "3"))
    )
    head, *rows = page.rows["points"]
    assert len(rows) == 5 and all(row[head.index("interval")] for row in rows)
    frame = polars.read_csv(tmp_path / "report" / "comparisons.csv")
    assert sorted(frame["against"]) == ["kmer"] * 4 + ["reference"] * 3
    assert all(name in flat["command"][i] for i, name in enumerate(flat["cell"]))
