// Paste a log and see it folded. Chapter: chapters/01b_domain_tokenizers.ipynb
// The folding is scratchbook/tokenizers/folding.py, said in JavaScript, and is tested against it;
// byte pairs come from tokens.js; mount() below only draws.
(function (root) {
  "use strict";

  const LINE = /[^\n]*\n|[^\n]+/g;
  const WORD = /([A-Za-z0-9]+)/;
  const LONG = /((?:\/[A-Za-z0-9_.+-]+){2,}|(?<![A-Za-z0-9])[A-Za-z0-9]{6,})/;
  const BLANK = "\ud800";
  const NEW_SLOTS = 128;
  const MOST_SEEN = 128;
  const MOST_SKIP = 47;
  const LONGEST_PERIOD = 8;
  const MOST_TIMES = 999;
  const LONGEST_LINE = 2000;
  const CHARS_PER_TOKEN = 3;

  const isAlpha = (word) => /^[A-Za-z]+$/.test(word);
  // Python counts characters, JavaScript halves of those beyond U+FFFF
  const lengthOf = (text) => Array.from(text).length;

  function cutLine(line) {
    const parts = line.split(WORD);
    const template = parts.map((part, i) => (i % 2 && !isAlpha(part) ? BLANK : part)).join("");
    return { parts, template, between: parts.filter((_, i) => i % 2 === 0).join(BLANK) };
  }

  function countUp(word) {
    if (!/^[0-9]+$/.test(word) || /^9+$/.test(word)) return "";
    return String(BigInt(word) + 1n).padStart(word.length, "0");
  }

  class Memory {
    constructor(templates) {
      this.numTemplates = templates.length;
      this.parts = [];
      this.keys = [];
      this.slotOf = new Map();
      this.latest = new Map();
      this.fresh = 0;
      this.seen = [];
      this.placeOf = new Map();
      this.numSeen = 0;
      templates.forEach((line, slot) => this.put(slot, cutLine(line)));
    }

    put(slot, { parts, template, between }) {
      const old = this.keys[slot];
      if (old && old.template !== template) {
        this.slotOf.delete(old.template);
        if (this.latest.get(old.between) === slot) this.latest.delete(old.between);
      }
      this.parts[slot] = parts;
      this.keys[slot] = { template, between };
      this.slotOf.set(template, slot);
      this.latest.set(between, slot);
    }

    find({ template, between }) {
      return this.slotOf.has(template) ? this.slotOf.get(template) : this.latest.get(between);
    }

    remember(line) {
      if (lengthOf(line) > LONGEST_LINE) return;
      const cut = cutLine(line);
      let slot = this.slotOf.get(cut.template);
      if (slot === undefined) slot = this.numTemplates + (this.fresh++ % NEW_SLOTS);
      this.put(slot, cut);
      line.split(LONG).forEach((word, i) => {
        if (i % 2 && !isAlpha(word) && !this.placeOf.has(word)) this.rememberWord(word);
      });
    }

    rememberWord(word) {
      const place = this.numSeen++ % MOST_SEEN;
      if (place < this.seen.length) this.placeOf.delete(this.seen[place]);
      this.seen[place] = word;
      this.placeOf.set(word, place);
    }
  }

  const mark = (kind, number = 0) => ({ kind, number });

  function repeat(lines, at) {
    let best = [0, 0];
    let longest = 1;
    for (let period = 1; period <= Math.min(LONGEST_PERIOD, at); period++) {
      const last = Math.min(lines.length, at + period * MOST_TIMES);
      let end = at;
      while (end < last && lines[end] === lines[end - period]
             && lengthOf(lines[end]) <= LONGEST_LINE) end++;
      const times = Math.floor((end - at) / period);
      if (times * period > longest) [best, longest] = [[period, times], times * period];
    }
    return best;
  }

  function like(line, memory) {
    const cut = cutLine(line);
    const slot = memory.find(cut);
    if (slot === undefined) return [];
    const marked = [mark("LIKE", slot)];
    let cost = 1;
    let same = 0;
    const old = memory.parts[slot];
    for (let i = 1; i < cut.parts.length; i += 2) {
      const word = cut.parts[i];
      if (word === old[i]) { same++; continue; }
      for (; same > MOST_SKIP; same -= MOST_SKIP + 1) marked.push(mark("FAR"));
      const place = memory.placeOf.get(word);
      if (word === countUp(old[i])) {
        marked.push(mark("UP", same));
      } else if (place !== undefined) {
        marked.push(mark("SKIP", same), mark("SEEN", place));
        cost += 1;
      } else {
        marked.push(mark("SKIP", same), word);
        cost += Math.ceil(word.length / CHARS_PER_TOKEN);
      }
      cost += 1;
      same = 0;
    }
    return CHARS_PER_TOKEN * (cost - 1) <= lengthOf(line) ? marked : [];
  }

  function withSeen(line, memory) {
    return line.split(LONG).map((part, i) => {
      const place = i % 2 ? memory.placeOf.get(part) : undefined;
      return place === undefined ? part : mark("SEEN", place);
    });
  }

  // Strings side by side become one, empty ones go.
  function joined(steps) {
    const out = [];
    for (const step of steps) {
      if (typeof step === "string" && typeof out.at(-1) === "string") out[out.length - 1] += step;
      else if (step !== "") out.push(step);
    }
    return out;
  }

  function fold(text, templates = []) {
    const memory = new Memory(templates);
    const lines = text.match(LINE) || [];
    const folded = [];
    let plain = [];
    let inText = true;
    for (let at = 0; at < lines.length;) {
      const line = lines[at];
      const [period, times] = repeat(lines, at);
      const short = lengthOf(line) <= LONGEST_LINE;
      const marked = times ? [mark("AGAIN", period), String(times)]
        : short ? like(line, memory) : [];
      if (marked.length) {
        folded.push(...joined(plain), ...marked);
        plain = [];
        inText = false;
      } else {
        plain.push(...(inText ? [] : [mark("TEXT")]), ...withSeen(line, memory));
        inText = true;
      }
      if (!times) memory.remember(line);
      at += period * times || 1;
    }
    folded.push(...joined(plain));
    return folded;
  }

  // Each token as {text} or {mark}.
  function tokensOf(folded, bpe) {
    const tokens = root.Scratchbook.tokens;
    return folded.flatMap((step) => (typeof step === "string"
      ? tokens.encode(bpe, step).map((id) => ({ text: tokens.visibleBytes(bpe.pieces[id]) }))
      : [{ mark: ["TEXT", "FAR"].includes(step.kind) ? step.kind : `${step.kind} ${step.number}` }]));
  }

  const api = { fold, tokensOf, cutLine };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-logs textarea { font-family: ui-monospace, monospace; font-size: 0.85rem; }
    .sb-logs input[type=checkbox] { width: 24px; height: 24px; }
    .sb-logs p { margin: 0.3rem 0; }
    .sb-logs ol { display: flex; flex-wrap: wrap; gap: 3px; list-style: none; margin: 0.3rem 0;
      padding: 3px; max-height: 14rem; overflow-y: auto; }
    .sb-logs li { margin: 0; padding: 0 4px; border-radius: 3px; max-width: 100%;
      overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 0.85rem;
      border-bottom: 3px solid var(--sb-1); }
    .sb-logs li.sb-mark { border-bottom-color: var(--sb-2); font-weight: 600; }`;
  const LIMIT = 20000;
  const SHOWN = 400;

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const tokens = root.Scratchbook.tokens;
    const [ours, plain] = [tokens.makeBpe(data.ours), tokens.makeBpe(data.plain)];
    const area = el("textarea", { id: "sb-logs-text", rows: 7, maxlength: LIMIT, wrap: "off" });
    area.spellcheck = false;
    area.value = data.text;
    const learned = el("input", { type: "checkbox", id: "sb-logs-learned" });
    learned.checked = true;
    const said = el("p", { "aria-live": "polite" });
    const list = el("ol", { tabindex: 0, "aria-label": "tokens" });
    const samples = el("div", { class: "sb-row" });
    for (const [name, text] of Object.entries(data.samples)) {
      samples.append(el("button", { type: "button",
        onclick: () => { area.value = text; draw(); } }, name));
    }

    function draw() {
      const text = area.value;
      const folded = fold(text, learned.checked ? data.templates : []);
      const pieces = tokensOf(folded, ours);
      const rival = tokens.encode(plain, text).length;
      const bytes = tokens.bytesOf(text).length;
      const share = rival ? `${Math.round((100 * pieces.length) / rival)} %` : "none";
      said.textContent = `${bytes.toLocaleString("en")} bytes, ` +
        `${pieces.length.toLocaleString("en")} tokens; plain BPE of the same size, learned from ` +
        `the same log: ${rival.toLocaleString("en")}. Ours are ${share} of that.`;
      list.replaceChildren(...pieces.slice(0, SHOWN).map((piece) => (
        el("li", { class: piece.mark ? "sb-mark" : "" }, piece.mark || piece.text))));
      if (pieces.length > SHOWN) list.append(el("li", {}, `and ${pieces.length - SHOWN} more`));
      element.dataset.liveState = [bytes, pieces.length, rival, learned.checked].join("/");
    }

    area.addEventListener("input", draw);
    learned.addEventListener("change", draw);
    const box = el("div", { class: "sb-logs" }, el("style", {}, STYLE),
      el("label", { for: "sb-logs-text" }, "Your log"), area, samples,
      el("div", { class: "sb-row" }, learned,
        el("label", { for: "sb-logs-learned" }, "use the templates that were learned")),
      said, list);
    draw();
    element.replaceChildren(box);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.logs = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.logs;
})(typeof window === "undefined" ? globalThis : window);
