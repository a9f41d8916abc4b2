// The tiny model of chapter 00 with its weights rounded to fewer bits, measured on the spot.
// Chapter: chapters/07_compression.ipynb. Its arithmetic is pure and tested against torch; it runs
// the model of tiny_model.js, which has to be loaded before.
(function (root) {
  "use strict";

  const tiny = () => (root.Scratchbook && root.Scratchbook.tiny_model) || require("./tiny_model.js");

  // Halves go to the even neighbour, as torch rounds.
  function round(x) {
    const near = Math.round(x);
    return Math.abs(x % 1) === 0.5 && near % 2 !== 0 ? near - 1 : near;
  }

  // Symmetric rounding: each group of `group` neighbours in a row shares the scale that maps its
  // largest weight to the largest code. Returns the rounded weights, the codes and the scales.
  function quantize(weights, bits, group) {
    if (!Number.isInteger(bits) || bits < 2 || bits > 8) throw new Error(`bits=${bits}: take 2 to 8`);
    if (!(group >= 1) || weights.length % group) {
      throw new Error(`${weights.length} weights cannot be cut into groups of ${group}`);
    }
    const most = 2 ** (bits - 1) - 1;
    const values = new Float32Array(weights.length);
    const codes = new Int8Array(weights.length);
    const scales = new Float32Array(weights.length / group);
    for (let g = 0; g < scales.length; g++) {
      let largest = 0;
      for (let i = g * group; i < (g + 1) * group; i++) largest = Math.max(largest, Math.abs(weights[i]));
      scales[g] = largest / most;
      for (let i = g * group; i < (g + 1) * group; i++) {
        const code = scales[g] === 0 ? 0 : round(Math.fround(weights[i] / scales[g]));
        codes[i] = Math.max(-most, Math.min(most, code));
        values[i] = codes[i] * scales[g];
      }
    }
    return { values, codes, scales };
  }

  // How many neighbours share a scale: the whole matrix, one row of it, or a part of a row.
  function groupOf(shape, sharing) {
    const columns = shape[1];
    if (sharing === "matrix") return shape[0] * columns;
    if (sharing === "row") return columns;
    if (columns % sharing) throw new Error(`rows of ${columns} cannot be cut into groups of ${sharing}`);
    return Number(sharing);
  }

  // The model with every matrix rounded, and its size: packed codes and scales of two bytes.
  // 16 bits mean the weights as they are.
  function compress(model, shapes, bits, sharing) {
    const tensors = {};
    let bytes = 0;
    for (const [name, shape] of shapes) {
      const weights = model.tensors[name];
      if (bits === 16) {
        tensors[name] = weights;
        bytes += 2 * weights.length;
        continue;
      }
      const { values, scales } = quantize(weights, bits, groupOf(shape, sharing));
      tensors[name] = values;
      bytes += Math.ceil((weights.length * bits) / 8) + 2 * scales.length;
    }
    return { model: { ...model, tensors }, bytes };
  }

  // Bits per byte on ids that the model has not seen, each window read from its start; the first
  // letter of a window is given. `sizes[id]` is how many bytes a letter has.
  function bitsPerByte(model, ids, sizes) {
    let [bits, bytes] = [0, 0];
    for (let start = 0; start + 1 < ids.length; start += model.context) {
      const window = ids.slice(start, start + model.context + 1);
      tiny().forward(model, window.slice(0, -1)).forEach((logits, place) => {
        const next = window[place + 1];
        bits -= Math.log2(tiny().softmax(logits)[next]);
        bytes += sizes[next];
      });
    }
    return bits / bytes;
  }

  // What the model writes when it always takes the likeliest letter.
  function greedy(model, prompt, count) {
    const cache = tiny().newCache(model);
    let logits = null;
    for (const id of prompt) logits = tiny().step(model, cache, id);
    const written = [];
    for (let i = 0; i < count; i++) {
      const best = logits.reduce((top, value, id) => (value > logits[top] ? id : top), 0);
      written.push(best);
      logits = tiny().step(model, cache, best);
    }
    return written;
  }

  const api = { round, quantize, groupOf, compress, bitsPerByte, greedy };

  // ---------------------------------------------------------------------------------- drawing

  const WIDTHS = [2, 3, 4, 5, 6, 7, 8, 16];
  const SHARINGS = { matrix: "a whole matrix", row: "a row", 16: "16 weights" };
  const COLOURS = { matrix: "var(--sb-1)", row: "var(--sb-2)", 16: "var(--sb-3)" };
  const [LEFT, RIGHT, TOP, BOTTOM] = [40, 392, 10, 170];
  const STYLE = `
    .sb-bits svg { display: block; width: 100%; max-width: 560px; touch-action: auto; }
    .sb-bits text { fill: var(--sb-muted); font: 11px system-ui, sans-serif; }
    .sb-bits label { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; min-height: 30px; }
    .sb-bits input[type=range] { width: 170px; }
    .sb-bits output { min-width: 2.2em; font-variant-numeric: tabular-nums; }
    .sb-bits p { margin: 6px 0 0; }
    .sb-bits .sb-text { white-space: pre-wrap; overflow-wrap: anywhere;
      font: 13px/1.4 ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace; }`;

  // The weights come with the data, or lie beside the page, too large to be written into it twice.
  function mount(element, data) {
    const weights = () => data.weights || root.Scratchbook.tinyModelWeights;
    if (weights()) return build(element, data, weights());
    const el = root.Scratchbook.el;
    const missing = () => element.append(el("p", { class: "sb-muted" },
      "The weights of this figure lie beside the built page; here they are missing."));
    document.head.append(el("script", { src: data.source, onerror: missing,
      onload: () => (weights() ? build(element, data, weights()) : missing()) }));
  }

  function build(element, data, weights) {
    const el = root.Scratchbook.el;
    const model = tiny().load(weights);
    const ui = {
      el, element, data, model, shapes: weights.shapes, found: new Map(),
      ids: tiny().encode(model, data.text), prompt: tiny().encode(model, data.prompt),
      sizes: model.letters.map((letter) => new TextEncoder().encode(letter).length),
      state: { width: WIDTHS.length - 1, sharing: "row" },
    };
    ui.bits = el("input", { type: "range", id: "sb-bits-width", min: 0, max: WIDTHS.length - 1, step: 1,
      oninput: () => { ui.state.width = Number(ui.bits.value); draw(ui); } });
    ui.shown = el("output", { for: "sb-bits-width" });
    ui.sharing = el("select", { id: "sb-bits-sharing",
      onchange: () => { ui.state.sharing = ui.sharing.value; draw(ui); } },
    ...Object.entries(SHARINGS).map(([value, text]) => el("option", { value }, text)));
    ui.plot = el("svg", { viewBox: "0 0 400 206", role: "img",
      "aria-label": "Bits per byte that were measured, by bits per weight" });
    ui.levels = el("svg", { viewBox: "0 0 400 74", role: "img" });
    ui.result = el("p", { "aria-live": "polite" });
    ui.text = el("p", { class: "sb-text" });
    element.replaceChildren(el("div", { class: "sb-bits" }, el("style", {}, STYLE),
      el("div", { class: "sb-row" },
        el("label", { for: "sb-bits-width" }, "bits per weight", ui.bits, ui.shown),
        el("label", { for: "sb-bits-sharing" }, "one scale for", ui.sharing)),
      ui.plot, ui.levels, ui.result, ui.text));
    draw(ui);
  }

  // Round and measure once for each setting; what was found stays in the picture.
  function measure(ui, bits, sharing) {
    const key = bits === 16 ? "16" : `${bits}/${sharing}`;
    if (!ui.found.has(key)) {
      const { model, bytes } = compress(ui.model, ui.shapes, bits, sharing);
      ui.found.set(key, { bits, sharing, bytes, model, score: bitsPerByte(model, ui.ids, ui.sizes),
        text: tiny().decode(model, greedy(model, ui.prompt, 90)) });
    }
    return ui.found.get(key);
  }

  function draw(ui) {
    const { state } = ui;
    const bits = WIDTHS[state.width];
    const full = measure(ui, 16, "row");
    const now = measure(ui, bits, state.sharing);
    ui.bits.value = state.width;
    ui.shown.textContent = bits;
    ui.bits.setAttribute("aria-valuetext", `${bits} bits`);
    ui.sharing.value = state.sharing;
    drawPlot(ui, full, now);
    drawLevels(ui, now);
    ui.result.textContent = `${now.score.toFixed(3)} bits per byte (${full.score.toFixed(3)} with ` +
      `16 bits) in ${now.bytes.toLocaleString("en")} bytes, ${(full.bytes / now.bytes).toFixed(1)} ` +
      "times smaller. The likeliest letters after the same beginning:";
    ui.text.textContent = ui.data.prompt + now.text;
    ui.element.dataset.liveState = [bits, state.sharing, now.score.toFixed(3)].join("/");
  }

  function drawPlot(ui, full, now) {
    const { el } = ui;
    const all = [...ui.found.values()];
    const low = full.score - 0.1;
    const high = Math.max(low + 1, ...all.map((point) => point.score)) + 0.1;
    const toX = (bits) => LEFT + ((WIDTHS.indexOf(bits) + 0.5) / WIDTHS.length) * (RIGHT - LEFT);
    const toY = (score) => BOTTOM - ((score - low) / (high - low)) * (BOTTOM - TOP);
    const parts = [el("line", { x1: LEFT, x2: RIGHT, y1: toY(full.score), y2: toY(full.score),
      stroke: "var(--sb-line)", "stroke-dasharray": "4 4" })];
    for (const score of [low, (low + high) / 2, high]) {
      parts.push(el("text", { x: LEFT - 6, y: toY(score) + 4, "text-anchor": "end" }, score.toFixed(1)));
    }
    for (const bits of WIDTHS) {
      parts.push(el("text", { x: toX(bits), y: BOTTOM + 15, "text-anchor": "middle" }, String(bits)));
    }
    parts.push(el("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 31, "text-anchor": "middle" },
      "bits per weight: each setting that you try leaves its point"));
    Object.entries(SHARINGS).forEach(([sharing, text], place) => parts.push(
      el("circle", { cx: RIGHT - 110, cy: TOP + 10 + 16 * place, r: 4, fill: COLOURS[sharing] }),
      el("text", { x: RIGHT - 100, y: TOP + 14 + 16 * place }, `for ${text}`)));
    for (const point of all) {
      parts.push(el("circle", { cx: toX(point.bits), cy: toY(point.score), r: point === now ? 7 : 4,
        fill: point.bits === 16 ? "var(--sb-ink)" : COLOURS[point.sharing] }));
    }
    ui.plot.replaceChildren(...parts);
  }

  // The weights of one row, and the values that are left for them.
  function drawLevels(ui, now) {
    const { el } = ui;
    const [name, shape] = ui.shapes.find(([each]) => each.includes("up_proj")) || ui.shapes[0];
    const before = ui.model.tensors[name].slice(0, shape[1]);
    const after = now.model.tensors[name].slice(0, shape[1]);
    const most = before.reduce((top, value) => Math.max(top, Math.abs(value)), 0) * 1.05;
    const toX = (value) => LEFT + ((value / most + 1) / 2) * (RIGHT - LEFT);
    const parts = [el("text", { x: LEFT, y: 10 }, "one row of a matrix: as trained, and as stored")];
    before.forEach((value, i) => parts.push(
      el("line", { x1: toX(value), y1: 20, x2: toX(after[i]), y2: 56, stroke: "var(--sb-line)" }),
      el("circle", { cx: toX(value), cy: 20, r: 2.5, fill: "var(--sb-accent)" }),
      el("circle", { cx: toX(after[i]), cy: 56, r: 2.5, fill: "var(--sb-2)" })));
    const different = new Set(after).size;
    ui.levels.setAttribute("aria-label", `${before.length} weights became ${different} values`);
    parts.push(el("text", { x: LEFT, y: 71 }, `${before.length} weights, ${different} different values`));
    ui.levels.replaceChildren(...parts);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.bit_width = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.bit_width;
})(typeof window === "undefined" ? globalThis : window);
