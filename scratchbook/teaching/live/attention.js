// Drag a query and its keys and see scores, weights and the average. Chapter: chapters/02_attention.ipynb
// The arithmetic is pure and is tested against the Python package; mount() below only draws it.
(function (root) {
  "use strict";

  // One score per key; a key that may not be seen scores -Infinity.
  function scores(query, keys, options) {
    const { scale = true, temperature = 1, visible = keys.map(() => true) } = options || {};
    const divisor = (scale ? Math.sqrt(query.length) : 1) * temperature;
    return keys.map((key, i) => {
      if (!visible[i]) return -Infinity;
      return key.reduce((sum, part, axis) => sum + part * query[axis], 0) / divisor;
    });
  }

  // Weights that sum to one, or all zeros when there is nothing to look at.
  function softmax(values) {
    const largest = Math.max(...values);
    if (largest === -Infinity) return values.map(() => 0);
    const powers = values.map((value) => Math.exp(value - largest));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  }

  function attend(query, keys, values, options) {
    const found = scores(query, keys, options);
    const weights = softmax(found);
    const output = weights.reduce((sum, weight, i) => sum + weight * values[i], 0);
    return { scores: found, weights, output };
  }

  // Within the frame, and on the grid of the keyboard's steps.
  function clamp(value, limit) {
    const rounded = Math.round(value * 20) / 20;
    return Math.min(limit, Math.max(-limit, rounded)) + 0;
  }

  const api = { scores, softmax, attend, clamp };

  // ---------------------------------------------------------------------------------- drawing

  const LIMIT = 3; // the plane reaches from -3 to 3 on both axes
  const SIZE = 300;
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const STYLE = `
    .sb-attention .sb-cols { display: flex; flex-wrap: wrap; gap: 12px 20px; align-items: flex-start; }
    .sb-attention .sb-plane { flex: 1 1 260px; max-width: 380px; min-width: 0; }
    .sb-attention .sb-side { flex: 1 1 250px; min-width: 0; }
    .sb-attention svg { display: block; width: 100%; }
    .sb-attention text { fill: var(--sb-ink); font: 13px system-ui, sans-serif; }
    .sb-attention .sb-faint text { fill: var(--sb-muted); font-size: 11px; }
    .sb-attention .sb-handle { cursor: grab; touch-action: none; }
    .sb-attention .sb-handle:focus { outline: none; }
    .sb-attention .sb-handle:focus-visible .sb-ring { stroke: var(--sb-accent); }
    .sb-attention .sb-ring { fill: transparent; stroke: transparent; stroke-width: 3; }
    .sb-attention table { width: 100%; font-size: 14px; }
    .sb-attention th { font-weight: 600; }
    .sb-live .sb-attention td, .sb-live .sb-attention th { padding: 4px 5px; }
    .sb-attention td.sb-bar { width: 34%; text-align: left; }
    .sb-attention th:nth-child(4) { text-align: left; }
    .sb-attention .sb-fill { height: 12px; border-radius: 2px; }
    .sb-attention input[type=checkbox] { width: 24px; height: 24px; vertical-align: middle; }
    .sb-attention label { display: inline-flex; gap: 6px; align-items: center; min-height: 28px; }
    .sb-attention .sb-result { margin: 8px 0 0; font-variant-numeric: tabular-nums; }`;

  const toX = (x) => SIZE / 2 + (x / LIMIT) * (SIZE / 2 - 14);
  const toY = (y) => SIZE / 2 - (y / LIMIT) * (SIZE / 2 - 14);
  const toValue = (pixels) => ((pixels - SIZE / 2) / (SIZE / 2 - 14)) * LIMIT;
  const shown = (number) => (number === -Infinity ? "hidden" : number.toFixed(2).replace("-", "\u2212"));

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const tokens = data.tokens.map((token, i) => ({ ...token, colour: `var(--sb-${(i % 8) + 1})` }));
    const start = () => ({
      query: [...data.query], keys: tokens.map((token) => [...token.key]),
      scale: data.scale !== false, temperature: 1, causal: false, position: tokens.length - 1,
    });
    let state = start();
    const id = (name) => `sb-attention-${name}`;

    // The plane: grid, the line of score zero, one arrow and one handle per vector.
    const svg = el("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", style: "touch-action:auto",
      "aria-label": "A plane with one query and several keys that can be moved" });
    const zero = el("line", { stroke: "var(--sb-muted)", "stroke-dasharray": "4 4" });
    const zeroLabel = el("text", { "text-anchor": "middle" }, "score 0");
    svg.append(grid(el, data.axes || ["", ""]), zero, el("g", { class: "sb-faint" }, zeroLabel));
    const arrows = [...tokens.map((t) => arrow(el, t.colour, 2)), arrow(el, "var(--sb-ink)", 3.5)];
    svg.append(...arrows.map((parts) => parts.group));
    const handles = [...tokens.map((token, i) => handle(`key of ${token.name}`, token.name, token.colour,
      () => state.keys[i])), handle("query", "query", "var(--sb-ink)", () => state.query)];
    svg.append(...handles.map((parts) => parts.group));

    function handle(name, label, colour, vector) {
      const ring = el("circle", { r: 17, class: "sb-ring" });
      const dot = el("circle", { r: 6, fill: colour });
      const text = el("text", { "text-anchor": "middle", "aria-hidden": "true" }, label);
      const group = el("g", { class: "sb-handle", tabindex: 0, role: "slider",
        "aria-label": `${name}; arrow keys move it, with Shift in larger steps`,
        "aria-valuemin": -LIMIT, "aria-valuemax": LIMIT }, dot, ring, text);
      const move = (x, y) => {
        vector()[0] = clamp(x, LIMIT);
        vector()[1] = clamp(y, LIMIT);
        draw();
      };
      group.addEventListener("keydown", (event) => {
        const step = STEPS[event.key];
        if (!step) return;
        event.preventDefault();
        const size = event.shiftKey ? 0.5 : 0.1;
        move(vector()[0] + step[0] * size, vector()[1] + step[1] * size);
      });
      group.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        group.focus({ preventScroll: true });
        group.setPointerCapture(event.pointerId);
      });
      group.addEventListener("pointermove", (event) => {
        if (!group.hasPointerCapture(event.pointerId)) return;
        const frame = svg.getBoundingClientRect();
        const zoom = SIZE / frame.width;
        move(toValue((event.clientX - frame.left) * zoom), -toValue((event.clientY - frame.top) * zoom));
      });
      return { group, ring, dot, text, vector };
    }

    // The controls and the table.
    const checkbox = (name, text, key) => {
      const input = el("input", { type: "checkbox", id: id(name) });
      input.addEventListener("change", () => { state[key] = input.checked; draw(); });
      return { input, label: el("label", { for: id(name) }, input, text) };
    };
    const scale = checkbox("scale", "divide by \u221ad", "scale");
    const causal = checkbox("causal", "causal mask", "causal");
    const temperature = el("input", { type: "range", id: id("temperature"), min: -1, max: 1, step: 0.05,
      "aria-label": "temperature" });
    temperature.addEventListener("input", () => {
      state.temperature = 10 ** Number(temperature.value);
      draw();
    });
    const temperatureText = el("span", {});
    const position = el("select", { id: id("position") },
      ...tokens.map((token, i) => el("option", { value: i }, `${i + 1}: ${token.name}`)));
    position.addEventListener("change", () => { state.position = Number(position.value); draw(); });
    const reset = el("button", { type: "button", onclick: () => { state = start(); draw(); } },
      "Start again");
    const rows = tokens.map((token) => ({ score: el("td", {}), weight: el("td", {}),
      bar: el("div", { class: "sb-fill", style: `background:${token.colour}` }) }));
    const cells = (token, i) => el("tr", {}, el("th", { scope: "row" }, token.name), rows[i].score,
      rows[i].weight, el("td", { class: "sb-bar" }, rows[i].bar), el("td", {}, String(token.value)));
    const heads = ["word", "score", "weight", "share", "value"]
      .map((name) => el("th", { scope: "col" }, name));
    const tableBox = el("div", { class: "sb-scroll", tabindex: 0, role: "region",
      "aria-label": "scores and weights" },
      el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...tokens.map(cells))));
    const result = el("p", { class: "sb-result", "aria-live": "polite" });
    const lane = valueLine(el, tokens);

    const box = el("div", { class: "sb-attention" }, el("style", {}, STYLE),
      el("div", { class: "sb-cols" },
        el("div", { class: "sb-plane" }, svg),
        el("div", { class: "sb-side" }, tableBox, lane.svg, result)),
      el("div", { class: "sb-row" }, scale.label, causal.label,
        el("label", { for: id("position") }, "the query stands at", position),
        el("label", { for: id("temperature") }, "temperature", temperature, temperatureText), reset));

    function draw() {
      const visible = tokens.map((_, i) => !state.causal || i <= state.position);
      const { scores: found, weights, output } = attend(state.query, state.keys,
        tokens.map((token) => token.value), { ...state, visible });
      handles.forEach((parts, i) => drawHandle(parts, arrows[i], weights[i], visible[i] !== false));
      drawZero();
      rows.forEach((row, i) => {
        row.score.textContent = shown(found[i]);
        row.weight.textContent = weights[i].toFixed(2);
        row.bar.style.width = `${(100 * weights[i]).toFixed(1)}%`;
      });
      lane.move(output);
      const most = weights.indexOf(Math.max(...weights));
      result.textContent = `Average of the values: ${shown(output)}. Most weight: ` +
        `${tokens[most].name}, ${weights[most].toFixed(2)}.`;
      scale.input.checked = state.scale;
      causal.input.checked = state.causal;
      position.value = String(state.position);
      position.disabled = !state.causal;
      temperature.value = String(Math.log10(state.temperature));
      temperature.setAttribute("aria-valuetext", state.temperature.toFixed(2));
      temperatureText.textContent = state.temperature.toFixed(2);
      element.dataset.liveState = [state.query, ...state.keys, state.scale, state.causal, state.position,
        state.temperature.toFixed(2), output.toFixed(3)].join("/");
    }

    function drawHandle(parts, line, weight, visible) {
      const [x, y] = parts.vector();
      const place = { cx: toX(x), cy: toY(y) };
      const isQuery = weight === undefined;
      for (const node of [parts.ring, parts.dot]) {
        for (const [name, value] of Object.entries(place)) node.setAttribute(name, value);
      }
      // the area of a key's dot is its weight
      parts.dot.setAttribute("r", isQuery ? 6 : 4 + 11 * Math.sqrt(weight));
      // the label stands outward of the tip, or above it when the vector is short
      const length = Math.hypot(x, y);
      const [along, up] = length > 0.3 ? [x / length, y / length] : [0, 1];
      parts.text.setAttribute("x", Math.min(SIZE - 22, Math.max(22, place.cx + 27 * along)));
      parts.text.setAttribute("y", Math.min(SIZE - 6, Math.max(12, place.cy - 22 * up + 4)));
      parts.group.setAttribute("opacity", visible ? 1 : 0.3);
      parts.group.setAttribute("aria-valuenow", x.toFixed(2));
      parts.group.setAttribute("aria-valuetext", `${x.toFixed(2)}, ${y.toFixed(2)}`);
      line.point(x, y, visible);
    }

    function drawZero() {
      const [x, y] = state.query;
      const length = Math.hypot(x, y);
      zero.setAttribute("opacity", length > 0 ? 1 : 0);
      zeroLabel.setAttribute("opacity", length > 0 ? 1 : 0);
      if (length === 0) return;
      const [along, up] = [(-y / length) * LIMIT, (x / length) * LIMIT];
      const ends = { x1: toX(along), y1: toY(up), x2: toX(-along), y2: toY(-up) };
      for (const [name, value] of Object.entries(ends)) zero.setAttribute(name, value);
      zeroLabel.setAttribute("x", Math.min(SIZE - 24, Math.max(24, toX(-along * 0.9))));
      zeroLabel.setAttribute("y", toY(-up * 0.9) - 5);
    }

    draw();
    element.replaceChildren(box);
  }

  function grid(el, axes) {
    const group = el("g", { class: "sb-faint", "aria-hidden": "true" });
    for (let i = -LIMIT; i <= LIMIT; i++) {
      const line = { stroke: "var(--sb-line)", "stroke-width": i === 0 ? 1.5 : 0.5 };
      group.append(el("line", { x1: toX(i), x2: toX(i), y1: toY(-LIMIT), y2: toY(LIMIT), ...line }),
        el("line", { y1: toY(i), y2: toY(i), x1: toX(-LIMIT), x2: toX(LIMIT), ...line }));
      if (i !== 0) group.append(el("text", { x: toX(i) + 2, y: toY(0) + 11 }, String(i)));
    }
    group.append(el("text", { x: toX(LIMIT), y: toY(0) + 25, "text-anchor": "end" }, axes[0]),
      el("text", { x: toX(0) + 5, y: toY(LIMIT) + 10 }, axes[1]));
    return group;
  }

  function arrow(el, colour, width) {
    const line = el("line", { stroke: colour, "stroke-width": width });
    const tip = el("polygon", { fill: colour });
    const group = el("g", { "aria-hidden": "true" }, line, tip);
    return { group, point(x, y, visible) {
      const [endX, endY] = [toX(x), toY(y)];
      const angle = Math.atan2(endY - toY(0), endX - toX(0));
      const corner = (turn) => `${endX + 11 * Math.cos(angle + turn)},${endY + 11 * Math.sin(angle + turn)}`;
      const ends = { x1: toX(0), y1: toY(0), x2: endX, y2: endY };
      for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
      tip.setAttribute("points", `${endX},${endY} ${corner(2.75)} ${corner(-2.75)}`);
      group.setAttribute("opacity", visible ? 1 : 0.25);
    } };
  }

  // A number line with the values on it, and a pointer at their average.
  function valueLine(el, tokens) {
    const values = tokens.map((token) => token.value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const place = (value) => 16 + ((value - low) / (high - low || 1)) * (SIZE - 32);
    const pointer = el("polygon", { fill: "var(--sb-ink)" });
    const svg = el("svg", { viewBox: `0 0 ${SIZE} 48`, "aria-hidden": "true" },
      el("line", { x1: 16, x2: SIZE - 16, y1: 24, y2: 24, stroke: "var(--sb-muted)" }), pointer);
    for (const token of tokens) {
      svg.append(el("circle", { cx: place(token.value), cy: 24, r: 5, fill: token.colour }),
        el("text", { x: place(token.value), y: 44, "text-anchor": "middle" }, String(token.value)));
    }
    return { svg, move(value) {
      const x = place(value);
      pointer.setAttribute("points", `${x},18 ${x - 6},6 ${x + 6},6`);
    } };
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.attention = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.attention;
})(typeof window === "undefined" ? globalThis : window);
