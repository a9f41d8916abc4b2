// Two hands on a clock: a query and a key, turned to their places. Chapter: chapters/03_positional_encodings.ipynb
// The speeds and scores are pure and are tested against the Python package; mount() below only draws them.
(function (root) {
  "use strict";

  // Radians per position of each pair, from the fastest to the slowest.
  function speeds(headDim, base) {
    return Array.from({ length: headDim / 2 }, (_, i) => 1 / base ** ((2 * i) / headDim));
  }

  // The same under a scaling that makes room for `factor` times the trained length.
  function stretched(headDim, base, scaling, factor, trained) {
    const plain = speeds(headDim, base);
    if (scaling === "linear") return plain.map((speed) => speed / factor);
    if (scaling === "ntk") return speeds(headDim, base * factor ** (headDim / (headDim - 2)));
    if (scaling === "yarn") {
      const pairThatTurns = (times) =>
        (headDim * Math.log(trained / (times * 2 * Math.PI))) / (2 * Math.log(base));
      const low = Math.max(Math.floor(pairThatTurns(32)), 0);
      const high = Math.min(Math.ceil(pairThatTurns(1)), headDim - 1);
      return plain.map((speed, i) => {
        const ramp = Math.min(Math.max((i - low) / Math.max(high - low, 0.001), 0), 1);
        return speed * (1 - ramp) + (speed / factor) * ramp;
      });
    }
    return plain;
  }

  // The score of two equal vectors, each pair of length one, at a distance: mean of the cosines.
  function score(distance, found) {
    return found.reduce((sum, speed) => sum + Math.cos(distance * speed), 0) / found.length;
  }

  const api = { speeds, stretched, score };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-rope .sb-cols { display: flex; flex-wrap: wrap; gap: 12px 20px; align-items: flex-start; }
    .sb-rope .sb-clock { flex: 1 1 220px; max-width: 300px; min-width: 0; }
    .sb-rope .sb-side { flex: 1 1 250px; min-width: 0; }
    .sb-rope svg { display: block; width: 100%; touch-action: auto; }
    .sb-rope text { fill: var(--sb-ink); font: 13px system-ui, sans-serif; }
    .sb-rope label { display: flex; gap: 8px; align-items: center; min-height: 30px; }
    .sb-rope input[type=range] { flex: 1 1 100px; min-width: 60px; }
    .sb-rope output { min-width: 3.2em; text-align: right; font-variant-numeric: tabular-nums; }
    .sb-rope .sb-result { margin: 8px 0 0; font-variant-numeric: tabular-nums; }`;
  const NAMES = { none: "none", linear: "linear", ntk: "NTK", yarn: "YaRN" };

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const { head_dim: headDim, base, trained, factor } = data;
    const longest = trained * factor;
    const start = () => ({ query: data.query, key: data.key, pair: 0, scaling: "none" });
    let state = start();

    const hands = ["query", "key"].map((name, i) => {
      const colour = `var(--sb-${i + 1})`;
      return { name, line: el("line", { x1: 150, y1: 150, stroke: colour, "stroke-width": 5,
        "stroke-linecap": "round" }), label: el("text", { "text-anchor": "middle" }, name) };
    });
    const wedge = el("path", { fill: "var(--sb-accent)", opacity: 0.2 });
    const clock = el("svg", { viewBox: "0 0 300 300", role: "img",
      "aria-label": "A clock with a hand for the query and a hand for the key" },
    el("circle", { cx: 150, cy: 150, r: 108, fill: "none", stroke: "var(--sb-line)", "stroke-width": 2 }),
    wedge, ...hands.flatMap((hand) => [hand.line, hand.label]));

    const slider = (name, text, max, key) => {
      const input = el("input", { type: "range", id: `sb-rope-${name}`, min: 0, max, step: 1 });
      const shown = el("output", { for: `sb-rope-${name}` });
      input.addEventListener("input", () => { state[key] = Number(input.value); draw(); });
      return { key, input, shown, label: el("label", { for: `sb-rope-${name}` }, text, input, shown) };
    };
    const sliders = [slider("query", "query at", longest - 1, "query"),
      slider("key", "key at", longest - 1, "key"),
      slider("pair", "pair", headDim / 2 - 1, "pair")];
    const scaling = el("select", { id: "sb-rope-scaling" },
      ...Object.entries(NAMES).map(([value, name]) => el("option", { value }, name)));
    scaling.addEventListener("change", () => { state.scaling = scaling.value; draw(); });
    const both = el("button", { type: "button", onclick: () => {
      const step = Math.max(state.query, state.key) + 10 < longest ? 10 : -Math.min(state.query, state.key);
      state.query += step;
      state.key += step;
      draw();
    } }, "move both by 10");
    const reset = el("button", { type: "button", onclick: () => { state = start(); draw(); } }, "Start again");

    const curve = el("polyline", { fill: "none", stroke: "var(--sb-3)", "stroke-width": 1.5 });
    const dot = el("circle", { r: 6, fill: "var(--sb-accent)" });
    const edge = el("line", { y1: 8, y2: 112, stroke: "var(--sb-muted)", "stroke-dasharray": "3 3" });
    const placeX = (distance) => 8 + (distance / longest) * 284;
    const placeY = (value) => 60 - value * 48;
    const graph = el("svg", { viewBox: "0 0 300 134", role: "img",
      "aria-label": "The score of equal vectors against their distance" },
    el("line", { x1: 8, x2: 292, y1: 60, y2: 60, stroke: "var(--sb-line)" }), edge, curve, dot,
    el("text", { x: 292, y: 128, "text-anchor": "end" }, "distance"), el("text", { x: 8, y: 128 }, "score"));
    const result = el("p", { class: "sb-result", "aria-live": "polite" });

    function draw() {
      const found = stretched(headDim, base, state.scaling, factor, trained);
      const speed = found[state.pair];
      const angles = [state.query * speed, state.key * speed];
      hands.forEach((hand, i) => {
        const [x, y] = [Math.cos(angles[i]), -Math.sin(angles[i])];
        hand.line.setAttribute("x2", 150 + 100 * x);
        hand.line.setAttribute("y2", 150 + 100 * y);
        hand.label.setAttribute("x", 150 + 128 * x);
        hand.label.setAttribute("y", 150 + 128 * y + (i ? 13 : 0));
      });
      const [low, high] = [Math.min(...angles), Math.max(...angles)];
      wedge.setAttribute("d", sector(low, high));
      const distance = Math.abs(state.query - state.key);
      const points = Array.from({ length: longest + 1 }, (_, d) => `${placeX(d)},${placeY(score(d, found))}`);
      curve.setAttribute("points", points.join(" "));
      dot.setAttribute("cx", placeX(distance));
      dot.setAttribute("cy", placeY(score(distance, found)));
      edge.setAttribute("x1", placeX(trained));
      edge.setAttribute("x2", placeX(trained));
      sliders.forEach(({ key, input, shown }) => {
        input.value = state[key];
        shown.textContent = key === "pair" ? `${state.pair + 1} of ${headDim / 2}` : String(state[key]);
      });
      scaling.value = state.scaling;
      const degrees = (((state.query - state.key) * speed * 180) / Math.PI).toFixed(1).replace("-", "\u2212");
      const round = ((2 * Math.PI) / speed).toFixed(speed > 0.1 ? 1 : 0);
      const seen = distance < trained ? "" : ` No text of ${trained} tokens has this distance.`;
      result.textContent = `Distance ${distance}: the hands stand ${degrees}\u00b0 apart, and over all ` +
        `${headDim / 2} pairs the score is ${score(distance, found).toFixed(3).replace("-", "\u2212")}. ` +
        `This pair goes round once in ${round} tokens.${seen}`;
      element.dataset.liveState = [state.query, state.key, state.pair, state.scaling].join("/");
    }

    const box = el("div", { class: "sb-rope" }, el("style", {}, STYLE),
      el("div", { class: "sb-cols" }, el("div", { class: "sb-clock" }, clock),
        el("div", { class: "sb-side" }, ...sliders.map((parts) => parts.label),
          el("label", { for: "sb-rope-scaling" }, `stretched ${factor} times by`, scaling), graph)),
      el("div", { class: "sb-row" }, both, reset), result);
    draw();
    element.replaceChildren(box);
  }

  // The part of the clock between two angles; more than a full turn fills it.
  function sector(low, high) {
    const point = (angle) => `${150 + 60 * Math.cos(angle)} ${150 - 60 * Math.sin(angle)}`;
    if (high - low >= 2 * Math.PI) return "M 90 150 a 60 60 0 1 0 120 0 a 60 60 0 1 0 -120 0";
    return `M 150 150 L ${point(low)} A 60 60 0 ${high - low > Math.PI ? 1 : 0} 0 ${point(high)} Z`;
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.rope_clock = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.rope_clock;
})(typeof window === "undefined" ? globalThis : window);
