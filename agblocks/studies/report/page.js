/* Sorting, filtering and unfolding of the report's tables. Without it everything is there, in the plan's order. */
"use strict";
(() => {
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  const details = document.getElementById("cells-data");
  const known = details ? JSON.parse(details.textContent) : { columns: [], cells: {} };
  const words = {
    where: "where it failed", recipe: "recipe digest", weights: "weights (sha256)", command: "command",
    chosen: "chosen", rows_train: "rows to train on", rows_valid: "rows to choose by", rows_test: "rows held out",
    parameters_trained: "parameters trained", run_peak_mb: "peak memory of the run, MB", macs_per_base: "multiply-adds for each base",
    latency_1_ms: "ms a sequence, one at a time", latency_32_ms: "ms a sequence, 32 at a time",
    peak_mb: "peak memory of the model, MB", agblocks: "agblocks' version",
  };
  const codes = new Set(["recipe", "weights", "command", "chosen"]);

  // The number a table's text stands for; what is no number sorts after all numbers.
  const valueOf = (said) => {
    const plain = said.replace(/\u2212/g, "-").replace(/,/g, "").trim();
    return plain !== "" && !Number.isNaN(Number(plain)) ? Number(plain) : null;
  };
  const compare = new Intl.Collator("en", { numeric: true }).compare;

  function unfold(row, open) {
    const button = row.querySelector("td.id button");
    const next = row.nextElementSibling;
    const is = next !== null && next.classList.contains("more");
    if (open === is) return;
    button.setAttribute("aria-expanded", String(open));
    if (!open) { next.remove(); return; }
    const id = row.cells[0].dataset.cell;
    const list = make("dl", {}, make("dt", {}, "cell"), make("dd", {}, make("code", {}, id)));
    known.columns.forEach((column, i) => {
      const value = known.cells[id][i];
      if (value === null) return;
      const said = typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : value;
      list.append(make("dt", {}, words[column] || column), make("dd", {}, codes.has(column) ? make("code", {}, said) : said));
    });
    list.append(make("dt", {}, "files"), make("dd", {}, make("code", {}, `cells/${id}/`)));
    row.after(make("tr", { class: "more" }, make("td", { colspan: row.cells.length }, list)));
  }

  function prepare(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...body.rows];
    const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent));
    const lower = texts.map((line, i) => `${line.join(" ")} ${rows[i].cells[0].dataset.cell || ""}`.toLowerCase());
    const count = make("output", { "aria-live": "polite" });
    const search = make("input", { type: "search", placeholder: "any text" });
    const more = make("button", { type: "button" }, "more rows");
    const step = () => Number(table.dataset.rows) || 300;
    const selects = [];
    let order = rows.map((_, i) => i);
    let limit = step();
    const tools = make("div", { class: "tools" }, make("label", {}, "search", search));

    function show() {
      const parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      // Of what fits, the first rows: a browser lays out thousands of rows slowly, and nobody reads them.
      let left = 0;
      for (const i of order) {
        const row = rows[i];
        const fits = parts.every((part) => lower[i].includes(part))
          && selects.every(([column, select]) => select.value === "" || texts[i][column] === select.value.slice(1));
        left += fits;
        const hide = !fits || left > limit;
        if (hide === row.hidden) continue;
        if (hide && row.nextElementSibling?.classList.contains("more")) unfold(row, false);
        row.hidden = hide;
      }
      const first = left > limit ? `first ${limit.toLocaleString("en")} of ` : "";
      count.textContent = `${first}${left.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
      more.hidden = left <= limit;
    }

    heads.forEach((head, column) => {
      if (head.hasAttribute("data-select")) {
        const options = [...new Set(texts.map((line) => line[column]))];
        if (options.length > 1) {
          const select = make("select", {}, make("option", { value: "" }, "all"));
          // "=" before each value, so that an empty label is another thing than all of them.
          options.forEach((option) => select.append(make("option", { value: `=${option}` }, option || "–")));
          select.addEventListener("change", show);
          selects.push([column, select]);
          tools.append(make("label", {}, head.textContent, select));
        }
      }
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const values = texts.map((line) => valueOf(line[column]));
        order = rows.map((_, i) => i).sort((a, b) => {
          const [x, y] = [values[a], values[b]];
          if (x !== null && y !== null) return (down ? y - x : x - y) || a - b;
          if (x !== null || y !== null) return x === null ? 1 : -1;
          const said = compare(texts[a][column], texts[b][column]);
          return (down ? -said : said) || a - b;
        });
        const moved = document.createDocumentFragment();
        for (const i of order) {
          const row = rows[i];
          const more = row.nextElementSibling?.classList.contains("more") ? row.nextElementSibling : null;
          moved.append(row);
          if (more) moved.append(more);
        }
        body.append(moved);
        show();
      });
    });

    const clear = () => { limit = step(); search.value = ""; selects.forEach(([, select]) => { select.value = ""; }); show(); };
    const reset = make("button", { type: "button" }, "show all");
    reset.addEventListener("click", clear);
    let waiting = 0;
    search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(show, 120); });
    more.addEventListener("click", () => { limit += step(); show(); });
    tools.append(reset, more, count);
    table.closest(".scroll").before(tools);

    if (table.classList.contains("cells")) {
      for (const row of rows) {
        const cell = row.cells[0];
        cell.replaceChildren(make("button", { type: "button", "aria-expanded": "false" }, cell.textContent));
      }
      body.addEventListener("click", (event) => {
        const button = event.target.closest("td.id button");
        if (button) unfold(button.closest("tr"), button.getAttribute("aria-expanded") !== "true");
      });
    }
    show();
    const unhide = (all) => { limit = all ? rows.length : step(); show(); };
    return { table, rows, clear, unhide };
  }

  const tables = [...document.querySelectorAll("table.data")].map(prepare);

  // A link to a row shows it, whatever was filtered away, and unfolds a cell.
  function aim() {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    document.querySelectorAll("tr.aim").forEach((other) => other.classList.remove("aim"));
    if (!(row instanceof HTMLTableRowElement)) return;
    const owner = tables.find(({ table }) => table.contains(row));
    if (row.hidden) owner.clear();
    row.hidden = false;
    row.classList.add("aim");
    if (owner.table.classList.contains("cells")) unfold(row, true);
    row.scrollIntoView({ block: "center" });
    (row.querySelector("button, a") || row).focus({ preventScroll: true });
  }
  addEventListener("hashchange", aim);
  if (location.hash) aim();

  // On paper everything is unfolded; of thousands of cells only those that are open, the rest stands in cells.csv.
  const most = 400;
  let opened = [];
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((one) => { one.open = true; opened.push(() => { one.open = false; }); });
    for (const one of tables) {
      one.unhide(true);
      opened.push(() => one.unhide(false));
    }
    const table = tables.find((one) => one.table.classList.contains("cells"));
    const rows = table ? table.rows.filter((row) => !row.hidden) : [];
    if (rows.length > most) return;
    rows.filter((row) => !row.nextElementSibling?.classList.contains("more")).forEach((row) => {
      unfold(row, true);
      opened.push(() => unfold(row, false));
    });
  });
  addEventListener("afterprint", () => { opened.forEach((undo) => undo()); opened = []; });
  document.documentElement.dataset.ready = "yes";
})();
