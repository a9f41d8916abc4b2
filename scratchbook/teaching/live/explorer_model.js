// The reader's own text through the Smalltalk model, in a worker of the page: its ids, its tokens and what every
// head looked at, as AttentionView.to_json writes them. Chapter: chapters/06d_seeing_attention.ipynb
(function define(root) {
  "use strict";

  const SCALE = 1000;
  const PARTS = ["smalltalkTokens", "safetensors", "smalltalkModel", "smalltalkSyntax", "smalltalkOverlay", "explorerModel"];
  const MISSING = "The model lies beside the published page, and is not here: open this figure there. In a notebook, AttentionView "
    + "reads any text.";
  const parts = () => root.Scratchbook;

  // file: {weights: base64, tables, tokenizer}; before: names of the special tokens that stand before a text.
  function makeReader(file, before, name, progress) {
    const { smalltalkModel, smalltalkTokens, safetensors } = parts();
    const model = smalltalkModel.load(safetensors.bytesFromBase64(file.weights), file.tables, progress);
    const tokenizer = smalltalkTokens.makeTokenizer(file.tokenizer);
    return { model, tokenizer, before, name, cache: smalltalkModel.newCache(model) };
  }

  // A token's bytes as text; those of half a character as backslash and hexadecimal digits, as Python has them.
  function spelled(bytes) {
    const text = [];
    const utf8 = () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    for (let at = 0; at < bytes.length; ) {
      const size = bytes[at] < 0x80 ? 1 : bytes[at] < 0xe0 ? 2 : bytes[at] < 0xf0 ? 3 : 4;
      try {
        if (at + size > bytes.length) throw new Error("cut");
        text.push(utf8().decode(bytes.subarray(at, at + size)));
        at += size;
      } catch (error) {
        text.push(`\\x${bytes[at].toString(16).padStart(2, "0")}`);
        at += 1;
      }
    }
    return text.join("");
  }

  // Where each piece of a text's bytes begins and ends: in characters, and in units of JavaScript's strings. A
  // piece that holds a part of a character covers all of it.
  function spansOf(text, sizes) {
    const [begins, units] = [[], []]; // of every byte: the character and the unit that it belongs to
    let [character, unit] = [0, 0];
    for (const letter of text) {
      for (let left = new TextEncoder().encode(letter).length; left > 0; left--) {
        begins.push(character);
        units.push([unit, unit + letter.length]);
      }
      [character, unit] = [character + 1, unit + letter.length];
    }
    let at = 0;
    return sizes.map((size) => {
      const [first, last] = [at, at + size - 1];
      at += size;
      return { characters: [begins[first], begins[last] + 1], units: [units[first][0], units[last][1]] };
    });
  }

  const count = (size) => Array.from({ length: size }, (_, at) => at);

  // What every head looked at, a row for each id, as whole numbers: [layer][head][i]. What stands before the
  // first id that changed is known from the text before, as nothing looks ahead.
  function readOn(reader, ids) {
    const { smalltalkModel } = parts();
    const { model, cache } = reader;
    const known = reader.last || { ids: [], rows: count(model.num_layers).map(() => count(model.num_heads).map(() => [])) };
    let same = 0;
    while (same < Math.min(known.ids.length, ids.length - 1) && known.ids[same] === ids[same]) same++;
    reader.last = null; // an error halfway would leave it wrong
    cache.length = same;
    smalltalkModel.forward(model, cache, ids.slice(same));
    const row = (layer, head, i) => Array.from(smalltalkModel.attentionOf(model, cache, layer, head, i), (weight) => Math.round(weight * SCALE));
    const rows = known.rows.map((heads, layer) => heads.map((old, head) =>
      ids.map((_, i) => (i < same ? old[i] : row(layer, head, i)))));
    reader.last = { ids, rows };
    return rows;
  }

  // {view, overlay}: a view of version 1, and what is known of the text as a method.
  function read(reader, text) {
    const { smalltalkTokens, smalltalkOverlay } = parts();
    const { model, tokenizer, before } = reader;
    const special = before.map((name) => tokenizer.special[name]);
    const own = smalltalkTokens.encode(tokenizer, text);
    const ids = [...special, ...own];
    if (!own.length) throw new Error("The text is empty: type some.");
    if (ids.length > model.max_seq_len) throw new Error(`The text is ${ids.length} tokens long and the model reads ${model.max_seq_len}: shorten it.`);
    const rows = readOn(reader, ids);
    const bytes = own.map((id) => smalltalkTokens.bytesOf(tokenizer, id));
    const spans = spansOf(text, bytes.map((each) => each.length));
    const nothing = before.map(() => [0, 0]);
    const view = { format: "scratchbook attention", version: 1, model: reader.name, text, ids, tokens: [...before, ...bytes.map(spelled)],
      spans: [...nothing, ...spans.map((each) => each.characters)], layers: count(model.num_layers), causal: true, scale: SCALE,
      attention: rows.map((layer) => layer.map((head) => head.slice())) };
    return { view, overlay: smalltalkOverlay.overlay(text, [...nothing, ...spans.map((each) => each.units)]) };
  }

  // Answer the page's messages: load, read. Of several texts that wait only the last one is read.
  function serve(scope) {
    let [reader, waiting] = [null, null];
    const answers = {
      load: ({ file, before, name }) => {
        reader = makeReader(file, before, name, (done, of) => scope.postMessage({ kind: "progress", done, of }));
        scope.postMessage({ kind: "ready" });
      },
      read: ({ run, text }) => {
        if (!waiting) setTimeout(() => {
          const last = waiting;
          waiting = null;
          answer("read", last.run, () => scope.postMessage({ kind: "read", run: last.run, ...read(reader, last.text) }));
        }, 0);
        waiting = { run, text };
      },
    };
    const answer = (during, run, act) => {
      try {
        act();
      } catch (error) {
        scope.postMessage({ kind: "error", during, run, text: error.message });
      }
    };
    scope.onmessage = ({ data }) => answer(data.kind, data.run, () => answers[data.kind](data));
  }

  // ------------------------------------------------------------------------------- in the page

  function script(src) {
    return new Promise((resolve, reject) => {
      document.head.append(root.Scratchbook.el("script", { src, onload: resolve, onerror: () => reject(new Error(MISSING)) }));
    });
  }

  // The model's file lies in scripts beside the page: one opened from a disk may run them, but not fetch data.
  async function fetchFile(source) {
    if (!root.Scratchbook.smalltalkWeights) await script(source);
    const found = root.Scratchbook.smalltalkWeights;
    if (!found) throw new Error(MISSING);
    for (let part = 1; part <= found.count; part++) {
      if (!found.parts[part]) await script(source.replace(/\.js$/, `_${part}.js`));
      if (found.parts[part].of !== found.digest) throw new Error("Parts of two different models came together: reload the page.");
    }
    return { tables: found.tables, tokenizer: found.tokenizer, weights: found.parts.slice(1).map((part) => part.text).join("") };
  }

  function startWorker() {
    const code = new Blob([...PARTS.map((name) => root.Scratchbook[name].source), "\nScratchbook.explorerModel.serve(self);"],
      { type: "text/javascript" });
    return new Worker(URL.createObjectURL(code));
  }

  // The controls for a text of the reader's own. settings: {source or file, megabytes, before, name};
  // onView({view, overlay}) is called with what the model made of the text, onPhase with "loading",
  // "ready" or "failed".
  function makeOwnText(el, id, settings, text, onView, onPhase) {
    const own = { run: 0, worker: null, phase: "" };
    const area = el("textarea", { id: `${id}-own`, rows: 4, maxlength: 2000, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
      style: "font:14px/1.5 ui-monospace,monospace;tab-size:4", oninput: () => ask() });
    area.value = text;
    const status = el("p", { role: "status" });
    const button = el("button", { type: "button", onclick: () => load() }, `Load the model (${settings.megabytes} MB)`);
    const field = el("div", { hidden: "" }, el("label", { for: area.id }, "Your own method: every change is read anew"), area);

    function ask() {
      own.run += 1;
      own.asked = performance.now();
      own.worker.postMessage({ kind: "read", run: own.run, text: area.value });
    }

    function enter(phase) {
      own.phase = phase;
      button.setAttribute("aria-disabled", String(phase === "loading")); // disabled, it would lose the focus
      onPhase(phase);
    }

    async function load() {
      if (own.phase === "loading") return;
      enter("loading");
      status.textContent = "Loading the model.";
      try {
        own.worker = startWorker();
        own.worker.onmessage = ({ data }) => hear(data);
        own.worker.onerror = (event) => fail(event.message || "The worker did not start.");
        const file = settings.file || await fetchFile(settings.source);
        own.worker.postMessage({ kind: "load", file, before: settings.before, name: settings.name });
      } catch (error) {
        fail(error.message);
      }
    }

    function fail(words) {
      enter("failed");
      status.textContent = words;
    }

    function hear(message) {
      if (message.kind === "progress") status.textContent = `Loading the model: ${Math.round((100 * message.done) / message.of)} %.`;
      else if (message.kind === "error" && message.during === "load") fail(message.text);
      else if (message.kind === "ready") {
        enter("ready");
        [button.hidden, field.hidden] = [true, false];
        area.focus();
        ask();
      } else if (message.run === own.run) {
        if (message.kind === "error") status.textContent = message.text;
        else {
          onView(message);
          const took = Math.round(performance.now() - own.asked);
          status.textContent = `${message.view.ids.length} tokens, read and drawn in ${took} ms.`;
          status.dataset.took = took;
        }
      }
    }

    return el("div", {}, el("div", { class: "sb-row" }, button), field, status);
  }

  const api = { makeReader, read, spelled, spansOf, serve, makeOwnText };
  api.source = `(${define})(self);`;
  (root.Scratchbook = root.Scratchbook || {}).explorerModel = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
