// The tiny model of chapters/00_start_here.ipynb, computed in the reader's browser.
// The arithmetic is pure and is tested against torch; mount() below only draws it.
(function (root) {
  "use strict";

  const EPSILON = 1e-6; // inside the root of the norm, as in the chapter

  function halfToNumber(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  function bytesFromBase64(text) {
    if (typeof atob !== "function") return Uint8Array.from(Buffer.from(text, "base64"));
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  // A model from its file: sizes, alphabet, and the weights in the order that `shapes` names.
  function load(file) {
    const bytes = bytesFromBase64(file.weights);
    const letters = Array.from(file.letters);
    const model = { ...file.config, letters, card: file.card || {}, tensors: {} };
    let at = 0;
    for (const [name, shape] of file.shapes) {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < values.length; i++, at += 2) {
        values[i] = halfToNumber(bytes[at] | (bytes[at + 1] << 8));
      }
      model.tensors[name] = values;
    }
    if (at !== bytes.length) {
      throw new Error(`the shapes ask for ${at} bytes of weights, the file holds ${bytes.length}`);
    }
    model.numberOf = new Map(model.letters.map((letter, id) => [letter, id]));
    return model;
  }

  const encode = (model, text) =>
    Array.from(text, (c) => model.numberOf.get(c)).filter((id) => id !== undefined);
  const decode = (model, ids) => ids.map((id) => model.letters[id]).join("");

  // y = W x for a matrix stored row by row, as torch's Linear stores it
  function linear(weight, x, size) {
    const y = new Float32Array(size);
    const width = x.length;
    for (let row = 0, at = 0; row < size; row++, at += width) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += weight[at + i] * x[i];
      y[row] = sum;
    }
    return y;
  }

  function norm(x) {
    let sum = 0;
    for (const value of x) sum += value * value;
    const scale = 1 / Math.sqrt(sum / x.length + EPSILON);
    return x.map((value) => value * scale);
  }

  // What attention may remember: keys and values per block, in a ring of `room` rows.
  function newCache(model, room = model.context) {
    const rows = () => new Float32Array(room * model.d_model);
    const block = () => ({ keys: rows(), values: rows() });
    return { blocks: Array.from({ length: model.num_layers }, block), room, length: 0 };
  }

  // One query against the last `context` letters; position p lives in row p % room.
  function attend(model, q, kept, room, position) {
    const { d_model, num_heads, context } = model;
    const size = d_model / num_heads;
    const first = Math.max(0, position - context + 1);
    const mixed = new Float32Array(d_model);
    for (let head = 0; head < num_heads; head++) {
      const scores = [];
      for (let p = first; p <= position; p++) {
        const row = (p % room) * d_model + head * size;
        let dot = 0;
        for (let i = 0; i < size; i++) dot += q[head * size + i] * kept.keys[row + i];
        scores.push(dot / Math.sqrt(size) - 4 ** -head * (position - p));
      }
      const weights = softmax(scores);
      for (let p = first; p <= position; p++) {
        const row = (p % room) * d_model + head * size;
        const share = weights[p - first];
        for (let i = 0; i < size; i++) mixed[head * size + i] += share * kept.values[row + i];
      }
    }
    return mixed;
  }

  // Attention of one block for the letter at `position`, whose key and value are stored on the way.
  function attention(model, weight, kept, room, position, normed) {
    const size = model.d_model;
    const row = (position % room) * size;
    kept.keys.set(linear(weight("attention.k_proj"), normed, size), row);
    kept.values.set(linear(weight("attention.v_proj"), normed, size), row);
    const q = linear(weight("attention.q_proj"), normed, size);
    return linear(weight("attention.o_proj"), attend(model, q, kept, room, position), size);
  }

  function feedForward(model, weight, normed) {
    const hidden = linear(weight("up_proj"), normed, 4 * model.d_model);
    return linear(weight("down_proj"), hidden.map((h) => (h > 0 ? h * h : 0)), model.d_model);
  }

  const add = (x, y) => x.map((value, i) => value + y[i]);
  const block = (model, layer) => (name) => model.tensors[`blocks.${layer}.${name}.weight`];

  function embed(model, id) {
    const size = model.d_model;
    return model.tensors["token_embedding.weight"].slice(id * size, (id + 1) * size);
  }

  const head = (model, x) => linear(model.tensors["lm_head.weight"], norm(x), model.letters.length);

  // Read one letter and return a logit for each letter that could come next.
  function step(model, cache, id) {
    const position = cache.length++;
    let x = embed(model, id);
    cache.blocks.forEach((kept, layer) => {
      const weight = block(model, layer);
      x = add(x, attention(model, weight, kept, cache.room, position, norm(x)));
      x = add(x, feedForward(model, weight, norm(x)));
    });
    return head(model, x);
  }

  // The same without a memory between calls: the whole text through each block in turn, like torch.
  function forward(model, ids) {
    const { blocks, room } = newCache(model, ids.length);
    let rows = ids.map((id) => embed(model, id));
    blocks.forEach((kept, layer) => {
      const weight = block(model, layer);
      rows = rows.map((x, p) => add(x, attention(model, weight, kept, room, p, norm(x))));
      rows = rows.map((x) => add(x, feedForward(model, weight, norm(x))));
    });
    return rows.map((x) => head(model, x));
  }

  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const raised = Array.from(scores, (s) => Math.exp(s - largest));
    const total = raised.reduce((a, b) => a + b, 0);
    return raised.map((r) => r / total);
  }

  // Probabilities after temperature and top-k. Equal logits at the edge are all kept, as in torch
  // when everything below the k-th largest value is cut.
  function probabilities(logits, temperature = 1, topK = 0) {
    if (!(temperature > 0)) throw new Error(`temperature is ${temperature}, it must be above 0`);
    let scores = Array.from(logits, (l) => l / temperature);
    if (topK > 0 && topK < scores.length) {
      const edge = [...scores].sort((a, b) => b - a)[topK - 1];
      scores = scores.map((s) => (s < edge ? -Infinity : s));
    }
    return softmax(scores);
  }

  // The letter at which the running sum of probabilities passes u, which is in [0, 1).
  function pick(probs, u) {
    let sum = 0;
    let last = 0;
    for (let id = 0; id < probs.length; id++) {
      if (probs[id] === 0) continue;
      last = id;
      sum += probs[id];
      if (u < sum) return id;
    }
    return last; // rounding left the sum a little below one
  }

  // A small generator of numbers in [0, 1) that a seed repeats (mulberry32).
  function randomFrom(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  const NAMES = { " ": "space", "\n": "new line", "\t": "tab" };

  const MOST = 600; // letters in one press of Write
  const SHOWN = 8; // bars
  const MONO = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace";
  const STYLE = `
  .sb-tiny{display:flex;flex-wrap:wrap;gap:4px 20px}
  .sb-tiny>div{flex:3 1 300px;min-width:0}.sb-tiny>div+div{flex:2 1 240px}
  .sb-tiny-start{flex:1 1 9em;min-width:0}
  .sb-tiny-paper{white-space:pre-wrap;overflow-wrap:anywhere;overflow-y:auto;height:14.5em;
    padding:8px 10px;border:1px solid var(--sb-line);border-radius:6px;background:var(--sb-soft);
    font:14px/1.5 ${MONO}}
  .sb-tiny-small{margin:6px 0;font-size:13px}
  .sb-tiny .sb-tiny-bar{display:flex;gap:10px;align-items:center;width:100%;min-height:28px;
    padding:1px 8px;border-color:transparent;background:none}
  .sb-tiny-bar>:nth-child(1){flex:0 0 5em;text-align:right;white-space:nowrap;font:14px ${MONO}}
  .sb-tiny-bar>:nth-child(2){flex:1 1 auto;min-width:0}
  .sb-tiny-bar span span{display:block;height:12px;border-radius:3px;background:var(--sb-1)}
  .sb-tiny-bar>:nth-child(3){flex:0 0 4.2em;text-align:right}
  .sb-tiny-slider{display:flex;gap:8px;align-items:center}.sb-tiny-slider label{flex:0 0 6.8em}
  .sb-tiny-slider input{flex:1 1 auto;min-width:0}
  .sb-tiny-slider output{flex:0 0 2.2em;text-align:right;font-variant-numeric:tabular-nums}`;

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const settings = data || {};
    const file = settings.weights ? settings : root.Scratchbook.tinyModelWeights;
    if (!file) throw new Error("there are no weights: load tiny_model_weights.js before");
    const ui = { el, element, model: load(file), text: "", prompt: "", left: 0, changes: 0 };
    ui.random = randomFrom(settings.seed === undefined ? Date.now() : settings.seed);
    const halves = el("div", { class: "sb-tiny" }, makePaper(ui, settings), makeBoard(ui));
    element.replaceChildren(el("style", {}, STYLE), halves,
      el("p", { class: "sb-muted sb-tiny-small" }, ui.model.card.line || ""));
    restart(ui);
  }

  // Left: what is given, what was written, and the buttons.
  function makePaper(ui, settings) {
    const { el } = ui;
    const small = "sb-muted sb-tiny-small";
    ui.start = el("input", { type: "text", id: uniqueId("start"), class: "sb-tiny-start",
      value: settings.prompt || "The function ", autocomplete: "off", autocapitalize: "off",
      spellcheck: "false", maxlength: 300, oninput: () => restart(ui) });
    ui.write = el("button", { type: "button", onclick: () => toggle(ui) }, "Write");
    const one = el("button", { type: "button", onclick: () => oneLetter(ui) }, "One letter");
    const again = el("button", { type: "button", onclick: () => restart(ui) }, "Restart");
    ui.given = el("span", { class: "sb-muted" });
    ui.written = el("span", {});
    ui.paper = el("div", { class: "sb-tiny-paper", tabindex: "0", role: "group",
      "aria-label": "The text so far" }, ui.given, ui.written);
    ui.status = el("p", { class: small, "aria-live": "polite" });
    const label = el("label", { for: ui.start.id }, "You begin");
    return el("div", {}, el("div", { class: "sb-row" }, label, ui.start), ui.paper,
      el("div", { class: "sb-row" }, ui.write, one, again), ui.status);
  }

  // Right: the two knobs, and the bets on the next letter.
  function makeBoard(ui) {
    const { el } = ui;
    const vocab = ui.model.letters.length;
    const name = "The likeliest next letters; press one to choose it";
    ui.temperature = slider(ui, "Temperature", { min: 0.1, max: 2, step: 0.1, value: 0.7 },
      (value) => value.toFixed(1));
    ui.topK = slider(ui, "Top-k", { min: 1, max: vocab, step: 1, value: vocab },
      (value) => (value === vocab ? "all" : String(value)));
    ui.bars = el("div", { role: "group", "aria-label": name });
    const what = el("p", { class: "sb-muted sb-tiny-small" },
      "Its bets on the next letter; press one to choose it");
    return el("div", {}, ui.temperature.row, ui.topK.row, what, ui.bars);
  }

  function slider(ui, name, range, shown) {
    const id = uniqueId(name);
    const value = ui.el("output", { for: id });
    const input = ui.el("input", { type: "range", id, ...range, oninput: () => {
      say();
      drawBars(ui);
      changed(ui);
    } });
    const say = () => {
      value.textContent = shown(Number(input.value));
      input.setAttribute("aria-valuetext", value.textContent);
    };
    say();
    const label = ui.el("label", { for: id }, name);
    const row = ui.el("div", { class: "sb-tiny-slider" }, label, input, value);
    return { row, get value() { return Number(input.value); } };
  }

  let made = 0;
  const uniqueId = (name) => `sb-tiny-${name.toLowerCase().replace(/[^a-z]/g, "")}-${++made}`;

  function changed(ui) {
    ui.changes += 1;
    const doing = ui.left > 0 ? "writing" : "still";
    ui.element.dataset.liveState = `${ui.changes}:${ui.text.length}:${doing}`;
  }

  // Forget what was written and read the beginning again.
  function restart(ui) {
    stop(ui);
    ui.cache = newCache(ui.model);
    const unknown = new Set(Array.from(ui.start.value).filter((c) => !ui.model.numberOf.has(c)));
    const ids = encode(ui.model, ui.start.value);
    ui.prompt = decode(ui.model, ids);
    ui.text = "";
    // with nothing to read, it begins after the end of a line
    if (ids.length === 0) ids.push(ui.model.numberOf.get("\n") || 0);
    for (const id of ids) ui.logits = step(ui.model, ui.cache, id);
    ui.note = unknown.size ? `Not in its alphabet, left out: ${[...unknown].join(" ")}` : "";
    draw(ui);
  }

  function append(ui, id) {
    ui.text += ui.model.letters[id];
    ui.logits = step(ui.model, ui.cache, id);
  }
  const current = (ui) => probabilities(ui.logits, ui.temperature.value, ui.topK.value);

  function oneLetter(ui) {
    stop(ui);
    append(ui, pick(current(ui), ui.random()));
    draw(ui);
  }

  function toggle(ui) {
    if (ui.left > 0) return stop(ui);
    ui.left = MOST;
    ui.write.textContent = "Stop";
    ui.status.textContent = "Writing.";
    ui.paper.setAttribute("aria-busy", "true");
    const calm = root.matchMedia && root.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const perFrame = calm ? MOST : 3;
    const frame = () => {
      for (let i = 0; i < perFrame && ui.left > 0; i++, ui.left--) {
        append(ui, pick(current(ui), ui.random()));
      }
      if (ui.left === 0) stop(ui);
      draw(ui);
      if (ui.left > 0) ui.frame = root.requestAnimationFrame(frame);
    };
    ui.frame = root.requestAnimationFrame(frame);
    return undefined;
  }

  function stop(ui) {
    if (ui.frame) root.cancelAnimationFrame(ui.frame);
    ui.frame = 0;
    ui.left = 0;
    ui.write.textContent = "Write";
    ui.paper.removeAttribute("aria-busy");
    if (ui.logits) status(ui);
    changed(ui);
  }

  function status(ui) {
    if (ui.left > 0) return; // said once, when the writing stops
    ui.status.textContent = ui.note || `${ui.text.length} letters written.`;
  }

  function draw(ui) {
    ui.given.textContent = ui.prompt;
    ui.written.textContent = ui.text;
    ui.paper.scrollTop = ui.paper.scrollHeight;
    status(ui);
    drawBars(ui);
    changed(ui);
  }

  // One button per likely letter, made once, so that the focus stays where the reader put it.
  function drawBars(ui) {
    const probs = current(ui);
    const best = probs.map((p, id) => id).sort((a, b) => probs[b] - probs[a]).slice(0, SHOWN);
    if (!ui.rows) {
      ui.rows = best.map((_, place) => makeBar(ui, place));
      ui.bars.append(...ui.rows.map((row) => row.button));
    }
    ui.best = best;
    best.forEach((id, place) => {
      const row = ui.rows[place];
      const percent = 100 * probs[id];
      row.letter.textContent = NAMES[ui.model.letters[id]] || ui.model.letters[id];
      row.bar.style.width = `${percent.toFixed(1)}%`;
      const rare = percent > 0 && percent < 0.05;
      row.number.textContent = rare ? "< 0.1 %" : `${percent.toFixed(1)} %`;
      row.button.setAttribute("aria-label", `${row.letter.textContent}, ${row.number.textContent}`);
      row.button.disabled = percent === 0;
    });
  }

  function makeBar(ui, place) {
    const [letter, bar] = [ui.el("span", {}), ui.el("span", {})];
    const number = ui.el("span", { class: "sb-muted" });
    const choose = () => {
      const id = ui.best[place];
      stop(ui);
      append(ui, id);
      draw(ui);
    };
    const button = ui.el("button", { type: "button", class: "sb-tiny-bar", onclick: choose },
      letter, ui.el("span", {}, bar), number);
    return { button, letter, bar, number };
  }

  const api = { halfToNumber, load, encode, decode, newCache, step, forward, norm, softmax,
    probabilities, pick, randomFrom };
  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.tiny_model = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.tiny_model;
})(typeof window === "undefined" ? globalThis : window);
