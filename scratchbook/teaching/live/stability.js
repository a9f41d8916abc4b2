// A vector goes through many random layers: how large does it get? Chapter: chapters/04_norms.ipynb
// The arithmetic is pure and is tested against torch; mount() below only draws it.
(function (root) {
  "use strict";

  const size = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length);
  const product = (matrix, x) => x.map((_, row) =>
    x.reduce((sum, value, column) => sum + matrix[row * x.length + column] * value, 0));

  // The size of the vector in front of the first layer and behind each.
  function chain(start, matrices, gain, placement) {
    let x = [...start];
    const sizes = [size(x)];
    for (const matrix of matrices) {
      const scale = placement === "pre" ? 1 / size(x) : 1;
      const written = product(matrix, x).map((value) => value * gain * scale);
      x = placement === "no residual" ? written : x.map((value, i) => value + written[i]);
      if (placement === "post") {
        const now = size(x);
        x = x.map((value) => value / now);
      }
      sizes.push(size(x));
    }
    return sizes;
  }

  const api = { size, chain };

  // ---------------------------------------------------------------------------------- drawing

  const PLACEMENTS = { "no residual": "x \u2190 W x", residual: "x \u2190 x + W x",
    post: "post: x \u2190 norm(x + W x)", pre: "pre: x \u2190 x + W norm(x)" };
  const [LEFT, RIGHT, TOP, BOTTOM] = [46, 392, 10, 190];
  const [LOW, HIGH] = [-8, 12]; // powers of ten that the picture holds
  const STYLE = `
    .sb-stability svg { display: block; width: 100%; max-width: 560px; touch-action: auto; }
    .sb-stability text { fill: var(--sb-muted); font: 11px system-ui, sans-serif; }
    .sb-stability label { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; min-height: 30px; }
    .sb-stability input[type=range] { width: 150px; }
    .sb-stability output { min-width: 2.6em; font-variant-numeric: tabular-nums; }
    .sb-stability .sb-result { margin: 6px 0 0; font-variant-numeric: tabular-nums; }`;

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const most = data.matrices.length;
    const start = () => ({ layers: most, gain: 1.2, placement: "residual" });
    let state = start();
    const toX = (layer) => LEFT + (layer / most) * (RIGHT - LEFT);
    const toY = (value) => {
      const power = Math.min(HIGH, Math.max(LOW, Math.log10(value)));
      return BOTTOM - ((power - LOW) / (HIGH - LOW)) * (BOTTOM - TOP);
    };

    const others = Object.keys(PLACEMENTS).map(() => el("polyline", { fill: "none",
      stroke: "var(--sb-line)", "stroke-width": 1.5 }));
    const line = el("polyline", { fill: "none", stroke: "var(--sb-accent)", "stroke-width": 3 });
    const svg = el("svg", { viewBox: "0 0 400 222", role: "img",
      "aria-label": "Size of the vector behind each layer, on a logarithmic scale" });
    for (let power = LOW; power <= HIGH; power += 4) {
      const y = toY(10 ** power);
      svg.append(el("line", { x1: LEFT, x2: RIGHT, y1: y, y2: y, stroke: "var(--sb-line)", "stroke-width": 0.5 }),
        el("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, `1e${power}`.replace("-", "\u2212")));
    }
    for (let layer = 0; layer <= most; layer += 6) {
      svg.append(el("text", { x: toX(layer), y: BOTTOM + 14, "text-anchor": "middle" }, String(layer)));
    }
    svg.append(el("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 29, "text-anchor": "middle" }, "layers"),
      ...others, line);

    const slider = (name, text, min, max, step) => {
      const input = el("input", { type: "range", id: `sb-stability-${name}`, min, max, step });
      const shown = el("output", { for: `sb-stability-${name}` });
      input.addEventListener("input", () => { state[name] = Number(input.value); draw(); });
      return { input, shown, label: el("label", { for: `sb-stability-${name}` }, text, input, shown) };
    };
    const layers = slider("layers", "layers", 1, most, 1);
    const gain = slider("gain", "gain of a layer", 0.1, 2.5, 0.1);
    const placement = el("select", { id: "sb-stability-placement" },
      ...Object.entries(PLACEMENTS).map(([value, text]) => el("option", { value }, text)));
    placement.addEventListener("change", () => { state.placement = placement.value; draw(); });
    const reset = el("button", { type: "button", onclick: () => { state = start(); draw(); } }, "Start again");
    const result = el("p", { class: "sb-result", "aria-live": "polite" });

    function draw() {
      const run = (name) => chain(data.start, data.matrices.slice(0, state.layers), state.gain, name);
      const points = (sizes) => sizes.map((value, layer) => `${toX(layer)},${toY(value)}`).join(" ");
      Object.keys(PLACEMENTS).forEach((name, i) => others[i].setAttribute("points", points(run(name))));
      const sizes = run(state.placement);
      line.setAttribute("points", points(sizes));
      layers.input.value = state.layers;
      layers.shown.textContent = state.layers;
      gain.input.value = state.gain;
      gain.shown.textContent = state.gain.toFixed(1);
      placement.value = state.placement;
      const last = sizes[sizes.length - 1];
      const said = last >= 0.01 && last < 1000 ? last.toFixed(2) : last.toExponential(1).replace("-", "\u2212");
      result.textContent = `Behind layer ${state.layers} the entries have size ${said}; ` +
        `they began with ${sizes[0].toFixed(2)}. Grey: the other three arrangements.`;
      element.dataset.liveState = [state.layers, state.gain, state.placement, said].join("/");
    }

    const box = el("div", { class: "sb-stability" }, el("style", {}, STYLE), svg,
      el("div", { class: "sb-row" }, el("label", { for: "sb-stability-placement" }, "arrangement", placement),
        layers.label, gain.label, reset), result);
    draw();
    element.replaceChildren(box);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.stability = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.stability;
})(typeof window === "undefined" ? globalThis : window);
