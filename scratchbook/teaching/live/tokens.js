// Type any text and see it cut four ways. Chapter: chapters/01_tokenization.ipynb
// The cutting is pure and is tested against the Python package; mount() below only draws it.
(function (root) {
  "use strict";

  // The published patterns, said in JavaScript. Three differences had to be bridged:
  // \s here means Unicode's White_Space, which JavaScript's own \s is not (it has U+FEFF and
  // lacks U+0085); possessive quantifiers do not exist here, and every one of them stands where
  // giving back could not help; (?i:s) also accepts the long s, U+017F.
  const S = "\\p{White_Space}";
  const NOT_S = "\\P{White_Space}";
  const ENDINGS = "'(?:[sS\u017fdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])";
  const UPPER = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
  const LOWER = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
  const BEFORE = "[^\\r\\n\\p{L}\\p{N}]?";
  const PATTERNS = {
    gpt2: [
      "'(?:[sdmt]|ll|ve|re)", " ?\\p{L}+", " ?\\p{N}+", ` ?[^${S}\\p{L}\\p{N}]+`,
      `${S}+(?!${NOT_S})`, `${S}+`,
    ],
    cl100k: [
      ENDINGS, `${BEFORE}\\p{L}+`, "\\p{N}{1,3}", ` ?[^${S}\\p{L}\\p{N}]+[\\r\\n]*`,
      `${S}+$`, `${S}*[\\r\\n]`, `${S}+(?!${NOT_S})`, `${S}+`,
    ],
    o200k: [
      `${BEFORE}[${UPPER}]*[${LOWER}]+(?:${ENDINGS})?`,
      `${BEFORE}[${UPPER}]+[${LOWER}]*(?:${ENDINGS})?`,
      "\\p{N}{1,3}", ` ?[^${S}\\p{L}\\p{N}]+[\\r\\n/]*`, `${S}*[\\r\\n]+`,
      `${S}+(?!${NOT_S})`, `${S}+`,
    ],
  };
  const COMPILED = {};
  for (const [name, parts] of Object.entries(PATTERNS)) {
    COMPILED[name] = new RegExp(parts.join("|"), "gu");
  }

  function split(text, name) {
    return text.match(COMPILED[name]) || [];
  }

  function bytesOf(text) {
    return Array.from(new TextEncoder().encode(text));
  }

  function hex(byte) {
    return byte.toString(16).toUpperCase().padStart(2, "0");
  }

  // data.merges is flat: left id, right id, left id, ... The i-th merge makes the id 256 + i.
  function makeBpe(data) {
    const alphabet = data.alphabet || Array.from({ length: 256 }, (_, byte) => byte);
    const idOfByte = new Map(alphabet.map((byte, id) => [byte, id]));
    const pieces = alphabet.map((byte) => [byte]);
    const ranks = new Map();
    const halves = new Map();
    for (let i = 0; i < data.merges.length; i += 2) {
      const [left, right] = [data.merges[i], data.merges[i + 1]];
      ranks.set(left * 65536 + right, pieces.length);
      halves.set(pieces.length, [left, right]);
      pieces.push(pieces[left].concat(pieces[right]));
    }
    return { idOfByte, pieces, ranks, halves, pattern: data.pattern || "gpt2" };
  }

  // Every state the chunk passes through: the last one is the answer. With a limit, only the
  // merges learned first are known.
  function mergeSteps(bpe, chunk, limit = Infinity) {
    let ids = bytesOf(chunk).map((byte) => bpe.idOfByte.get(byte));
    const steps = [{ ids, at: -1, made: null }];
    for (;;) {
      let made = 256 + limit;
      let at = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const id = bpe.ranks.get(ids[i] * 65536 + ids[i + 1]);
        if (id !== undefined && id < made) [made, at] = [id, i];
      }
      if (at < 0) return steps;
      ids = [...ids.slice(0, at), made, ...ids.slice(at + 2)];
      steps.push({ ids, at, made });
    }
  }

  function encode(bpe, text, limit = Infinity) {
    return split(text, bpe.pattern).flatMap((chunk) => mergeSteps(bpe, chunk, limit).at(-1).ids);
  }

  // What a reader should see of a run of bytes: its text, or the bytes when it is half a letter.
  function visibleBytes(bytes) {
    try {
      const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      return visible(decoder.decode(new Uint8Array(bytes)));
    } catch (error) {
      return bytes.map(hex).join(" ");
    }
  }

  function visible(text) {
    return Array.from(text).map(visibleCharacter).join("");
  }

  function visibleCharacter(character) {
    const code = character.codePointAt(0);
    if (character === " ") return "\u00b7";
    if (character === "\n") return "\u21b5";
    if (character === "\t") return "\u2192";
    if (/\p{M}/u.test(character)) return "\u25cc" + character;
    if (/[\p{C}\p{Z}]/u.test(character)) return "U+" + code.toString(16).toUpperCase().padStart(4, "0");
    return character;
  }

  const api = { PATTERNS, split, bytesOf, makeBpe, mergeSteps, encode, visible, visibleBytes };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-tokens h4 { font-weight: 600; font-size: 1rem; margin: 0; color: inherit; }
    .sb-tokens section { border-top: 1px solid var(--sb-line); padding: 0.5rem 0; }
    .sb-tokens p { margin: 0; }
    .sb-tokens input[type=range] { flex: 1 1 8rem; }
    .sb-tokens .sb-pieces { display: flex; flex-wrap: wrap; gap: 3px; list-style: none;
      margin: 0.3rem 0 0; padding: 3px; max-height: 13rem; overflow-y: auto; }
    .sb-tokens .sb-pieces li { margin: 0; padding: 0 4px; border-radius: 3px; text-align: center;
      font-family: ui-monospace, monospace; font-size: 0.9rem; max-width: 100%;
      overflow-wrap: anywhere; border-bottom: 3px solid var(--piece);
      background: color-mix(in srgb, var(--piece) 20%, transparent); }
    .sb-tokens .sb-pieces small { display: block; font-size: 0.75rem; }
    .sb-tokens .sb-new { outline: 2px solid var(--sb-ink); }`;

  const SAMPLES = [
    ["Prose", "Tokenization isn't glamorous, but unhappiness often begins there: 1234567 times."],
    ["Numbers", "127 + 677 = 804, and 1275 + 6773 = 8048."],
    ["Code", "def area(radius):\n    return 3.14159 * radius ** 2\n"],
    ["Scripts", "Hello, Привет, Γειά, नमस्ते, 你好, こんにちは"],
    ["Emoji", "A family 👩‍👩‍👧 and a thumb 👍🏽 are not one character each."],
  ];
  const LIMIT = 1500;

  function make(tag, properties, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  function drawPieces(list, pieces) {
    list.replaceChildren(...pieces.map(({ text, below, fresh }, i) => {
      const item = make("li", { className: fresh ? "sb-new" : "" }, text);
      item.style.setProperty("--piece", `var(--sb-${1 + (i % 5)})`);
      if (below !== undefined) item.append(make("small", {}, String(below)));
      return item;
    }));
  }

  function count(number, noun) {
    return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  }

  function section(parent, title) {
    const heading = make("h4", { textContent: title });
    const line = make("p", { className: "sb-muted" });
    const list = make("ol", { className: "sb-pieces", tabIndex: 0 });
    list.setAttribute("aria-label", title);
    const box = make("section", {}, heading, line, list);
    parent.append(box);
    return { box, heading, line, list };
  }

  function mount(element, data) {
    const bpe = makeBpe(data);
    const known = bpe.ranks.size;
    const state = { text: data.text || SAMPLES[0][1], chunk: 0, step: 0, second: "cl100k",
      used: bpe.ranks.size };
    const id = (name) => `sb-tokens-${name}`;

    const area = make("textarea", { id: id("text"), rows: 3, maxLength: LIMIT, value: state.text });
    area.spellcheck = false;
    const summary = make("p", { className: "sb-muted" });
    summary.setAttribute("aria-live", "polite");
    const samples = make("div", { className: "sb-row" });
    for (const [name, text] of SAMPLES) {
      const button = make("button", { type: "button", textContent: name });
      button.addEventListener("click", () => { area.value = text; changeText(); });
      samples.append(button);
    }
    const label = make("label", { htmlFor: id("text"), textContent: "Your text" });
    const box = make("div", { className: "sb-tokens" }, make("style", { textContent: STYLE }),
      label, area, samples, summary);

    const characters = section(box, "Characters, with their UTF-8 bytes");
    const ours = section(box, "Our byte-level BPE, with ids");
    const steps = section(box, "How one chunk is merged");
    const gpt2 = section(box, "GPT-2's split (before any merge)");
    const second = section(box, "GPT-4's split (before any merge)");

    const slider = make("input", { id: id("used"), type: "range", min: 0, max: 100, value: 100 });
    const last = make("p", { className: "sb-muted" });
    ours.line.before(make("div", { className: "sb-row" },
      make("label", { htmlFor: id("used"), textContent: "Merges used" }), slider), last);
    const chunkMenu = make("select", { id: id("chunk") });
    const back = make("button", { type: "button", textContent: "Previous merge" });
    const next = make("button", { type: "button", textContent: "Next merge" });
    steps.line.before(make("div", { className: "sb-row" },
      make("label", { htmlFor: id("chunk"), textContent: "Chunk" }), chunkMenu, back, next));
    steps.line.setAttribute("aria-live", "polite");
    const patternMenu = make("select", { id: id("pattern") },
      make("option", { value: "cl100k", textContent: "GPT-4 (cl100k)" }),
      make("option", { value: "o200k", textContent: "GPT-4o (o200k)" }));
    second.line.before(make("div", { className: "sb-row" },
      make("label", { htmlFor: id("pattern"), textContent: "Pattern" }), patternMenu));

    function drawText() {
      const text = state.text;
      const bytes = bytesOf(text);
      const points = Array.from(text);
      const ids = encode(bpe, text, state.used);
      const each = (pieces) => pieces ? (bytes.length / pieces).toFixed(2) : "0";
      drawPieces(characters.list, points.map((character) => (
        { text: visible(character), below: bytesOf(character).map(hex).join(" ") })));
      characters.line.textContent = `${count(points.length, "character")}, ` +
        `${count(bytes.length, "byte")}: ${each(points.length)} bytes each`;
      drawPieces(ours.list, ids.map((token) => (
        { text: visibleBytes(bpe.pieces[token]), below: token })));
      ours.line.textContent = `${count(ids.length, "token")}: ${each(ids.length)} bytes each`;
      drawLastMerge();
      drawSplit(gpt2, "gpt2", each);
      drawSplit(second, state.second, each);
      summary.textContent = `${count(points.length, "character")}, ` +
        `${count(bytes.length, "byte")}, ${count(ids.length, "token")} of ours`;
      chunkMenu.replaceChildren(...split(text, bpe.pattern).map((chunk, i) => (
        make("option", { value: i, textContent: visible(chunk).slice(0, 40) }))));
    }

    // The last of the merges in use: which two pieces it joins.
    function drawLastMerge() {
      const total = `${state.used.toLocaleString("en")} of ${known.toLocaleString("en")} merges`;
      const both = bpe.halves.get(255 + state.used) || [];
      const [left, right] = both.map((piece) => visibleBytes(bpe.pieces[piece]));
      last.textContent = both.length ? `${total}; the last joins ${left} and ${right}` : total;
      slider.setAttribute("aria-valuetext", total);
    }

    function drawSplit(place, name, each) {
      const chunks = split(state.text, name);
      drawPieces(place.list, chunks.map((chunk) => ({ text: visible(chunk) })));
      place.line.textContent = `${count(chunks.length, "chunk")}: ${each(chunks.length)} ` +
        "bytes each; merges never cross a chunk's edge";
    }

    function drawSteps() {
      const chunk = split(state.text, bpe.pattern)[state.chunk] || "";
      const all = mergeSteps(bpe, chunk, state.used);
      state.step = Math.min(state.step, all.length - 1);
      const { ids, at, made } = all[state.step];
      drawPieces(steps.list, ids.map((token, i) => (
        { text: visibleBytes(bpe.pieces[token]), below: token, fresh: i === at })));
      const did = made === null ? "the bytes as they come"
        : `merge number ${made - 255} made ${visibleBytes(bpe.pieces[made])}`;
      steps.line.textContent = `Step ${state.step} of ${all.length - 1}: ${did}; ` +
        `${count(ids.length, "piece")} left`;
      chunkMenu.value = String(state.chunk);
      back.disabled = state.step === 0;
      next.disabled = state.step === all.length - 1;
      let sum = 0;
      for (const byte of bytesOf(state.text)) sum = (sum * 31 + byte) % 1000003;
      element.dataset.liveState = [sum, state.second, state.used, state.chunk,
        state.step].join("/");
    }

    function longestChunk() {
      const lengths = split(state.text, bpe.pattern).map((chunk) => chunk.length);
      return Math.max(0, lengths.indexOf(Math.max(...lengths)));
    }

    function changeText() {
      state.text = area.value;
      state.chunk = longestChunk();
      state.step = 0;
      drawText();
      drawSteps();
    }

    area.addEventListener("input", changeText);
    // the first merges matter most, so the slider's left half holds a quarter of them
    slider.addEventListener("input", () => {
      state.used = Math.round(known * (slider.value / 100) ** 2);
      state.step = 0;
      drawText();
      drawSteps();
    });
    chunkMenu.addEventListener("change", () => {
      state.chunk = Number(chunkMenu.value);
      state.step = 0;
      drawSteps();
    });
    back.addEventListener("click", () => { state.step -= 1; drawSteps(); });
    next.addEventListener("click", () => { state.step += 1; drawSteps(); });
    patternMenu.addEventListener("change", () => {
      state.second = patternMenu.value;
      drawText();
      drawSteps();
    });

    changeText();
    element.replaceChildren(box);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.tokens = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.tokens;
})(typeof window === "undefined" ? globalThis : window);
