// Sorting and filtering of the table of all rows. Without it the table is there, whole and in order.
"use strict";
(() => {
  const table = document.getElementById("all");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = document.getElementById("words");
  const status = document.getElementById("status");
  const shown = document.getElementById("shown");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const row of rows) {
      const fits =
        (!status.value || row.dataset.status === status.value) &&
        wanted.every((word) => texts.get(row).includes(word));
      row.hidden = !fits;
      visible += fits;
    }
    shown.textContent = `${visible} of ${rows.length} rows`;
  }

  // Numbers before texts, empty cells last in either direction.
  function compare(a, b, up) {
    const [x, y] = [a.dataset.v, b.dataset.v];
    if (x !== undefined && y !== undefined) {
      const [p, q] = [x, y].map((v) => (v === "inf" ? Infinity : Number(v)));
      return (p === q ? 0 : p < q ? -1 : 1) * up;
    }
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;
    const [s, t] = [a.textContent.trim(), b.textContent.trim()];
    if (!s || !t) return !s && !t ? 0 : s ? -1 : 1;
    return s.localeCompare(t) * up;
  }

  function sort(head, column) {
    const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    rows.sort((a, b) => compare(a.cells[column], b.cells[column], up));
    body.append(...rows);
  }

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, column));
    head.append(button);
  });
  const form = document.getElementById("filter");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", filter);
  status.addEventListener("change", filter);
  filter();
})();
