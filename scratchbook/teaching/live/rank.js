// A matrix, and the best matrix of a lower rank: how much is left? Chapter: chapters/08_lora.ipynb
// The arithmetic is pure and is tested against torch; mount() below only draws it.
(function (root) {
  "use strict";

  // Singular values and vectors by one-sided Jacobi rotations: turn pairs of columns until all are
  // at right angles. `matrix` is a list of rows, no fewer than it has columns.
  // matrix[i][j] = sum over k of u[k][i] * s[k] * v[k][j], with s falling.
  function svd(matrix) {
    const [rows, columns] = [matrix.length, matrix[0].length];
    if (rows < columns) throw new Error(`${rows} rows are fewer than ${columns} columns: transpose it`);
    const a = Array.from({ length: columns }, (_, j) => matrix.map((row) => row[j]));
    const v = Array.from({ length: columns }, (_, j) =>
      Array.from({ length: columns }, (_, i) => (i === j ? 1 : 0)));
    for (let sweep = 0, turned = true; turned && sweep < 60; sweep++) {
      turned = false;
      for (let p = 0; p < columns; p++) {
        for (let q = p + 1; q < columns; q++) turned = rotate(a, v, p, q) || turned;
      }
    }
    const parts = a.map((column, j) => ({ s: Math.sqrt(dot(column, column)), column, right: v[j] }));
    parts.sort((one, two) => two.s - one.s);
    return { u: parts.map(({ s, column }) => column.map((x) => (s > 0 ? x / s : 0))),
      s: parts.map(({ s }) => s), v: parts.map(({ right }) => right) };
  }

  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);

  // Turn columns p and q to a right angle; false when they have it.
  function rotate(a, v, p, q) {
    const [alpha, beta, gamma] = [dot(a[p], a[p]), dot(a[q], a[q]), dot(a[p], a[q])];
    if (Math.abs(gamma) <= 1e-14 * Math.sqrt(alpha * beta)) return false;
    const zeta = (beta - alpha) / (2 * gamma);
    const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
    const cosine = 1 / Math.sqrt(1 + t * t);
    const sine = cosine * t;
    for (const pair of [a, v]) {
      const [x, y] = [pair[p], pair[q]];
      pair[p] = x.map((value, i) => cosine * value - sine * y[i]);
      pair[q] = x.map((value, i) => sine * value + cosine * y[i]);
    }
    return true;
  }

  // The best approximation of the given rank (Eckart and Young): the largest parts of the sum.
  function approximate({ u, s, v }, rank) {
    return u[0].map((_, i) => v[0].map((_, j) => {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += u[k][i] * s[k] * v[k][j];
      return sum;
    }));
  }

  // The share of the matrix's squared size that the first `rank` parts hold.
  function energy(s, rank) {
    const all = s.reduce((sum, value) => sum + value * value, 0);
    return all === 0 ? 1 : s.slice(0, rank).reduce((sum, value) => sum + value * value, 0) / all;
  }

  const api = { svd, approximate, energy };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-rank svg { display: block; width: 100%; touch-action: auto; }
    .sb-rank text { fill: var(--sb-muted); font: 11px system-ui, sans-serif; }
    .sb-rank label { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; min-height: 30px; }
    .sb-rank input[type=range] { width: 190px; }
    .sb-rank output { min-width: 2em; font-variant-numeric: tabular-nums; }
    .sb-rank figure { margin: 0; flex: 1 1 90px; max-width: 250px; align-self: start; }
    .sb-rank > svg { max-width: 560px; }
    .sb-rank figcaption { color: var(--sb-muted); font-size: 13px; }
    .sb-rank p { margin: 6px 0 0; }`;

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const names = Object.keys(data.matrices);
    const ui = { el, element, data, parts: {}, state: { name: names[0], rank: 1 } };
    ui.which = el("select", { id: "sb-rank-which", onchange: () => {
      ui.state.name = ui.which.value;
      ui.state.rank = Math.min(ui.state.rank, data.matrices[ui.state.name][0].length);
      draw(ui);
    } }, ...names.map((name) => el("option", { value: name }, name)));
    ui.slider = el("input", { type: "range", id: "sb-rank-rank", min: 0, step: 1,
      oninput: () => { ui.state.rank = Number(ui.slider.value); draw(ui); } });
    ui.shown = el("output", { for: "sb-rank-rank" });
    ui.maps = ["the matrix", "rank", "what is missing"].map((title) => {
      const picture = el("svg", { role: "img", "aria-label": title });
      const caption = el("figcaption", {}, title);
      return { picture, caption, figure: el("figure", {}, picture, caption) };
    });
    ui.bars = el("svg", { viewBox: "0 0 400 112", role: "img", "aria-label": "Singular values" });
    ui.result = el("p", { "aria-live": "polite" });
    element.replaceChildren(el("div", { class: "sb-rank" }, el("style", {}, STYLE),
      el("div", { class: "sb-row" }, el("label", { for: "sb-rank-which" }, "matrix", ui.which),
        el("label", { for: "sb-rank-rank" }, "rank", ui.slider, ui.shown)),
      el("div", { class: "sb-row" }, ...ui.maps.map((map) => map.figure)), ui.bars, ui.result));
    draw(ui);
  }

  function draw(ui) {
    const { name, rank } = ui.state;
    const matrix = ui.data.matrices[name];
    const [rows, columns] = [matrix.length, matrix[0].length];
    const parts = (ui.parts[name] = ui.parts[name] || svd(matrix));
    const near = approximate(parts, rank);
    const most = Math.max(...matrix.flat().map(Math.abs)) || 1;
    drawMap(ui, ui.maps[0], matrix, most, `${name}: ${rows} by ${columns}`);
    drawMap(ui, ui.maps[1], near, most, `its best copy of rank ${rank}`);
    drawMap(ui, ui.maps[2], matrix.map((row, i) => row.map((x, j) => x - near[i][j])), most, "what is missing");
    drawBars(ui, parts.s, rank);
    ui.which.value = name;
    ui.slider.max = columns;
    ui.slider.value = rank;
    ui.shown.textContent = rank;
    ui.slider.setAttribute("aria-valuetext", `rank ${rank}`);
    const kept = 100 * energy(parts.s, rank);
    ui.result.textContent = `Rank ${rank} stores ${rank * (rows + columns)} numbers instead of ` +
      `${rows * columns} and holds ${kept.toFixed(1)} % of the matrix's squared size.`;
    ui.element.dataset.liveState = [name, rank, kept.toFixed(1)].join("/");
  }

  // Blue below zero, orange above, the page's paper at zero.
  function drawMap(ui, { picture, caption }, matrix, most, text) {
    const cells = matrix.flatMap((row, i) => row.map((x, j) => ui.el("rect", { x: j, y: i, width: 1.03,
      height: 1.03, fill: x < 0 ? "var(--sb-1)" : "var(--sb-2)",
      "fill-opacity": Math.min(1, Math.abs(x) / most).toFixed(3) })));
    picture.setAttribute("viewBox", `0 0 ${matrix[0].length} ${matrix.length}`);
    picture.setAttribute("aria-label", text);
    picture.replaceChildren(...cells);
    caption.textContent = text;
  }

  function drawBars(ui, s, rank) {
    const width = 360 / s.length;
    const top = s[0] || 1;
    ui.bars.replaceChildren(ui.el("text", { x: 20, y: 11 }, "singular values; those that are kept are filled"),
      ...s.map((value, k) => ui.el("rect", { x: 20 + k * width, y: 108 - (88 * value) / top,
        width: Math.max(width - 1.5, 0.5), height: Math.max((88 * value) / top, 0.5),
        fill: k < rank ? "var(--sb-accent)" : "none", stroke: "var(--sb-muted)" })));
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.rank = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.rank;
})(typeof window === "undefined" ? globalThis : window);
