// Move the weight of a source and see its share of lines, bytes and tokens. Chapter: chapters/06b_data_and_curriculum.ipynb
// The arithmetic is pure and is tested against the Python package; mount() below only draws it.
(function (root) {
  "use strict";

  const UNITS = ["lines", "bytes", "tokens"];

  // Each source's share of each unit when it is repeated `weight` times: {source: {unit: share}}.
  function shares(sizes, weights) {
    const found = {};
    for (const name of Object.keys(sizes)) found[name] = {};
    for (const unit of UNITS) {
      const total = Object.keys(sizes).reduce((sum, name) => sum + weights[name] * sizes[name][unit], 0);
      for (const name of Object.keys(sizes)) {
        found[name][unit] = total > 0 ? (weights[name] * sizes[name][unit]) / total : 0;
      }
    }
    return found;
  }

  // How often `own` must be repeated to make `share` of what it and one copy of `other` have.
  function repeats(own, other, share) {
    if (share >= 1) return Infinity;
    return own > 0 ? ((share / (1 - share)) * other) / own : 0;
  }

  // The slider steps through round weights, so that each step by keyboard is another one.
  const STEPS = [1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9];
  const WEIGHTS = [0, ...[0.1, 1, 10, 100].flatMap((power) => STEPS.map((step) => Number((power * step).toPrecision(3)))), 1000];

  // The place among WEIGHTS of the one that is nearest, as a ratio.
  function placeOf(weight) {
    const gap = (place) => Math.abs(Math.log(WEIGHTS[place] / weight));
    if (weight < WEIGHTS[1] / 2) return 0;
    return WEIGHTS.reduce((best, _, place) => (place > 0 && gap(place) < gap(best) ? place : best), 1);
  }

  // A share as text; only nothing is 0 %, and only everything is 100 %.
  function percent(share) {
    const near = Math.min(share, 1 - share);
    if (near <= 0) return `${100 * share} %`;
    return `${Math.min(99.9, Math.max(0.1, 100 * share)).toFixed(near < 0.1 ? 1 : 0)} %`;
  }

  const api = { UNITS, WEIGHTS, shares, repeats, placeOf, percent };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-mixture .sb-lane { display: grid; grid-template-columns: 4.2em 1fr; gap: 8px; align-items: center; margin: 6px 0; }
    .sb-mixture .sb-track { display: flex; height: 30px; border-radius: 4px; overflow: hidden;
      border: 1px solid var(--sb-line); position: relative; }
    .sb-mixture .sb-part { height: 100%; opacity: 0.75; }
    .sb-mixture .sb-share { position: absolute; left: 8px; top: 4px; font-weight: 600;
      font-variant-numeric: tabular-nums; background: var(--sb-paper); border-radius: 3px; padding: 0 4px; }
    .sb-mixture .sb-key { display: inline-block; width: 0.9em; height: 0.9em; border-radius: 2px; margin-right: 5px; }
    .sb-mixture input[type=range] { flex: 1 1 180px; min-width: 0; }
    .sb-mixture .sb-weight { font-variant-numeric: tabular-nums; min-width: 6em; }
    .sb-mixture .sb-result { margin: 8px 0 0; }`;

  const number = (value) => (value >= 100 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3))));

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const corpora = data.corpora; // [{name, first, second, sizes: {first: {...}, second: {...}}}]
    const start = () => ({ corpus: 0, weight: 3 });
    let state = start();
    const id = (name) => `sb-mixture-${name}`;

    const corpus = el("select", { id: id("corpus") },
      ...corpora.map((each, i) => el("option", { value: i }, each.name)));
    corpus.addEventListener("change", () => { state.corpus = Number(corpus.value); draw(); });
    const slider = el("input", { type: "range", id: id("weight"), min: 0, max: WEIGHTS.length - 1, step: 1 });
    slider.addEventListener("input", () => { state.weight = WEIGHTS[Number(slider.value)]; draw(); });
    const shown = el("output", { class: "sb-weight", for: id("weight") });
    const sliderText = el("span", {});
    const lanes = UNITS.map((unit) => {
      const first = el("div", { class: "sb-part", style: "background:var(--sb-1)" });
      const second = el("div", { class: "sb-part", style: "background:var(--sb-2)" });
      const share = el("span", { class: "sb-share" });
      const track = el("div", { class: "sb-track", role: "img" }, first, second, share);
      return { unit, first, second, share, track, row: el("div", { class: "sb-lane" }, el("span", {}, unit), track) };
    });
    const targets = UNITS.map((unit) => el("button", { type: "button", onclick: () => {
      const { sizes, first, second } = corpora[state.corpus];
      state.weight = repeats(sizes[first][unit], sizes[second][unit], 0.75);
      draw();
    } }, `75 % of the ${unit}`));
    const three = el("button", { type: "button", onclick: () => { state.weight = 3; draw(); } }, "three times");
    const reset = el("button", { type: "button", onclick: () => { state = start(); draw(); } }, "Start again");
    const names = [el("span", {}), el("span", {})];
    const keys = names.map((name, i) => el("span", {},
      el("span", { class: "sb-key", style: `background:var(--sb-${i + 1})` }), name));
    const result = el("p", { class: "sb-result", "aria-live": "polite" });

    function draw() {
      const { sizes, first, second } = corpora[state.corpus];
      const found = shares(sizes, { [first]: state.weight, [second]: 1 });
      names[0].textContent = first;
      names[1].textContent = second;
      corpus.value = String(state.corpus);
      slider.value = String(placeOf(state.weight));
      slider.setAttribute("aria-valuetext", `${first} ${number(state.weight)} times`);
      shown.textContent = `${number(state.weight)} times`;
      sliderText.textContent = `repeat ${first}`;
      for (const lane of lanes) {
        const share = found[first][lane.unit];
        lane.first.style.width = `${100 * share}%`;
        lane.second.style.width = `${100 * (1 - share)}%`;
        lane.share.textContent = percent(share);
        lane.track.setAttribute("aria-label", `${percent(share)} of the ${lane.unit} are ${first}`);
      }
      result.textContent = `${first} ${number(state.weight)} times, ${second} once. Share of ${first}: ` +
        UNITS.map((unit) => `${percent(found[first][unit])} of the ${unit}`).join(", ") + ".";
      element.dataset.liveState = `${state.corpus}/${state.weight.toFixed(3)}`;
    }

    const box = el("div", { class: "sb-mixture" }, el("style", {}, STYLE),
      el("div", { class: "sb-row" }, el("label", { for: id("corpus") }, "corpus ", corpus), ...keys),
      el("div", { class: "sb-row" }, el("label", { for: id("weight") }, sliderText), slider, shown),
      ...lanes.map((lane) => lane.row),
      el("div", { class: "sb-row" }, three, ...targets, reset), result);
    draw();
    element.replaceChildren(box);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.mixture = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.mixture;
})(typeof window === "undefined" ? globalThis : window);
