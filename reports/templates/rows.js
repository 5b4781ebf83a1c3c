// The table of all rows: sorting, filtering, saving as CSV, and what a row opens to. Without it the table is
// there, whole and in order. What comes from the run is set as text, never as markup.
"use strict";
(() => {
  const table = document.getElementById("all");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const form = document.getElementById("filter");
  const words = document.getElementById("words");
  const choices = [...form.querySelectorAll("select")];
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  const rest = document.getElementById("rest");
  const places = new Map(heads.map((head, at) => [head.textContent, at]));
  const numeric = heads.map((head) => head.classList.contains("num"));
  // Laying out a table of thousands of rows takes seconds: so many are in it at a time.
  const PAGE = body.rows.length;
  let limit = PAGE;

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // ---- the rows, whether they stand in the table or not: at is a row's place, under the row of its details

  const opener = element("button", "▸", "open");
  opener.type = "button";
  opener.setAttribute("aria-expanded", "false");
  opener.setAttribute("aria-label", "details of this row");

  function record(at, cells, row) {
    const words = cells.map((cell) => `${cell.text} ${cell.note}`).join(" ").toLowerCase();
    return { at, cells, row, words, under: null };
  }

  function standing(row, at) {
    const cells = [...row.cells].map((cell) => {
      const note = cell.querySelector("small")?.textContent ?? "";
      const text = cell.textContent.slice(0, cell.textContent.length - note.length).trim();
      return { text, note, value: cell.dataset.v };
    });
    row.cells[0].prepend(opener.cloneNode(true));
    row.dataset.row = at;
    return record(at, cells, row);
  }

  function unpacked(cells, at) {
    const read = cells.map((cell) => {
      const [text, note, value, href] = typeof cell === "string" ? [cell, ""] : cell;
      return { text, note, value: value ?? undefined, href };
    });
    return record(PAGE + at, read, null);
  }

  function rowOf(one) {
    if (one.row) return one.row;
    one.row = element("tr");
    one.row.dataset.row = one.at;
    one.cells.forEach((cell, column) => {
      const made = element("td", undefined, numeric[column] ? "num" : "");
      if (column === places.get("status")) made.append(element("span", cell.text, `status ${badges[cell.text] ?? "plain"}`));
      else if (cell.href) made.append(Object.assign(element("a", cell.text), { href: cell.href }));
      else made.textContent = cell.text;
      if (cell.note) made.append(element("small", cell.note));
      one.row.append(made);
    });
    one.row.cells[0].prepend(opener.cloneNode(true));
    return one.row;
  }

  const badges = JSON.parse(table.dataset.badges);
  const records = [...body.rows].map(standing);
  let matching = records;

  // ---- what is shown

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const exact = choices.filter((c) => c.value).map((c) => [places.get(c.dataset.column), c.value]);
    matching = records.filter(
      (one) =>
        exact.every(([at, value]) => one.cells[at].text === value) && wanted.every((word) => one.words.includes(word)),
    );
    show();
  }

  function show() {
    const here = matching.slice(0, limit);
    body.replaceChildren(...here.flatMap((one) => (one.under ? [rowOf(one), one.under] : [rowOf(one)])));
    shown.textContent = `${matching.length} of ${records.length} rows`;
    const button = more.querySelector("button");
    more.hidden = here.length === matching.length;
    more.firstChild.textContent = `The first ${here.length} of ${matching.length} rows. `;
    button.hidden = false;
  }

  // Numbers before texts, empty cells last in either direction.
  function compare(a, b, up) {
    if (typeof a === "number" && typeof b === "number") return (a === b ? 0 : a < b ? -1 : 1) * up;
    if (typeof a === "number" || typeof b === "number") return typeof a === "number" ? -1 : 1;
    if (!a || !b) return !a && !b ? 0 : a ? -1 : 1;
    return a.localeCompare(b) * up;
  }

  function keyOf(cell) {
    if (cell.value === undefined) return cell.text;
    return cell.value === "inf" ? Infinity : Number(cell.value);
  }

  function sort(head, column) {
    const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    const keys = new Map(records.map((one) => [one, keyOf(one.cells[column])]));
    records.sort((a, b) => compare(keys.get(a), keys.get(b), up));
    filter();
  }

  // What a spreadsheet would run as a formula has an apostrophe before it, as in measurements.csv.
  function csvCell(value) {
    const text = String(value);
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function save() {
    const lines = [heads.map((h) => h.textContent + (h.dataset.unit ? ` (${h.dataset.unit})` : ""))];
    for (const one of matching) lines.push(one.cells.map((cell) => cell.value ?? cell.text));
    const text = lines.map((line) => line.map(csvCell).join(",") + "\n").join("");
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "rows.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // ---- what a row opens to

  let details = null;
  const NS = "http://www.w3.org/2000/svg";

  function drawn(parent, name, attributes, text) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function milliseconds(ms) {
    if (ms === null) return "–";
    const [value, unit] = ms < 1 ? [ms * 1000, "µs"] : ms < 1000 ? [ms, "ms"] : [ms / 1000, "s"];
    return `${Number(value.toPrecision(4))} ${unit}`;
  }

  // A dot a sample, a strip a launch; the bar is the interval and the line the median.
  function strips(clock, found) {
    const block = element("div");
    const kept = found.launches.flat().filter((v) => v !== null);
    const some = kept.length < found.taken ? `, ${kept.length} of them shown` : "";
    block.append(element("h3", `${clock} clock: ${found.taken} samples${some}`));
    if (!kept.length) return block;
    const [low, high] = [Math.min(...kept), Math.max(...kept)];
    const height = 26;
    const bottom = found.launches.length * height + 4;
    const x = (v) => 8 + (high > low ? ((v - low) / (high - low)) * 384 : 192);
    const svg = drawn(block, "svg", { viewBox: `0 0 400 ${bottom + 20}`, role: "img" });
    const told = `${clock} clock: median ${milliseconds(found.median)}, from ${milliseconds(low)} to ${milliseconds(high)}`;
    svg.setAttribute("aria-label", told);
    const [from, to] = found.interval;
    if (from !== null && to !== null && found.median !== null) {
      drawn(svg, "rect", { x: x(from), y: 0, width: Math.max(1, x(to) - x(from)), height: bottom, fill: "var(--line)" });
      drawn(svg, "path", { d: `M${x(found.median)} 0V${bottom}`, stroke: "var(--ink)", "stroke-width": 1.5 });
    }
    found.launches.forEach((launch, number) => {
      launch.forEach((v, at) => {
        // Spread over the strip's height by a fixed rule, so that equal samples stay apart.
        const y = number * height + 5 + ((at * 7) % 17);
        if (v !== null) drawn(svg, "circle", { cx: x(v), cy: y, r: 2.4, fill: "var(--blue)", "fill-opacity": 0.55 });
      });
    });
    drawn(svg, "text", { x: 8, y: bottom + 14 }, milliseconds(low));
    drawn(svg, "text", { x: 392, y: bottom + 14, "text-anchor": "end" }, milliseconds(high));
    const middle = `median ${milliseconds(found.median)}`;
    drawn(svg, "text", { x: 200, y: bottom + 14, "text-anchor": "middle" }, middle);
    return block;
  }

  async function fill(cell, at) {
    details ??= unpack("details-data").then(JSON.parse);
    const { samples, rows, blocks } = await details;
    const inside = element("div", undefined, "opened");
    for (const clock of ["wall", "device"]) {
      const found = samples[clock][at];
      if (found) inside.append(strips(clock, found));
    }
    for (const number of rows[at]) {
      const [title, lines] = blocks[number];
      const block = element("div");
      const list = element("dl");
      for (const [key, value] of lines) list.append(element("dt", key), element("dd", value));
      block.append(element("h3", title), list);
      inside.append(block);
    }
    cell.append(inside);
  }

  function toggle(one, wanted) {
    const button = one.row.querySelector("button.open");
    const open = wanted ?? !one.under;
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "▾" : "▸";
    if (!open) {
      one.under?.remove();
      one.under = null;
    } else if (!one.under) {
      one.under = element("tr", undefined, "detail");
      const cell = element("td");
      cell.colSpan = heads.length;
      fill(cell, one.at);
      one.under.append(cell);
      one.row.after(one.under);
    }
  }

  const unpack = (id) => window.mtbenchUnpack(id);

  // ---- at the start

  heads.forEach((head, column) => {
    const button = element("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, column));
    head.append(button);
  });
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    const at = button && Number(button.closest("tr").dataset.row);
    if (button) toggle(records.find((one) => one.at === at));
  });
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", filter);
  for (const choice of choices) choice.addEventListener("change", filter);
  document.getElementById("export").addEventListener("click", save);
  more.querySelector("button").addEventListener("click", () => {
    limit += PAGE;
    show();
  });
  const whole = rest
    ? unpack("rest").then((text) => {
        records.push(...JSON.parse(text).map(unpacked));
        filter();
      })
    : Promise.resolve();
  shown.textContent = `${records.length} of ${records.length} rows`;

  // The explorer leads to the row of a point, which may be beyond what is shown.
  document.addEventListener("open-row", async (event) => {
    await whole;
    const one = records.find((r) => r.at === event.detail);
    if (!one) return;
    if (!matching.includes(one)) {
      words.value = "";
      for (const choice of choices) choice.value = "";
      filter();
    }
    limit = Math.max(limit, matching.indexOf(one) + 1);
    show();
    toggle(one, true);
    one.row.scrollIntoView({ block: "center" });
    one.row.querySelector("button.open").focus({ preventScroll: true });
  });
})();
