// What a training run takes on several processors. Chapter: chapters/06f_scaling_and_distributed.ipynb
// The sums are those of the chapter's Python (6 N D, zero_bytes); mount() only draws them.
// Data: { parameters, tokens_each, ranks, stage, speed, price }: where the sliders start.
(function (root) {
  "use strict";

  const PARTS = ["parameters", "gradients", "optimizer"];

  // Operations, hours on all ranks together, dollars, and bytes that one rank holds of each part.
  function trainingCost(s) {
    const flops = 6 * s.parameters * s.tokens_each * s.parameters;
    const hours = flops / (s.speed * s.ranks) / 3600;
    const share = 4 * s.parameters / s.ranks;
    const whole = 4 * s.parameters;
    return { flops, hours, dollars: hours * s.ranks * s.price,
      bytes: { parameters: s.stage >= 3 ? share : whole, gradients: s.stage >= 2 ? share : whole,
        optimizer: 2 * (s.stage >= 1 ? share : whole) } };
  }

  // Three digits with a word for the thousands.
  function short(number) {
    const words = ["", " thousand", " million", " billion", " trillion"];
    let step = 0;
    while (number >= 999.5 && step < words.length - 1) { number /= 1000; step += 1; }
    const digits = number >= 100 ? Math.round(number) : Number(number.toPrecision(3));
    return `${digits}${words[step]}`;
  }

  function duration(hours) {
    if (hours < 1) return `${Number((hours * 60).toPrecision(2))} minutes`;
    return hours < 72 ? `${Number(hours.toPrecision(3))} hours` : `${short(hours / 24)} days`;
  }

  const gigabytes = (bytes) => `${Number((bytes / 1e9).toPrecision(3))} GB`;
  const api = { PARTS, trainingCost, short, duration, gigabytes };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-cost .sb-controls { display: grid; gap: 6px 12px; align-items: center;
      grid-template-columns: minmax(0, auto) minmax(120px, 1fr); max-width: 560px; }
    .sb-cost input[type=range] { width: 100%; min-width: 0; }
    .sb-cost select { min-height: 32px; width: 100%; min-width: 0; }
    .sb-cost svg { display: block; width: 100%; max-width: 560px; touch-action: auto; margin-top: 10px; }
    .sb-cost text { fill: var(--sb-ink); font: 13px system-ui, sans-serif; }
    .sb-cost .sb-value, .sb-cost .sb-result { font-variant-numeric: tabular-nums; }`;
  const WIDE = 270; // of the bar of one rank that holds everything
  const SLIDERS = [
    ["parameters", "parameters", 24, 48, (v) => 10 ** (v / 4), (n) => Math.round(4 * Math.log10(n)), short],
    ["tokens_each", "tokens for each parameter", 0, 12, (v) => Math.round(10 ** (v / 4)),
      (n) => Math.round(4 * Math.log10(n)), short],
    ["ranks", "ranks", 0, 14, (v) => 2 ** v, (n) => Math.round(Math.log2(n)), String],
    ["speed", "operations a second on each, sustained", 36, 60, (v) => 10 ** (v / 4),
      (n) => Math.round(4 * Math.log10(n)), short],
    ["price", "dollars an hour for each", 0, 20, (v) => v / 2, (n) => Math.round(2 * n), (n) => n.toFixed(2)]];

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const state = { ...data };
    const refresh = [];
    const controls = el("div", { class: "sb-controls" });
    const result = el("p", { class: "sb-result", "aria-live": "polite" });
    const picture = el("svg", { viewBox: "0 0 400 100", role: "img" });
    const bars = PARTS.map((part, i) => {
      const bar = el("rect", { x: 84, y: 6 + 32 * i, height: 22, fill: `var(--sb-${i + 1})` });
      const text = el("text", { y: 22 + 32 * i });
      picture.append(el("text", { x: 78, y: 22 + 32 * i, "text-anchor": "end" }, part), bar, text);
      return { bar, text };
    });

    for (const [field, words, low, high, read, write, show] of SLIDERS) {
      const id = `sb-cost-${field}`;
      const input = el("input", { type: "range", id, min: low, max: high, step: 1 });
      const value = el("span", { class: "sb-value" });
      input.addEventListener("input", () => { state[field] = read(Number(input.value)); draw(); });
      refresh.push(() => {
        input.value = String(write(state[field]));
        value.textContent = show(state[field]);
        input.setAttribute("aria-valuetext", value.textContent);
      });
      controls.append(el("label", { for: id }, words, ": ", value), input);
    }
    const stages = el("select", { id: "sb-cost-stage" },
      ...["nothing (data parallel)", "optimizer state (ZeRO-1)", "and gradients (ZeRO-2)",
        "and weights (ZeRO-3)"].map((words, stage) => el("option", { value: stage }, words)));
    stages.addEventListener("change", () => { state.stage = Number(stages.value); draw(); });
    refresh.push(() => { stages.value = String(state.stage); });
    controls.append(el("label", { for: "sb-cost-stage" }, "divided among the ranks"), stages);

    function draw() {
      refresh.forEach((update) => update());
      const found = trainingCost(state);
      const most = 8 * state.parameters;
      const told = PARTS.map((part, i) => {
        const width = Math.max(1, (WIDE * found.bytes[part]) / most);
        bars[i].bar.setAttribute("width", width.toFixed(1));
        bars[i].text.setAttribute("x", (90 + Math.min(width, 225)).toFixed(1));
        bars[i].text.textContent = gigabytes(found.bytes[part]);
        return `${part} ${gigabytes(found.bytes[part])}`;
      });
      picture.setAttribute("aria-label", `Held by one rank: ${told.join(", ")}`);
      const sum = PARTS.reduce((all, part) => all + found.bytes[part], 0);
      result.textContent = `${short(state.parameters * state.tokens_each)} tokens, ` +
        `${found.flops.toExponential(1)} operations: ${duration(found.hours)} on ${state.ranks} ` +
        `rank${state.ranks > 1 ? "s" : ""}, ${short(found.dollars)} dollars. Each rank holds ` +
        `${gigabytes(sum)}, activations not counted.`;
      element.dataset.liveState = Object.values(state).join("/");
    }

    draw();
    element.replaceChildren(el("div", { class: "sb-cost" }, el("style", {}, STYLE), controls, picture, result));
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.training_cost = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.training_cost;
})(typeof window === "undefined" ? globalThis : window);
