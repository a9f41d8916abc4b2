// One sum, many orders: add the same float32 numbers and watch the last digits move.
(function (root) {
  "use strict";

  const COUNT = 10000;

  // A small generator of random numbers, the same on every machine (mulberry32).
  function generator(seed) {
    let state = seed >>> 0;
    return function () {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function numbers(seed, count = COUNT) {
    const next = generator(seed);
    return Float32Array.from({ length: count }, () => next());
  }

  // Each addition is rounded to float32, as a processor rounds it.
  function oneByOne(values) {
    let sum = 0;
    for (const value of values) sum = Math.fround(sum + value);
    return sum;
  }

  function inPairs(values) {
    if (values.length <= 2) return oneByOne(values);
    const middle = values.length >> 1;
    return Math.fround(inPairs(values.subarray(0, middle)) + inPairs(values.subarray(middle)));
  }

  function shuffled(values, seed) {
    const copy = Float32Array.from(values), next = generator(seed);
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  }

  const ORDERS = {
    "left to right": (values) => oneByOne(values),
    "right to left": (values) => oneByOne(Float32Array.from(values).reverse()),
    "smallest first": (values) => oneByOne(Float32Array.from(values).sort()),
    "in pairs": (values) => inPairs(values),
  };

  function exact(values) {
    return values.reduce((sum, value) => sum + value, 0);   // float64: sixteen digits
  }

  // How many leading characters two decimal strings share.
  function agreement(a, b) {
    let at = 0;
    while (at < a.length && a[at] === b[at]) at++;
    return at;
  }

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const values = numbers((data && data.seed) || 1);
    const truth = exact(values).toFixed(6);
    const body = el("tbody");
    let shuffles = 0;

    function show(name, sum) {
      const text = sum.toFixed(6), same = agreement(text, truth);
      const digits = el("td", { class: "sb-text" }, text.slice(0, same),
        el("strong", { style: "color:var(--sb-7)" }, text.slice(same)));
      const old = [...body.children].find((row) => row.dataset.order === name);
      const row = el("tr", { "data-order": name }, el("th", { scope: "row" }, name), digits);
      if (old) old.replaceWith(row); else body.append(row);
      said.textContent = `${name}: ${text}, the true sum is ${truth}`;
      element.setAttribute("data-live-state", `${name} ${text}`);
    }

    const buttons = Object.entries(ORDERS).map(([name, add]) =>
      el("button", { type: "button", onclick: () => show(name, add(values)) }, name));
    const shuffle = el("button", { type: "button", onclick: () => {
      shuffles += 1;
      show(`shuffle ${shuffles}`, oneByOne(shuffled(values, shuffles)));
    } }, "shuffle");
    const said = el("p", { "aria-live": "polite", class: "sb-muted", style: "margin:6px 0 0" });

    element.replaceChildren(
      el("div", { class: "sb-row", role: "group", "aria-label": "Order of addition" },
        ...buttons, shuffle),
      el("div", { class: "sb-scroll", tabindex: "0", role: "region", "aria-label": "Sums" },
        el("table", { style: "font-variant-numeric:tabular-nums" },
          el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "order"),
            el("th", { scope: "col" }, "sum of 10,000 numbers"))),
          el("tbody", {}, el("tr", {}, el("th", { scope: "row" }, "true sum"),
            el("td", { class: "sb-text" }, truth))),
          body)),
      said);
    element.setAttribute("data-live-state", "ready");
  }

  const api = { numbers, oneByOne, inPairs, shuffled, exact, agreement, ORDERS };
  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.addition = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.addition;
})(typeof window === "undefined" ? globalThis : window);
