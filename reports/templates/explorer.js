// The explorer: the figures' rows on axes of one's choice. What is chosen stands in the page's address, after
// "#explore?". plotly takes some markup in the texts it draws, so what comes from the run is escaped for it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const section = document.getElementById("explore");
  const plot = document.getElementById("ex-plot");
  const form = document.getElementById("ex-form");
  const series = document.getElementById("ex-series");
  const note = document.getElementById("ex-note");
  const SIZES = ["seq_len", "batch", "heads", "head_dim", "world_size"];
  const NAMED = ["attention", "backend", "form"]; // what a panel and a line are told by
  const MOST_PANELS = 12;
  const MOST_LINES = 60;

  // ---- what can be drawn

  const scaled = (by) => (p, i) => by(i) && p.map((v) => v * by(i));
  // A rate falls as the time grows, so the interval's ends change places.
  const rate = (of, unit) => (p, i) => of[i] && [p[0], p[2] ?? p[0], p[1] ?? p[0]].map((ms) => of[i] / (ms * unit));
  const { tokens, operations, bytes, floor, roofline } = data.work;
  const QUANTITIES = {
    wall: ["wall time (ms)", "wall", null],
    device: ["device time (ms)", "device", null],
    "tokens-wall": ["tokens/s, wall clock", "wall", rate(tokens, 1e-3)],
    "tokens-device": ["tokens/s, device clock", "device", rate(tokens, 1e-3)],
    "tflops-wall": ["TFLOP/s, wall clock", "wall", rate(operations, 1e9)],
    "tflops-device": ["TFLOP/s, device clock", "device", rate(operations, 1e9)],
    "gbs-wall": ["GB/s, wall clock", "wall", rate(bytes, 1e6)],
    "gbs-device": ["GB/s, device clock", "device", rate(bytes, 1e6)],
    floor: ["device time over the floor", "device", scaled((i) => floor[i] && 1 / floor[i])],
    "roofline-wall": ["share of the roofline (%), wall clock", "wall", rate(roofline, 1e-2)],
    "roofline-device": ["share of the roofline (%), device clock", "device", rate(roofline, 1e-2)],
    memory: ["peak memory (MiB)", "memory", null],
    error: ["relative error", "error", null],
  };

  function valueOf(quantity, i) {
    const [, source, make] = QUANTITIES[quantity];
    const point = data.points[source][i];
    return point && (make ? make(point, i) : point);
  }

  const dims = data.dims;
  const all = [...Array(data.count).keys()];
  const has = Object.keys(QUANTITIES).filter((q) => all.some((i) => valueOf(q, i)));
  if (!has.length) return;
  const label = (name, i) => dims[name].values[dims[name].rows[i]];
  const varied = Object.keys(dims).filter((name) => dims[name].values.length > 1);
  const sizes = SIZES.filter((name) => varied.includes(name));
  const xs = sizes.length ? sizes : ["seq_len"];
  const facets = varied.filter((name) => !["backend", "form"].includes(name));

  // ---- what is chosen

  const DEFAULTS = start();
  let state = structuredClone(DEFAULTS);

  // The longest sweep of the first setting that has points: other sizes stay at their most frequent value.
  function start() {
    const y = has.includes("device") ? "device" : has[0];
    const x = xs.reduce((a, b) => (dims[b].values.length > dims[a].values.length ? b : a));
    const chosen = { y, x, facet: facets.includes("attention") ? "attention" : "", filters: {} };
    let left = all.filter((i) => valueOf(y, i));
    for (const name of varied) {
      if (NAMED.includes(name) || name === x) continue;
      const counts = new Map();
      for (const i of left) counts.set(label(name, i), (counts.get(label(name, i)) ?? 0) + 1);
      const first = SIZES.includes(name) || name === "other sizes" ? most(counts) : [...counts.keys()][0];
      chosen.filters[name] = String(first);
      left = left.filter((i) => label(name, i) === first);
    }
    return { ...chosen, logx: true, logy: true, bars: true, off: [], zoom: {} };
  }

  function most(counts) {
    return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  }

  const SHORT = { y: "y", x: "x", facet: "panels", logx: "logx", logy: "logy", bars: "intervals" };

  // Only what differs from the start is in the address.
  function toFragment() {
    const said = new URLSearchParams();
    for (const [key, name] of Object.entries(SHORT)) {
      const value = state[key];
      if (value !== DEFAULTS[key]) said.set(name, typeof value === "boolean" ? Number(value) : value);
    }
    for (const name of varied) {
      const value = state.filters[name] ?? "";
      if (value !== (DEFAULTS.filters[name] ?? "")) said.set(`only.${name}`, value);
    }
    for (const name of state.off) said.append("off", name);
    for (const axis of ["x", "y"]) {
      if (state.zoom[axis]) said.set(`zoom.${axis}`, state.zoom[axis].map((v) => Number(v.toPrecision(6))).join(" "));
    }
    return `#explore?${said}`;
  }

  // Whatever the address says, what comes of it is a view of this page: what it does not know is left out.
  function fromFragment(fragment) {
    const said = new URLSearchParams(fragment.slice("#explore?".length));
    const read = structuredClone(DEFAULTS);
    if (has.includes(said.get("y"))) read.y = said.get("y");
    if (xs.includes(said.get("x"))) read.x = said.get("x");
    if (said.has("panels") && ["", ...facets].includes(said.get("panels"))) read.facet = said.get("panels");
    for (const key of ["logx", "logy", "bars"]) {
      if (said.has(SHORT[key])) read[key] = said.get(SHORT[key]) !== "0";
    }
    for (const name of varied) {
      const value = said.get(`only.${name}`);
      if (value === "") delete read.filters[name];
      else if (value !== null && dims[name].values.map(String).includes(value)) read.filters[name] = value;
    }
    read.off = said.getAll("off");
    for (const axis of ["x", "y"]) {
      const range = (said.get(`zoom.${axis}`) ?? "").split(" ").map(Number);
      if (range.length === 2 && range.every(Number.isFinite) && range[0] !== range[1]) read.zoom[axis] = range;
    }
    return read;
  }

  function changed() {
    history.replaceState(null, "", toFragment());
    draw();
  }

  // ---- the controls

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function control(text, options, get, set) {
    const id = `ex-choice-${form.childElementCount}`;
    const select = element("select", { id }, ...options.map(([value, shown]) => element("option", { value }, shown)));
    select.addEventListener("change", () => {
      set(select.value);
      changed();
    });
    form.append(element("div", {}, element("label", { htmlFor: id }, text), select));
    return () => {
      select.value = get();
    };
  }

  function check(text, key) {
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => {
      state[key] = box.checked;
      if (key === "logx") delete state.zoom.x;
      if (key === "logy") delete state.zoom.y;
      changed();
    });
    form.append(element("label", {}, box, ` ${text}`));
    return () => {
      box.checked = state[key];
    };
  }

  const named = (names) => names.map((name) => [name, name]);
  const refreshers = [
    control("Show", has.map((q) => [q, QUANTITIES[q][0]]), () => state.y, (value) => {
      state.y = value;
      delete state.zoom.y;
    }),
    control("against", named(xs), () => state.x, chooseX),
    control("Panels by", [["", "nothing"], ...named(facets)], () => state.facet, (value) => {
      state.facet = value;
      delete state.filters[value];
    }),
    ...varied.map((name) =>
      control(
        name,
        [["", "all"], ...named(dims[name].values.map(String))],
        () => state.filters[name] ?? "",
        (value) => {
          if (value) state.filters[name] = value;
          else delete state.filters[name];
        },
      ),
    ),
    check("log x", "logx"),
    check("log y", "logy"),
    check("intervals", "bars"),
  ];
  const reset = element("button", { type: "button" }, "Start again");
  reset.addEventListener("click", () => {
    state = structuredClone(DEFAULTS);
    changed();
  });
  form.append(reset);
  form.addEventListener("submit", (event) => event.preventDefault());

  // The axis is free, and the one before it is held at the value that leaves the most to see.
  function chooseX(value) {
    const before = state.x;
    state.x = value;
    delete state.filters[value];
    delete state.zoom.x;
    if (before === value || !varied.includes(before)) return;
    const reach = new Map();
    for (const i of fitting()) {
      if (!valueOf(state.y, i)) continue;
      const key = label(before, i);
      if (!reach.has(key)) reach.set(key, new Set());
      reach.get(key).add(label(value, i));
    }
    if (reach.size) state.filters[before] = String(most([...reach].map(([key, found]) => [key, found.size])));
  }

  // ---- the lines

  function fitting() {
    const wanted = Object.entries(state.filters);
    return all.filter((i) => wanted.every(([name, value]) => String(label(name, i)) === value));
  }

  // A line is a backend's form; and where more than the axis and the panel differs, a setting of that too.
  function gather() {
    const drawn = fitting().filter((i) => valueOf(state.y, i));
    const differs = varied.filter(
      (name) =>
        !["backend", "form", state.x, state.facet].includes(name) &&
        new Set(drawn.map((i) => dims[name].rows[i])).size > 1,
    );
    const lines = new Map();
    for (const i of drawn) {
      const parts = [`${label("backend", i)}/${label("form", i)}`];
      for (const name of differs) parts.push(SIZES.includes(name) ? `${name} ${label(name, i)}` : label(name, i));
      const name = parts.join(", ");
      if (!lines.has(name)) lines.set(name, { name, at: i, variant: parts.slice(1).join(), rows: [] });
      lines.get(name).rows.push(i);
    }
    const found = [...lines.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    // Lines of one backend and form differ in width alone where a setting tells them apart.
    const variants = [...new Set(found.map((line) => line.variant))];
    for (const line of found) line.width = 1.6 + 1.1 * (variants.indexOf(line.variant) % 4);
    return { lines: found, count: drawn.length };
  }

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const lookOf = (i) => data.looks[label("backend", i)] ?? { color: "--ink", marker: "circle" };
  const dashOf = (i) => data.dashes[label("form", i)] ?? "";

  // plotly reads markup in what it draws: these signs alone begin any.
  function plain(text) {
    return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  const digits = (v) => String(Number(v.toPrecision(4)));

  function told(line, i, [y, low, high]) {
    const parts = [`<b>${plain(line.name)}</b>`, `${plain(label("attention", i))}, ${state.x} ${label(state.x, i)}`];
    const interval = low === undefined || low === high ? "" : ` (95%: ${digits(low)} to ${digits(high)})`;
    parts.push(`${QUANTITIES[state.y][0]}: ${digits(y)}${interval}`);
    if (state.y === "error" && data.tolerance[i]) parts.push(`tolerance ${digits(data.tolerance[i])}`);
    if (wrong.has(i)) parts.push("wrong: in no ranking");
    return parts.join("<br>");
  }

  const wrong = new Set(data.wrong);

  function trace(line, rows, number) {
    const sorted = [...rows].sort((a, b) => label(state.x, a) - label(state.x, b));
    const points = sorted.map((i) => valueOf(state.y, i));
    const look = lookOf(line.at);
    const suffix = number ? String(number + 1) : "";
    return {
      type: "scatter",
      mode: "lines+markers",
      x: sorted.map((i) => label(state.x, i)),
      y: points.map((p) => p[0]),
      customdata: sorted,
      xaxis: `x${suffix}`,
      yaxis: `y${suffix}`,
      hoverinfo: "text",
      hovertext: sorted.map((i, at) => told(line, i, points[at])),
      line: {
        color: color(look.color),
        width: line.width,
        dash: dashOf(line.at) ? dashOf(line.at).split(" ").map((d) => `${d}px`).join(",") : "solid",
      },
      marker: { symbol: sorted.map((i) => (wrong.has(i) ? "x-thin-open" : look.marker)), size: 7, color: color(look.color) },
      error_y: {
        visible: state.bars && points.some((p) => p.length > 1),
        type: "data",
        symmetric: false,
        array: points.map((p) => (p[2] ?? p[0]) - p[0]),
        arrayminus: points.map((p) => p[0] - (p[1] ?? p[0])),
        thickness: 1.2,
        width: 3,
      },
    };
  }

  function axis(which, values, log) {
    const unit = state.y.split("-")[0];
    const made = {
      type: log ? "log" : "linear",
      gridcolor: color("--line"),
      linecolor: color("--muted"),
      zeroline: false,
      automargin: true,
      exponentformat: { tokens: "SI", error: "power" }[unit] ?? "none",
      fixedrange: false,
    };
    if (state.zoom[which]) made.range = state.zoom[which];
    // More of them and plotly has all ten of a decade, one over the other.
    if (which === "y" && log) made.nticks = 4;
    // Else plotly writes a lone 2 and 5 between two decades.
    if (which === "y" && log && unit !== "error") made.tickformat = unit === "tokens" ? "~s" : "~r";
    if (which === "x" && log) {
      const ticks = thinned([...new Set(values)].sort((a, b) => a - b));
      made.tickvals = ticks;
      made.ticktext = ticks.map((v) => (v >= 16384 && v % 1024 === 0 ? `${v / 1024}Ki` : String(v)));
    }
    return made;
  }

  // At most seven ticks, far enough apart on a log axis for their labels, the last among them.
  function thinned(values) {
    const gap = Math.log(values.at(-1) / values[0]) / 7;
    const kept = [values.at(-1)];
    for (const v of values.slice(0, -1).reverse()) {
      if (Math.log(kept.at(-1) / v) >= gap * 0.99) kept.push(v);
    }
    return kept.reverse();
  }

  function panels(lines) {
    if (!state.facet) return [["", lines.map((line) => [line, line.rows])]];
    return dims[state.facet].values
      .map((value) => [
        String(value),
        lines.map((line) => [line, line.rows.filter((i) => label(state.facet, i) === value)]).filter((p) => p[1].length),
      ])
      .filter((panel) => panel[1].length);
  }

  function layout(shown, values) {
    const columns = Math.min(shown.length, Math.max(1, Math.min(3, Math.floor(plot.clientWidth / 300))));
    const lines = Math.ceil(shown.length / columns);
    const height = lines * 330 + 50;
    const [gapX, gapY] = [0.05, 85 / height];
    const [w, h] = [(1 - gapX * (columns - 1)) / columns, (1 - gapY * (lines - 1)) / lines];
    const made = {
      height,
      margin: { l: 62, r: 12, t: 30, b: 46 },
      paper_bgcolor: color("--card"),
      plot_bgcolor: color("--card"),
      font: { family: 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif', size: 12, color: color("--ink") },
      hoverlabel: { bgcolor: color("--page"), bordercolor: color("--muted"), font: { color: color("--ink") }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--muted"), activecolor: color("--link") },
      showlegend: false,
      hovermode: "closest",
      dragmode: "zoom",
      annotations: [],
    };
    shown.forEach(([title], number) => {
      const [column, line] = [number % columns, Math.floor(number / columns)];
      const suffix = number ? String(number + 1) : "";
      const x = axis("x", values, state.logx);
      const y = axis("y", [], state.logy);
      const top = 1 - line * (h + gapY);
      x.domain = [column * (w + gapX), column * (w + gapX) + w];
      y.domain = [Math.max(0, top - h), top];
      x.anchor = `y${suffix}`;
      y.anchor = `x${suffix}`;
      if (number) [x.matches, y.matches] = ["x", "y"];
      if (number + columns >= shown.length) x.title = { text: state.x };
      if (column === 0) y.title = { text: QUANTITIES[state.y][0] };
      else y.showticklabels = false;
      made[`xaxis${suffix}`] = x;
      made[`yaxis${suffix}`] = y;
      if (title) {
        const place = { xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", x: x.domain[0], y: top };
        made.annotations.push({ text: `<b>${plain(title.slice(0, 40))}</b>`, showarrow: false, ...place });
      }
    });
    return made;
  }

  // The legend is a list of boxes: a keyboard reaches it, it wraps, and no name lies over the plot.
  function legend(lines) {
    for (const old of [...series.children].slice(1)) old.remove();
    for (const line of lines) {
      const box = element("input", { type: "checkbox", checked: !state.off.includes(line.name) });
      box.addEventListener("change", () => {
        state.off = state.off.filter((name) => name !== line.name);
        if (!box.checked) state.off.push(line.name);
        changed();
        again(line.name);
      });
      series.append(element("label", {}, box, sample(line), line.name));
    }
    if (lines.length < 2) return;
    for (const [text, off] of [["All", []], ["None", lines.map((line) => line.name)]]) {
      const button = element("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        state.off = off;
        changed();
        [...series.querySelectorAll("button")].find((b) => b.textContent === text)?.focus();
      });
      series.append(button);
    }
  }

  // The list was made anew; who used it by keyboard stays where they were.
  function again(name) {
    [...series.querySelectorAll("label")].find((l) => l.textContent === name)?.firstChild.focus();
  }

  function sample(line) {
    const NS = "http://www.w3.org/2000/svg";
    const look = lookOf(line.at);
    const svg = document.createElementNS(NS, "svg");
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("viewBox", "0 0 34 12");
    const path = document.createElementNS(NS, "path");
    path.setAttribute("d", "M0 6H34");
    path.setAttribute("stroke", `var(${look.color})`);
    path.setAttribute("stroke-width", line.width);
    path.setAttribute("stroke-dasharray", dashOf(line.at));
    svg.append(path);
    return svg;
  }

  // ---- drawing

  let library = null;

  // Unpacked when it is first needed. The policy of the page knows the script by its hash.
  function load() {
    library ??= (async () => {
      const text = await window.mtbenchUnpack("plotly-packed");
      document.head.append(element("script", { textContent: text }));
      if (!window.Plotly) throw new Error("the plotting library did not start");
    })();
    return library;
  }

  let latest = 0;

  async function draw() {
    for (const refresh of refreshers) refresh();
    const turn = ++latest;
    const { lines, count } = gather();
    const kept = lines.slice(0, MOST_LINES);
    legend(kept);
    const on = kept.filter((line) => !state.off.includes(line.name));
    const found = panels(on);
    const shown = found.slice(0, MOST_PANELS);
    note.textContent = remarks(lines, count, found, on);
    plot.hidden = !shown.length;
    try {
      await load();
    } catch (error) {
      note.textContent = `The plot cannot be drawn here: ${error.message}. The figures above show the same rows.`;
      return;
    }
    if (turn !== latest) return; // a later choice is being drawn
    if (!shown.length) return;
    const traces = shown.flatMap(([, members], number) => members.map(([line, rows]) => trace(line, rows, number)));
    const values = traces.flatMap((t) => t.x);
    const options = {
      responsive: true,
      displaylogo: false,
      // These alone: a newer plotly has buttons that send the data to a server.
      modeBarButtons: [["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
      showSendToCloud: false,
      plotlyServerURL: "",
    };
    await window.Plotly.react(plot, traces, layout(shown, values), options);
    if (!plot.dataset.drawn) listen();
    plot.dataset.drawn = String(turn);
  }

  function remarks(lines, count, found, on) {
    const parts = [];
    if (!count) parts.push("No row has this value with what is chosen: set one of the choices to “all”.");
    else if (!on.length) parts.push("All lines are off.");
    else parts.push(`${count} of ${data.count} rows. A click on a point opens its row in the table.`);
    if (lines.length > MOST_LINES) parts.push(`The first ${MOST_LINES} of ${lines.length} lines: choose among them above.`);
    if (found.length > MOST_PANELS) parts.push(`The first ${MOST_PANELS} of ${found.length} panels.`);
    return parts.join(" ");
  }

  function listen() {
    plot.on("plotly_click", (event) => {
      document.dispatchEvent(new CustomEvent("open-row", { detail: event.points[0].customdata }));
    });
    plot.on("plotly_relayout", (event) => {
      let moved = false;
      for (const [key, value] of Object.entries(event)) {
        const match = /^([xy])axis\d*\.(range\[0\]|range|autorange)$/.exec(key);
        if (!match) continue;
        moved = true;
        if (match[2] === "autorange") delete state.zoom[match[1]];
        else if (match[2] === "range") state.zoom[match[1]] = [...value];
        else state.zoom[match[1]] = [value, event[key.replace("[0]", "[1]")]];
      }
      if (moved) history.replaceState(null, "", toFragment());
    });
  }

  // ---- at the start

  section.hidden = false;
  document.getElementById("to-explore").hidden = false;
  const linked = () => location.hash.startsWith("#explore?");

  function follow() {
    if (!linked()) return;
    state = fromFragment(location.hash);
    draw();
    section.scrollIntoView();
  }

  addEventListener("hashchange", follow);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => library && draw());
  for (const refresh of refreshers) refresh();
  if (linked()) follow();
  else {
    const watcher = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        watcher.disconnect();
        if (!library) draw();
      },
      { rootMargin: "400px" },
    );
    watcher.observe(section);
  }
})();
