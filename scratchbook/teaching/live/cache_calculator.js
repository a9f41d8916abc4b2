// Bytes of a model's cache under each kind of attention. Chapter: chapters/02b_attention_variants.ipynb
// The sums are those of the chapter's companion, which equal the tensors of real caches; mount() only draws them.
// Data: { start: name, slack: tokens, presets: { name: sizes } }.
(function (root) {
  "use strict";

  const KINDS = ["MHA", "GQA", "MQA", "latent", "window", "linear"];

  // Bytes for `context` tokens in all layers; `size` is the bytes of one number.
  function cacheBytes(kind, s, slack) {
    const kept = { MHA: 2 * s.heads * s.head_dim, GQA: 2 * s.kv_heads * s.head_dim, MQA: 2 * s.head_dim,
      latent: s.latent + s.rope, window: 2 * s.kv_heads * s.head_dim, linear: 0 }[kind];
    const tokens = kind === "window" ? Math.min(s.context, s.window - 1 + slack) : s.context;
    const state = kind === "linear" ? s.heads * s.head_dim * (s.head_dim + 1) : 0;
    return s.layers * s.batch * s.size * (kept * tokens + state);
  }

  // Three digits and a unit.
  function withUnit(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let step = 0;
    while (bytes >= 1023.5 && step < units.length - 1) { bytes /= 1024; step += 1; }
    return `${bytes >= 99.95 || step === 0 ? Math.round(bytes) : bytes.toPrecision(3)}\u00a0${units[step]}`;
  }

  const divisors = (n) => Array.from({ length: n }, (_, i) => i + 1).filter((i) => n % i === 0);

  // Sizes with one changed, and what must follow: key heads divide the heads.
  function change(sizes, field, value) {
    const next = { ...sizes, [field]: value };
    if (field === "heads") {
      next.kv_heads = divisors(value).reduce((a, b) =>
        (Math.abs(b - sizes.kv_heads) < Math.abs(a - sizes.kv_heads) ? b : a));
    }
    return next;
  }

  const api = { KINDS, cacheBytes, withUnit, change };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-cache .sb-cols { display: flex; flex-wrap: wrap; gap: 12px 22px; align-items: flex-start; }
    .sb-cache .sb-picture { flex: 1 1 300px; max-width: 460px; min-width: 0; }
    .sb-cache .sb-controls { flex: 1 1 250px; min-width: 0; display: grid; gap: 6px;
      grid-template-columns: minmax(0, auto) minmax(0, 1fr); align-items: center; }
    .sb-cache svg { display: block; width: 100%; touch-action: auto; }
    .sb-cache text { fill: var(--sb-ink); font: 13px system-ui, sans-serif; }
    .sb-cache select { min-height: 32px; width: 100%; }
    .sb-cache input[type=range] { width: 100%; min-width: 0; }
    .sb-cache .sb-value { font-variant-numeric: tabular-nums; }
    .sb-cache .sb-result { margin: 10px 0 0; font-variant-numeric: tabular-nums; }`;
  const LEFT = 62;
  const WIDE = 210; // the longest bar
  const powers = (low, high) => Array.from({ length: high - low + 1 }, (_, i) => 2 ** (low + i));
  const CHOICES = [["layers", "layers", [1, 2, 4, 6, 12, 24, 32, 48, 61, 80, 126]],
    ["heads", "heads", powers(0, 7)], ["kv_heads", "key/value heads", null],
    ["head_dim", "size of a head", [16, 32, 64, 96, 128, 256]],
    ["latent", "latent", [64, 128, 256, 512, 1024, 2048]], ["rope", "its rotated key", [16, 32, 64, 128]],
    ["size", "bytes per number", [1, 2, 4]]];
  const RANGES = [["context", "tokens", 7, 20], ["window", "window", 4, 17], ["batch", "texts at once", 0, 10]];

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const names = Object.keys(data.presets);
    let name = data.start;
    let sizes = { ...data.presets[name] };
    const refresh = [];
    const rows = {};
    const picture = el("svg", { viewBox: `0 0 360 ${KINDS.length * 34 + 6}`, role: "img" });
    KINDS.forEach((kind, i) => {
      const y = 4 + i * 34;
      const bar = el("rect", { x: LEFT, y: y + 4, height: 20, fill: `var(--sb-${i + 1})` });
      const text = el("text", { y: y + 19 });
      picture.append(el("text", { x: LEFT - 6, y: y + 19, "text-anchor": "end" }, kind), bar, text);
      rows[kind] = { bar, text };
    });
    const result = el("p", { class: "sb-result", "aria-live": "polite" });
    const controls = el("div", { class: "sb-controls" });
    const id = (word) => `sb-cache-${word}`;

    function select(word, text, options, get, set) {
      const input = el("select", { id: id(word) });
      input.addEventListener("change", () => { set(input.value); draw(); });
      refresh.push(() => {
        const wanted = options().map(String);
        if (!wanted.includes(String(get()))) wanted.push(String(get()));
        if (!wanted.some(isNaN)) wanted.sort((a, b) => a - b);
        input.replaceChildren(...wanted.map((o) => el("option", { value: o }, o)));
        input.value = String(get());
      });
      controls.append(el("label", { for: id(word) }, text), input);
    }

    function range(field, text, low, high) {
      const input = el("input", { type: "range", id: id(field), min: low, max: high, step: 1 });
      const value = el("span", { class: "sb-value" });
      input.addEventListener("input", () => { sizes = change(sizes, field, 2 ** Number(input.value)); draw(); });
      refresh.push(() => {
        input.value = String(Math.log2(sizes[field]));
        value.textContent = sizes[field].toLocaleString("en-US");
        input.setAttribute("aria-valuetext", value.textContent);
      });
      controls.append(el("label", { for: id(field) }, text, " ", value), input);
    }

    select("preset", "start from", () => names, () => name, (value) => {
      name = value;
      sizes = { ...data.presets[value] };
    });
    RANGES.forEach((row) => range(...row));
    CHOICES.forEach(([field, text, list]) => select(field, text, () => list || divisors(sizes.heads),
      () => sizes[field], (value) => { sizes = change(sizes, field, Number(value)); }));

    function draw() {
      refresh.forEach((update) => update());
      const found = KINDS.map((kind) => cacheBytes(kind, sizes, data.slack));
      const most = Math.max(...found);
      KINDS.forEach((kind, i) => {
        const width = Math.max(1, (WIDE * found[i]) / most);
        rows[kind].bar.setAttribute("width", width.toFixed(1));
        rows[kind].text.setAttribute("x", (LEFT + width + 6).toFixed(1));
        rows[kind].text.textContent = withUnit(found[i]);
      });
      const told = KINDS.map((kind, i) => `${kind} ${withUnit(found[i])}`).join(", ");
      picture.setAttribute("aria-label", `Cache of each kind: ${told}`);
      const oneMore = cacheBytes("MHA", { ...sizes, context: 1, batch: 1 }, data.slack);
      const times = found[0] / found[3];
      result.textContent = `${sizes.context.toLocaleString("en-US")} tokens of ${sizes.batch.toLocaleString("en-US")} ` +
        `text${sizes.batch > 1 ? "s" : ""}: ${withUnit(found[0])} with a key and value for every head, ` +
        `${withUnit(oneMore)} for each token. Sharing ${sizes.kv_heads} of ${sizes.heads} needs ` +
        `1/${Number((found[0] / found[1]).toPrecision(3))} of it, the latent 1/${Number(times.toPrecision(3))}.`;
      element.dataset.liveState = [name, ...Object.values(sizes)].join("/");
    }

    const box = el("div", { class: "sb-cache" }, el("style", {}, STYLE),
      el("div", { class: "sb-cols" }, el("div", { class: "sb-picture" }, picture), controls), result);
    draw();
    element.replaceChildren(box);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.cache_calculator = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.cache_calculator;
})(typeof window === "undefined" ? globalThis : window);
