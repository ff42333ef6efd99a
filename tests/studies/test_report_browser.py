"""The report as a reader sees it, in a real browser."""

import base64
import re
import time

import made_study
import pytest
from browser import browser, complaints, dark, requests, size

from agblocks.studies.report import write

WAIT = 30


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("browsed") / "out"
    made = made_study.make(
        out, encoders=("alphagenome",), stages=3, ways=("probe", "<b>tuned</b> & 'all'"), rows=40, bootstrap=0,
        folds=("0", "3"), seeds=("0", "1"), failed=2, missing=3,
    )  # fmt: skip
    return write(out), made


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def page(driver, study):
    """The page, freshly loaded on a desk's screen; its console and its requests are looked at in the end."""
    dark(driver, False)
    size(driver, 1280)
    driver.get("about:blank")
    requests(driver), complaints(driver)
    driver.get(study[0].as_uri())
    until(driver, "return document.documentElement.dataset.ready === 'yes'")
    yield driver
    assert complaints(driver) == []
    asked = [url for url in requests(driver) if not url.startswith(("chrome:", "data:", "about:"))]
    assert asked and {url.partition("#")[0] for url in asked} == {study[0].as_uri()}


def until(driver, script, *arguments):
    end = time.monotonic() + WAIT
    while not driver.execute_script(script, *arguments):
        assert time.monotonic() < end, script
        time.sleep(0.02)


CELLS = "document.querySelector('table.cells')"


def column(driver, name):
    """The texts of a column of the table of cells, in the rows that are shown."""
    return driver.execute_script(
        f"const table = {CELLS}; const at = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === arguments[0]);"
        "return [...table.tBodies[0].rows].filter((r) => !r.hidden && !r.classList.contains('more'))"
        ".map((r) => r.cells[at].textContent);",
        name,
    )


def pick(driver, label, value):
    """Choose in one of the selects above the table of cells."""
    driver.execute_script(
        f"const tools = {CELLS}.closest('.scroll').previousElementSibling;"
        "const select = [...tools.querySelectorAll('label')].find((l) => l.firstChild.textContent === arguments[0])"
        ".querySelector('select'); select.value = '=' + arguments[1]; select.dispatchEvent(new Event('change'));",
        label,
        value,
    )


def search(driver, said):
    driver.execute_script(
        f"const input = {CELLS}.closest('.scroll').previousElementSibling.querySelector('input');"
        "input.value = arguments[0]; input.dispatchEvent(new Event('input'));",
        said,
    )


def told(driver):
    return driver.execute_script(
        f"return {CELLS}.closest('.scroll').previousElementSibling.querySelector('output').textContent"
    )


def test_selects_and_search_leave_what_fits(page):
    everything = column(page, "tap")
    assert told(page) == f"{len(everything)} of {len(everything)} rows"
    pick(page, "tap", "encoder.stage2")
    pick(page, "way", "<b>tuned</b> & 'all'")
    pick(page, "control", "")
    assert set(column(page, "tap")) == {"encoder.stage2"} and set(column(page, "way")) == {"<b>tuned</b> & 'all'"}
    assert set(column(page, "control")) == {""}
    left = len(column(page, "tap"))
    assert 0 < left < len(everything) and told(page) == f"{left} of {len(everything)} rows"
    search(page, "starrseq hk")
    until(
        page,
        f"return {CELLS}.closest('.scroll').previousElementSibling.querySelector('output').textContent !== arguments[0]",
        f"{left} of {len(everything)} rows",
    )
    assert set(column(page, "data")) == {"starrseq"} and set(column(page, "target")) == {"Hk_log2_enrichment"}
    page.execute_script(f"{CELLS}.closest('.scroll').previousElementSibling.querySelector('button').click()")
    assert len(column(page, "tap")) == len(everything)


def test_of_many_rows_the_first_are_shown(page):
    """Past the step rows wait for a click, a sort brings others, a link shows its row all the same."""
    tools = f"{CELLS}.closest('.scroll').previousElementSibling"
    everything = len(column(page, "cell"))
    page.execute_script("document.querySelector('table.cells').dataset.rows = 20")
    page.execute_script(f"[...{tools}.querySelectorAll('button')].find((b) => b.textContent === 'show all').click()")
    assert len(column(page, "cell")) == 20 and told(page) == f"first 20 of {everything} of {everything} rows"
    first = column(page, "cell")
    page.execute_script(f"[...{tools}.querySelectorAll('button')].find((b) => b.textContent === 'more rows').click()")
    assert len(column(page, "cell")) == 40 and column(page, "cell")[:20] == first
    page.execute_script(
        f"[...{CELLS}.tHead.rows[0].cells].find((c) => c.textContent === 'Pearson r').firstChild.click()"
    )
    lowest = [float(v.replace("−", "-")) for v in column(page, "Pearson r")]
    assert len(lowest) == 40 and lowest == sorted(lowest)
    last = page.execute_script(f"const rows = [...{CELLS}.tBodies[0].rows].filter((r) => r.id); return rows.at(-1).id")
    page.execute_script("location.hash = arguments[0]", f"#{last}")
    until(page, "return document.querySelectorAll('tr.more').length === 1")
    assert page.execute_script("return document.getElementById(arguments[0]).checkVisibility()", last)


def test_failed_cells_can_be_found(page, study):
    pick(page, "state", "failed")
    assert set(column(page, "cell")) == {cell[:8] for cell in study[1]["failed"]}


@pytest.mark.parametrize(("name", "key"), [("Pearson r", float), ("target", str), ("mult-adds/bp", float)])
def test_a_click_on_a_head_sorts(page, name, key):
    def click():
        page.execute_script(
            f"[...{CELLS}.tHead.rows[0].cells].find((c) => c.textContent === arguments[0]).firstChild.click()", name
        )

    def values():
        return [key(v.replace("−", "-").replace(",", "")) for v in column(page, name) if v not in ("", "–")]

    before = values()
    click()
    assert values() == sorted(before) and len(before) > 10
    state = f"return [...{CELLS}.tHead.rows[0].cells].find((c) => c.textContent === arguments[0]).ariaSort"
    assert page.execute_script(state, name) == "ascending"
    click()
    assert values() == sorted(before, reverse=True) and page.execute_script(state, name) == "descending"
    assert sorted(column(page, "cell")) and column(page, name)[-1] in ("", "–", *map(str, column(page, name)))


def test_a_cell_unfolds_its_digest_weights_and_command(page, study):
    row = page.execute_script(
        f"return [...{CELLS}.tBodies[0].rows].find((r) => r.id && r.cells[1].textContent === 'done')"
    )
    cell = row.get_attribute("id").removeprefix("cell-")
    button = row.find_element("css selector", "button")
    assert button.get_attribute("aria-expanded") == "false"
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    text = page.execute_script("return arguments[0].nextElementSibling.textContent", row)
    assert cell in text and f"agblocks study run study.yaml -o out --only {cell}" in text and "recipe digest" in text
    assert "4a1a0792adbc" in text and "f" * 64 in text and button.get_attribute("aria-expanded") == "true"
    button.send_keys("\ue007")  # the Enter key folds it again
    assert page.execute_script("return document.querySelectorAll('tr.more').length") == 0


def test_a_link_to_a_cell_shows_it_whatever_is_filtered(page, study):
    cell = study[1]["failed"][0]
    pick(page, "control", "kmer")
    assert not [name for name in column(page, "cell") if name == cell[:8]]
    page.execute_script("location.hash = arguments[0]", f"#cell-{cell}")
    until(page, "return document.querySelectorAll('tr.more').length === 1")
    said = page.execute_script("return document.querySelector('tr.more').textContent")
    assert made_study.MISSING_REASON in said and "encoder.stage2" in said
    assert page.execute_script("return document.activeElement.closest('tr').id") == f"cell-{cell}"


def test_a_point_leads_to_its_cells(page):
    mark = page.find_element("css selector", "#curves .s1:not(.hollow) a.mark")
    assert re.fullmatch(
        r".+, stage\d, [−0-9.]+ \[.+\], 4 units",
        mark.find_element("css selector", "title").get_attribute("textContent"),
    )
    page.execute_script("location.hash = arguments[0].getAttribute('href')", mark)
    until(page, "return document.querySelector('tr.aim') !== null")
    link = page.find_element("css selector", "tr.aim .links a")
    page.execute_script("location.hash = arguments[0].getAttribute('href')", link)
    until(page, "return document.querySelector('tr.more') !== null")
    assert "--only" in page.find_element("css selector", "tr.more").get_attribute("textContent")


def test_buttons_choose_the_figures(page):
    def shown(name):
        return page.execute_script(
            "return [...document.querySelector(arguments[0]).children].filter((c) => c.checkVisibility()).map((c) => c.className)",
            f".for-{name}",
        )

    assert shown("metric") == ["metric-pearson"] and shown("cost") == ["cost-macs_per_base"]
    page.execute_script(
        "document.getElementById('metric-spearman').click(); document.getElementById('cost-latency_1_ms').click()"
    )
    assert shown("metric") == ["metric-spearman"] and shown("cost") == ["cost-latency_1_ms"]


@pytest.mark.parametrize("width", [360, 414, 768, 1280, 1920])
def test_the_page_never_scrolls_sideways(page, width):
    size(page, width, 800, mobile=width < 500)
    page.execute_script(f"{CELLS}.querySelector('td.id button').click()")
    wide = page.execute_script(
        "return [document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]"
    )
    assert max(wide) == width
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((b) => b.getBoundingClientRect().right)"
    )
    assert max(boxes) <= width


@pytest.mark.parametrize("night", [False, True])
def test_text_contrasts_with_its_ground(page, night):
    """WCAG AA for what stands on the page's own grounds, in light and dark."""
    dark(page, night)
    pairs = page.execute_script(
        "const all = [...document.querySelectorAll('p, li, td, th, dt, dd, h1, h2, figcaption, label, a, .bad, .verdict')];"
        "const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;"
        " if (c !== 'rgba(0, 0, 0, 0)') return c; } return getComputedStyle(document.documentElement).backgroundColor; };"
        "return [...new Set(all.map((e) => getComputedStyle(e).color + '|' + ground(e)))];"
    )

    def light(colour):
        parts = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(pairs) > 5
    for pair in pairs:
        one, other = sorted(map(light, pair.split("|")))
        assert (other + 0.05) / (one + 0.05) >= 4.5, pair
    grounds = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (light(grounds) < 0.1) == night


def test_what_helpers_read_out(page):
    """Names for every part that has a role of its own, headings in order, heads for every table."""
    faults = page.execute_script(
        "const faults = [];"
        "document.querySelectorAll('svg.plot').forEach((s) => { if (!s.querySelector(':scope > title')?.textContent) faults.push('svg'); });"
        "document.querySelectorAll('[role=region], nav').forEach((e) => { if (!e.getAttribute('aria-label')) faults.push(e.className); });"
        "document.querySelectorAll('th').forEach((e) => { if (!e.scope) faults.push('th'); });"
        "document.querySelectorAll('input, select').forEach((e) => { if (!e.closest('label')) faults.push('input'); });"
        "document.querySelectorAll('a.mark').forEach((e) => { if (!e.querySelector('title')) faults.push('mark'); });"
        "let before = 0; document.querySelectorAll('h1, h2, h3').forEach((e) => { const level = Number(e.tagName[1]);"
        " if (level > before + 1) faults.push(e.textContent); before = level; });"
        "if (document.documentElement.lang !== 'en') faults.push('lang'); return faults;"
    )
    assert faults == []


def test_on_paper_everything_is_unfolded(page, study):
    """The PDF has all sections, all costs and metrics, and every cell with its command."""
    made = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    content = base64.b64decode(made["data"])
    assert content.startswith(b"%PDF") and len(re.findall(rb"/Type ?/Page\b", content)) > 5
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    seen = page.execute_script("return document.body.innerText")
    for title in ("What the data say", "Transfer curves", "Accuracy against cost", "Similarity", "Comparisons", "Every point",
                  "All cells", "What is missing", "Methods", "Files", "Spearman", "latency, batch 32"):  # fmt: skip
        assert title in seen, title
    for cell in (*study[1]["failed"], *study[1]["missing"]):
        assert cell in seen
    assert seen.count("--only") > 50
    boxes = "return [...document.querySelectorAll('.scroll')].every((b) => getComputedStyle(b).overflowY === 'visible')"
    assert page.execute_script(boxes)
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert page.execute_script("return document.querySelectorAll('tr.more').length") == 0
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
