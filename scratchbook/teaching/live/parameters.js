// A model's residual stream and what hangs on it: parameters and operations of each part, for any sizes.
// Chapter: chapters/05_blocks.ipynb. The sums are those of scratchbook/accounting.py and are tested against it;
// mount() only draws them. Data: { start: name, presets: { name: config } }.
(function (root) {
  "use strict";

  const GATED = ["glu", "reglu", "geglu", "swiglu"];
  const NORMS = { pre: 2, post: 2, parallel: 1, sandwich: 4 };

  const ropePart = (c) => (c.positions === "rope" ? Math.floor(c.head_dim / 4) * 2 : 0);

  // The entries of one layer's attention matrices.
  function projectionWeights(c) {
    if (c.latent_dim === null) return c.d_model * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads);
    const turned = ropePart(c);
    return c.d_model * (c.num_heads * (c.head_dim + turned) + c.latent_dim + turned) +
      c.latent_dim * c.num_heads * 2 * c.head_dim + c.num_heads * c.head_dim * c.d_model;
  }

  function attentionParameters(c) {
    const count = projectionWeights(c);
    if (c.latent_dim !== null) return count + c.latent_dim;
    return count + (c.qk_norm && c.norm !== "rms_no_gain" ? 2 * c.head_dim : 0) +
      (c.bias === "none" ? 0 : (c.num_heads + 2 * c.num_kv_heads) * c.head_dim) +
      (c.bias === "all" ? c.d_model : 0);
  }

  const matrices = (c) => (GATED.includes(c.feedforward) ? 3 : 2);

  function feedforwardParameters(c) {
    const biases = c.bias === "all" ? (matrices(c) - 1) * c.d_ff + c.d_model : 0;
    return matrices(c) * c.d_model * c.d_ff + biases;
  }

  function parameters(c) {
    const norm = c.norm === "rms" ? c.d_model : c.norm === "layer" ? 2 * c.d_model : 0;
    const biased = c.bias === "all" ? 1 : 0;
    return {
      token_embedding: c.vocab_size * c.d_model,
      positions: c.positions === "learned" ? c.max_seq_len * c.d_model : 0,
      attention: c.num_layers * attentionParameters(c),
      feedforward: c.num_layers * feedforwardParameters(c),
      norms: norm * (c.num_layers * NORMS[c.layout] + 1),
      lm_head: c.tie_embeddings ? 0 : c.vocab_size * (c.d_model + biased),
    };
  }

  // Operations to read `time` tokens at once: matrix products alone, two per multiplication.
  function operations(c, time) {
    const seen = c.window === null ? time : Math.min(time, c.window);
    const turned = c.latent_dim === null ? 0 : ropePart(c);
    return {
      attention: 2 * time * c.num_layers * projectionWeights(c),
      scores: 2 * time * c.num_layers * c.num_heads * (2 * c.head_dim + turned) * seen,
      feedforward: 2 * time * c.num_layers * matrices(c) * c.d_model * c.d_ff,
      lm_head: 2 * time * c.vocab_size * c.d_model,
    };
  }

  // What a token that has been read keeps in the caches of all layers, in bytes of bf16.
  function cacheBytes(c) {
    const kept = c.latent_dim === null ? 2 * c.num_kv_heads * c.head_dim : c.latent_dim + ropePart(c);
    return 2 * c.num_layers * kept;
  }

  const sum = (parts) => Object.values(parts).reduce((a, b) => a + b, 0);
  const divisors = (n) => Array.from({ length: n }, (_, i) => i + 1).filter((i) => n % i === 0);
  const nearest = (list, wanted) => list.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));

  // A config with one choice changed, and whatever must follow from it: heads divide the width.
  function change(c, field, value) {
    const next = { ...c, [field]: value };
    if (field === "d_model") {
      next.num_heads = nearest(divisors(value).filter((n) => n <= 128), c.num_heads);
      next.d_ff = Math.max(8, Math.round(((c.d_ff / c.d_model) * value) / 8) * 8);
    }
    if (field === "d_model" || field === "num_heads") {
      next.head_dim = next.d_model / next.num_heads;
      const shared = c.num_heads / c.num_kv_heads;
      next.num_kv_heads = nearest(divisors(next.num_heads), next.num_heads / shared);
    }
    return next;
  }

  // Three digits and a unit: 8.03 billion, 16.1 GB.
  function withUnit(count, units) {
    let step = 0;
    while (count >= 999.5 && step < units.length - 1) { count /= 1000; step += 1; }
    const digits = count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
    return `${units[step] === units[0] && Number.isInteger(count) ? count : count.toFixed(digits)}${units[step]}`;
  }
  const COUNT = ["", "\u00a0thousand", "\u00a0million", "\u00a0billion", "\u00a0trillion"];
  const SHORT = ["", "\u00a0k", "\u00a0M", "\u00a0B", "\u00a0T"];
  const BYTES = ["\u00a0B", "\u00a0kB", "\u00a0MB", "\u00a0GB", "\u00a0TB"];

  const api = { parameters, operations, cacheBytes, change, withUnit, sum };

  // ---------------------------------------------------------------------------------- drawing

  const WIDTHS = [64, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 1600, 2048, 3072, 4096, 5120, 8192];
  const VOCABULARIES = [200, 1000, 4096, 8192, 10000, 32000, 50257, 100277, 128256, 200019];
  const KINDS = ["relu", "gelu", "relu2", "silu", "geglu", "swiglu"];
  const ROWS = [["lm_head", "names the next token"], ["norms", "norms"], ["feedforward", "feed-forward"],
    ["attention", "attention"], ["positions", "places"], ["token_embedding", "table of tokens"]];
  const STYLE = `
    .sb-parameters .sb-cols { display: flex; flex-wrap: wrap; gap: 12px 22px; align-items: flex-start; }
    .sb-parameters .sb-picture { flex: 1 1 300px; max-width: 470px; min-width: 0; }
    .sb-parameters .sb-controls { flex: 1 1 250px; min-width: 0; display: grid; gap: 6px;
      grid-template-columns: minmax(0, auto) minmax(0, 1fr); align-items: center; }
    .sb-parameters svg { display: block; width: 100%; touch-action: auto; }
    .sb-parameters text { fill: var(--sb-ink); font: 12px system-ui, sans-serif; }
    .sb-parameters .sb-name { font-weight: 600; }
    .sb-parameters select { min-height: 32px; width: 100%; }
    .sb-parameters input[type=range] { width: 100%; min-width: 0; }
    .sb-parameters input[type=checkbox] { width: 24px; height: 24px; }
    .sb-parameters .sb-value { font-variant-numeric: tabular-nums; }
    .sb-parameters .sb-key { white-space: nowrap; margin-right: 10px; }
    .sb-parameters .sb-key span { display: inline-block; width: 12px; height: 12px; margin-right: 5px; }
    .sb-parameters .sb-result { margin: 10px 0 0; font-variant-numeric: tabular-nums; }`;
  const LEFT = 58; // where the bars begin, right of the stream
  const WIDE = 232; // a bar of 100 %
  const STEP = 46;

  // The stream upward on the left, one row for each part: its parameters above, its operations below.
  function picture(el) {
    const height = ROWS.length * STEP + 26;
    const svg = el("svg", { viewBox: `0 0 360 ${height}`, role: "img" });
    svg.append(el("line", { x1: 22, x2: 22, y1: height - 4, y2: 10, stroke: "var(--sb-ink)", "stroke-width": 3 }),
      el("polygon", { points: "22,2 15,14 29,14", fill: "var(--sb-ink)" }));
    const layer = el("rect", { x: 36, width: 320, y: 2 * STEP - 9 + 14, height: 2 * STEP - 2, rx: 6, fill: "none",
      stroke: "var(--sb-muted)", "stroke-dasharray": "4 3" });
    const times = el("text", { x: 352, y: 2 * STEP + 20, "text-anchor": "end" });
    svg.append(layer, times);
    const rows = {};
    ROWS.forEach(([part, label], i) => {
      const y = 14 + i * STEP;
      const hook = el("line", { x1: 22, x2: LEFT - 4, y1: y + 20, y2: y + 20, stroke: "var(--sb-ink)" });
      const share = el("rect", { x: LEFT, y: y + 13, height: 10, fill: "var(--sb-1)" });
      const work = el("rect", { x: LEFT, y: y + 25, height: 6, fill: "var(--sb-2)" });
      const pairs = el("rect", { x: LEFT, y: y + 25, height: 6, fill: "var(--sb-4)" });
      const name = el("text", { x: LEFT, y: y + 8, class: "sb-name" }, label);
      const number = el("text", { x: LEFT, y: y + 23 });
      svg.append(hook, share, work, pairs, name, number);
      rows[part] = { share, work, pairs, number };
    });
    return { svg, rows, times };
  }

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const names = Object.keys(data.presets);
    let name = data.start in data.presets ? data.start : names[0];
    let config = { ...data.presets[name] };
    let time = Math.min(1024, config.max_seq_len);
    const view = picture(el);
    const result = el("p", { class: "sb-result", "aria-live": "polite" });
    const key = el("p", { class: "sb-muted", style: "margin:4px 0" });
    for (const [colour, text] of [["1", "share of the parameters"], ["2", "of the operations"],
      ["4", "for pairs of tokens"]]) {
      key.append(el("span", { class: "sb-key" }, el("span", { style: `background:var(--sb-${colour})` }), text), " ");
    }
    const controls = el("div", { class: "sb-controls" });
    const refresh = [];
    const id = (word) => `sb-parameters-${names.join("").length}-${word}`;
    const row = (word, text, input, value) => controls.append(
      el("label", { for: id(word) }, text, value ? " " : null, value), input);

    function select(word, text, options, get, set) {
      const input = el("select", { id: id(word) });
      input.addEventListener("change", () => { set(input.value); draw(); });
      refresh.push(() => {
        const wanted = options().map(String);
        if (!wanted.includes(String(get()))) wanted.push(String(get()));
        wanted.sort((a, b) => (isNaN(a) ? 0 : a - b));
        input.replaceChildren(...wanted.map((o) => el("option", { value: o },
          isNaN(o) ? o : Number(o).toLocaleString("en-US"))));
        input.value = String(get());
      });
      row(word, text, input);
    }

    function range(word, text, limits, get, set, show) {
      const input = el("input", { type: "range", id: id(word), ...limits });
      const value = el("span", { class: "sb-value" });
      input.addEventListener("input", () => { set(Number(input.value)); draw(); });
      refresh.push(() => {
        input.value = String(get());
        value.textContent = show();
        input.setAttribute("aria-valuetext", show());
      });
      row(word, text, input, value);
    }

    const put = (field, number) => (value) => { config = change(config, field, number ? Number(value) : value); };
    select("preset", "start from", () => names, () => name, (value) => {
      name = value;
      config = { ...data.presets[value] };
    });
    select("width", "width (d_model)", () => WIDTHS, () => config.d_model, put("d_model", true));
    range("layers", "layers", { min: 1, max: 100, step: 1 }, () => config.num_layers, put("num_layers", true),
      () => String(config.num_layers));
    select("heads", "heads", () => divisors(config.d_model).filter((n) => n <= 128), () => config.num_heads,
      put("num_heads", true));
    select("kv", "key/value heads", () => divisors(config.num_heads), () => config.num_kv_heads,
      put("num_kv_heads", true));
    select("kind", "feed-forward", () => KINDS, () => config.feedforward, put("feedforward"));
    range("dff", "its width", { min: 0.5, max: 8, step: 0.125 }, () => config.d_ff / config.d_model,
      (value) => { config = change(config, "d_ff", Math.max(8, Math.round((value * config.d_model) / 8) * 8)); },
      () => config.d_ff.toLocaleString("en-US"));
    select("vocabulary", "vocabulary", () => VOCABULARIES, () => config.vocab_size, put("vocab_size", true));
    range("time", "tokens at once", { min: 0, max: 17, step: 1 }, () => Math.log2(time),
      (value) => { time = 2 ** value; }, () => time.toLocaleString("en-US"));
    const tied = el("input", { type: "checkbox", id: id("tied") });
    tied.addEventListener("change", () => { config = change(config, "tie_embeddings", tied.checked); draw(); });
    refresh.push(() => { tied.checked = config.tie_embeddings; });
    row("tied", "one table for both ends", tied);

    function draw() {
      refresh.forEach((update) => update());
      const counts = parameters(config);
      const work = operations(config, time);
      const [total, all] = [sum(counts), sum(work)];
      for (const [part] of ROWS) {
        const { share, work: bar, pairs, number } = view.rows[part];
        const done = (work[part] || 0) / all;
        const scored = part === "attention" ? work.scores / all : 0;
        const wide = (WIDE * counts[part]) / total;
        share.setAttribute("width", wide.toFixed(1));
        bar.setAttribute("width", (WIDE * done).toFixed(1));
        pairs.setAttribute("x", (LEFT + WIDE * done).toFixed(1));
        pairs.setAttribute("width", (WIDE * scored).toFixed(1));
        number.setAttribute("x", (LEFT + wide + 5).toFixed(1));
        number.textContent = part === "lm_head" && config.tie_embeddings ? "the same table" :
          counts[part] === 0 ? "none" : `${percent(counts[part] / total)}, ${withUnit(counts[part], SHORT)}`;
      }
      view.times.textContent = `× ${config.num_layers}`;
      view.svg.setAttribute("aria-label", `Shares of the parameters: ${ROWS.map(([part, label]) =>
        `${label} ${percent(counts[part] / total)}`).join(", ")}`);
      const mostly = counts.feedforward > total / 2 ? "More than half is feed-forward." : "";
      result.textContent = `${total.toLocaleString("en-US")} parameters, ${withUnit(2 * total, BYTES)} in bf16. ` +
        `Heads of size ${Number(config.head_dim.toFixed(1))}. Per token ${withUnit(all / time, COUNT)} operations and ${withUnit(cacheBytes(config), BYTES)} of cache. ` +
        `${percent(work.scores / all)} of the operations are for pairs of tokens. ${mostly}`;
      element.dataset.liveState = [name, total, all, time, config.num_heads, config.num_kv_heads].join("/");
    }

    const box = el("div", { class: "sb-parameters" }, el("style", {}, STYLE),
      el("div", { class: "sb-cols" }, el("div", { class: "sb-picture" }, view.svg, key), controls), result);
    draw();
    element.replaceChildren(box);
  }

  const percent = (share) => (share > 0 && share < 0.005 ? "<1\u00a0%" : `${Math.round(100 * share)}\u00a0%`);

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.parameters = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.parameters;
})(typeof window === "undefined" ? globalThis : window);
