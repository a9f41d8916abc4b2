// A sampler's playground on recorded scores. Chapter: chapters/06c_evaluation_and_sampling.ipynb
// The filters are pure and are tested against the Python package; mount() below only draws them.
(function (root) {
  "use strict";

  function softmax(logits) {
    const top = Math.max(...logits);
    const powers = logits.map((x) => Math.exp(x - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((x) => x / sum);
  }

  const only = (logits, keep) => logits.map((x, i) => (keep(x, i) ? x : -Infinity));

  function keepTopK(logits, k) {
    const last = [...logits].sort((a, b) => b - a)[Math.min(k, logits.length) - 1];
    return only(logits, (x) => x >= last);
  }

  function keepTopP(logits, p) {
    const probs = softmax(logits);
    const order = probs.map((_, i) => i).sort((a, b) => probs[a] - probs[b]);
    const drop = new Set();
    let tail = 0;
    for (const i of order.slice(0, -1)) {
      tail += probs[i];
      if (tail > 1 - p) break;
      drop.add(i);
    }
    return only(logits, (_, i) => !drop.has(i));
  }

  function keepMinP(logits, p) {
    const probs = softmax(logits);
    const floor = p * Math.max(...probs);
    return only(logits, (_, i) => probs[i] >= floor);
  }

  // The probabilities to draw from, in the package's order: temperature, top-k, top-p, min-p.
  function probabilities(logits, { temperature = 1, topK = null, topP = null, minP = null } = {}) {
    if (temperature === 0) {
      const best = logits.indexOf(Math.max(...logits));
      return logits.map((_, i) => Number(i === best));
    }
    let scores = logits.map((x) => x / temperature);
    if (topK !== null) scores = keepTopK(scores, topK);
    if (topP !== null) scores = keepTopP(scores, topP);
    if (minP !== null) scores = keepMinP(scores, minP);
    return softmax(scores);
  }

  const entropy = (probs) => probs.reduce((sum, p) => sum - (p > 0 ? p * Math.log2(p) : 0), 0);

  // A small generator of numbers in 0..1, the same for the same seed in every browser.
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function drawOne(probs, random) {
    let left = random();
    for (let i = 0; i < probs.length; i++) {
      left -= probs[i];
      if (left < 0) return i;
    }
    return probs.lastIndexOf(Math.max(...probs));
  }

  const api = { softmax, keepTopK, keepTopP, keepMinP, probabilities, entropy, generator, drawOne };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-sampler pre { margin: 6px 0; padding: 6px 8px; background: var(--sb-soft); color: var(--sb-ink);
      white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px; }
    .sb-sampler .sb-cols { display: flex; flex-wrap: wrap; gap: 10px 22px; }
    .sb-sampler .sb-cols > div { flex: 1 1 260px; min-width: 0; }
    .sb-sampler label { display: flex; gap: 8px; align-items: center; min-height: 32px; }
    .sb-sampler label span { flex: 0 0 6.2em; }
    .sb-sampler input[type=range] { flex: 1 1 90px; min-width: 60px; }
    .sb-sampler output { min-width: 2.8em; text-align: right; font-variant-numeric: tabular-nums; }
    .sb-sampler select { min-height: 32px; }
    .sb-sampler .sb-bar { display: grid; grid-template-columns: 3.4em 1fr 3.6em; gap: 6px; align-items: center;
      min-height: 20px; font-variant-numeric: tabular-nums; }
    .sb-sampler .sb-bar code { color: var(--sb-ink); background: none; }
    .sb-sampler .sb-bar b { display: block; height: 12px; background: var(--sb-1); border-radius: 2px; }
    .sb-sampler .sb-bar i { display: block; height: 3px; background: var(--sb-muted); }
    .sb-sampler .sb-cut { color: var(--sb-muted); }`;
  const ROWS = 12;
  const NAMES = { " ": "␣", "\n": "⏎", "\t": "⇥" };

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const start = () => ({ context: 0, temperature: 1, topK: 0, topP: 1, minP: 0, drawn: [], draws: 0 });
    let state = start();

    const choice = el("select", { id: "sb-sampler-context" },
      ...data.contexts.map((context, i) => el("option", { value: i }, context.name)));
    choice.addEventListener("change", () => { state.context = Number(choice.value); state.drawn = []; draw(); });
    const text = el("pre", {});
    const sliders = [
      ["temperature", "temperature", 0, 2, 0.1, (v) => v.toFixed(1)],
      ["topK", "top-k", 0, 60, 1, (v) => (v ? String(v) : "off")],
      ["topP", "top-p", 0.05, 1, 0.05, (v) => (v < 1 ? v.toFixed(2) : "off")],
      ["minP", "min-p", 0, 0.5, 0.01, (v) => (v ? v.toFixed(2) : "off")],
    ].map(([key, name, min, max, step, say]) => {
      const input = el("input", { type: "range", id: `sb-sampler-${key}`, min, max, step });
      const shown = el("output", { for: `sb-sampler-${key}` });
      input.addEventListener("input", () => { state[key] = Number(input.value); state.drawn = []; draw(); });
      return { key, input, shown, say,
        label: el("label", { for: `sb-sampler-${key}` }, el("span", {}, name), input, shown) };
    });
    const bars = Array.from({ length: ROWS }, () => {
      const row = { name: el("code"), before: el("i"), after: el("b"), share: el("span") };
      row.box = el("div", { class: "sb-bar" }, row.name, el("div", {}, row.after, row.before), row.share);
      return row;
    });
    const draws = el("button", { type: "button", onclick: () => {
      const random = generator(1 + state.draws);
      state.drawn = Array.from({ length: 40 }, () => drawOne(current(), random));
      state.draws += 1;
      draw();
    } }, "Draw 40");
    const reset = el("button", { type: "button", onclick: () => { state = start(); draw(); } }, "Start again");
    const result = el("p", { "aria-live": "polite" });
    const drawn = el("pre", { "aria-live": "polite" });

    const show = (id) => NAMES[data.tokens[id]] || data.tokens[id];
    const settings = () => ({ temperature: state.temperature, topK: state.topK || null,
      topP: state.topP < 1 ? state.topP : null, minP: state.minP || null });
    const current = () => probabilities(data.contexts[state.context].logits, settings());

    function draw() {
      const context = data.contexts[state.context];
      const [plain, probs] = [softmax(context.logits), current()];
      const order = plain.map((_, i) => i).sort((a, b) => plain[b] - plain[a]);
      choice.value = state.context;
      text.textContent = `${context.text}▁`;
      sliders.forEach(({ key, input, shown, say }) => { input.value = state[key]; shown.textContent = say(state[key]); });
      bars.forEach((row, place) => {
        const id = order[place];
        row.name.textContent = show(id);
        row.before.style.width = `${100 * plain[id]}%`;
        row.after.style.width = `${100 * probs[id]}%`;
        row.share.textContent = probs[id] > 0 ? `${(100 * probs[id]).toFixed(1)} %` : "cut";
        row.box.className = probs[id] > 0 ? "sb-bar" : "sb-bar sb-cut";
      });
      const kept = probs.filter((p) => p > 0).length;
      result.textContent = `${kept} of ${probs.length} tokens can be drawn; ${entropy(probs).toFixed(2)} bits ` +
        `of choice, ${entropy(plain).toFixed(2)} without any setting. The thin bars are the model's own.`;
      drawn.textContent = state.drawn.length ? state.drawn.map(show).join(" ") : "nothing drawn yet";
      element.dataset.liveState = [state.context, state.temperature, state.topK, state.topP, state.minP,
        state.draws].join("/");
    }

    const box = el("div", { class: "sb-sampler" }, el("style", {}, STYLE),
      el("div", { class: "sb-row" }, el("label", { for: "sb-sampler-context" }, "after", choice)), text,
      el("div", { class: "sb-cols" }, el("div", {}, ...bars.map((row) => row.box)),
        el("div", {}, ...sliders.map((slider) => slider.label), result,
          el("div", { class: "sb-row" }, draws, reset), drawn)));
    draw();
    element.replaceChildren(box);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.sampler = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.sampler;
})(typeof window === "undefined" ? globalThis : window);
