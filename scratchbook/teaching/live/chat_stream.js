// A conversation whose model works in the page, and its answer as the server would send it.
// Chapter: chapters/07c_serving_and_chat.ipynb. The framing is pure and is tested against the
// server's own bytes; the model is that of tiny_model.js, the sampler that of sampler.js.
(function (root) {
  "use strict";

  const part = (name) => (root.Scratchbook && root.Scratchbook[name]) || require(`./${name}.js`);

  // ---------------------------------------------------------------------------- the stream's bytes

  // JSON as the server writes it: a space behind each comma and colon, letters as they are, but for those which some
  // readers take for a line's end.
  const plain = (value) => JSON.stringify(value).replace(/[\x85\u2028\u2029]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);

  function dumps(value) {
    if (Array.isArray(value)) return `[${value.map(dumps).join(", ")}]`;
    if (value === null || typeof value !== "object") return plain(value);
    return `{${Object.entries(value).map(([key, each]) => `${plain(key)}: ${dumps(each)}`).join(", ")}}`;
  }

  const sse = (value) => `data: ${typeof value === "string" ? value : dumps(value)}\n\n`;

  // The events of one answer: the role, pieces of text, the count of tokens, the end.
  function framesOf({ id, created, model }) {
    const head = { id, created, model, object: "chat.completion.chunk", usage: null };
    const choice = (delta, reason) => sse({ ...head,
      choices: [{ index: 0, delta, finish_reason: reason, logprobs: null }] });
    return {
      opening: () => choice({ role: "assistant", content: "" }, null),
      piece: (text, reason) => choice({ content: text }, reason),
      usage: (read, written) => {
        const usage = { prompt_tokens: read, completion_tokens: written, total_tokens: read + written };
        return sse({ ...head, usage, choices: [] });
      },
      done: () => sse("[DONE]"),
    };
  }

  // Text that may begin a stop string waits until it is clear whether the rest follows.
  function makeStops(stops) {
    const self = { held: "", stopped: false };
    self.add = (text) => {
      const held = self.held + text;
      const found = Math.min(...stops.map((stop) => held.indexOf(stop)).filter((at) => at >= 0));
      self.stopped = found < Infinity;
      let size = self.stopped ? found : held.length;
      if (!self.stopped) {
        for (const stop of stops) {
          for (let n = 1; n < stop.length; n++) if (held.endsWith(stop.slice(0, n))) size = Math.min(size, held.length - n);
        }
      }
      self.held = held.slice(size);
      return held.slice(0, size);
    };
    return self;
  }

  // What the server writes for a model without a chat template.
  const promptOf = (messages) => messages.map(({ role, content }) =>
    `### ${role[0].toUpperCase()}${role.slice(1)}:\n${content}\n\n`).join("") + "### Assistant:\n";

  function readerOf(model) {
    const tiny = part("tiny_model");
    const cache = tiny.newCache(model);
    return { encode: (text) => tiny.encode(model, text), letter: (id) => model.letters[id],
      read: (id) => tiny.step(model, cache, id) };
  }

  // Answer as the server does, one step of the model at a time. Yields {kind, sent, text}: kind is "read" for a token of
  // the prompt, "token" for one of the answer, else "frame"; `sent` goes over the wire and is often empty.
  // Returns {read, written, reason}.
  // request: {messages, stops, most, temperature, topP, seed, id, created, model}
  function* answer(reader, request) {
    const { randomFrom, pick } = part("tiny_model");
    const { probabilities } = part("sampler");
    const [frames, stops] = [framesOf(request), makeStops(request.stops)];
    const [ids, random] = [reader.encode(promptOf(request.messages)), randomFrom(request.seed)];
    const settings = { temperature: request.temperature, topP: request.topP < 1 ? request.topP : null };
    yield { kind: "frame", sent: frames.opening(), text: "" };
    let [logits, written, reason] = [null, 0, null];
    for (const id of ids) {
      logits = reader.read(id);
      yield { kind: "read", sent: "", text: "" };
    }
    while (!reason) {
      const id = pick(probabilities(Array.from(logits), settings), random());
      written += 1;
      let text = stops.add(reader.letter(id));
      if (stops.stopped) reason = "stop";
      else if (written === request.most) {
        text += stops.held;
        reason = "length";
      }
      yield { kind: "token", sent: text || reason ? frames.piece(text, reason) : "", text };
      if (!reason) logits = reader.read(id);
    }
    yield { kind: "frame", sent: frames.usage(ids.length, written) + frames.done(), text: "" };
    return { read: ids.length, written, reason };
  }

  const api = { dumps, sse, framesOf, makeStops, promptOf, readerOf, answer };

  // ---------------------------------------------------------------------------------- drawing

  const MOST = 160; // tokens of an answer
  const SLICE = 12; // milliseconds of work between two frames
  const PACES = { 20: "20 tokens a second", 5: "5 tokens a second", 0: "no limit" };
  const MONO = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace";
  const STYLE = `
    .sb-chat-halves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19em),1fr));gap:6px 20px}
    .sb-chat-halves>div{min-width:0}
    .sb-chat [hidden]{display:none!important}
    .sb-chat p{margin:6px 0}
    .sb-chat h4{font-size:1rem;font-weight:600;margin:6px 0 4px;color:inherit}
    .sb-chat button,.sb-chat select,.sb-chat input[type=text]{min-height:44px}
    .sb-chat input[type=text]{flex:1 1 11em;min-width:0}
    .sb-chat button[aria-disabled=true]{color:var(--sb-muted);border-color:var(--sb-line);cursor:default}
    .sb-chat-log,.sb-chat-wire{height:17em;overflow-y:auto;margin:0;padding:8px 10px;border:1px solid var(--sb-line);
      border-radius:6px;background:var(--sb-soft);color:var(--sb-ink)}
    .sb-chat pre{margin:0;color:inherit;background:var(--sb-soft);white-space:pre-wrap;overflow-wrap:anywhere;font:12px/1.4 ${MONO}}
    .sb-chat-log div{white-space:pre-wrap;overflow-wrap:anywhere;margin-bottom:8px}
    .sb-chat-log b{display:block;font-size:13px}
    .sb-chat-asked{color:var(--sb-muted)}
    .sb-chat-slider{display:flex;gap:8px;align-items:center;min-height:44px}
    .sb-chat-slider label{flex:0 0 6.4em}
    .sb-chat-slider input{flex:1 1 auto;min-width:0}
    .sb-chat-slider output{flex:0 0 2.6em;text-align:right;font-variant-numeric:tabular-nums}`;
  const MISSING = "The model lies beside the published page, and is not here: open this figure there.";

  let made = 0;

  function mount(element, data) {
    const { el } = root.Scratchbook;
    const ui = { el, element, data, id: `sb-chat-${++made}`, phase: "asleep", changes: 0, messages: [], seed: 1, run: null };
    ui.still = el("div", {}, ...(element.querySelector(".sb-still")?.childNodes || []));
    ui.load = el("button", { type: "button", onclick: () => load(ui) }, `Load the model (${data.megabytes} MB)`);
    ui.status = el("p", { role: "status", class: "sb-muted" });
    ui.chat = el("div", { hidden: "" }, el("div", { class: "sb-chat-halves" }, makeChat(ui), makeWire(ui)));
    element.replaceChildren(el("style", {}, STYLE), el("div", { class: "sb-chat" }, ui.still,
      el("div", { class: "sb-row" }, ui.load), ui.chat, ui.status));
    setPhase(ui, "asleep");
  }

  function setPhase(ui, phase, said) {
    ui.phase = phase;
    if (said !== undefined) ui.status.textContent = said;
    const writing = phase === "writing";
    ui.send.textContent = writing ? "Stop" : "Send";
    ui.log.setAttribute("aria-busy", String(writing));
    ui.again.setAttribute("aria-disabled", String(!ui.messages.some(({ role }) => role === "assistant")));
    changed(ui);
  }

  function changed(ui) {
    ui.changes += 1;
    const written = ui.messages.reduce((sum, { content }) => sum + content.length, 0);
    ui.element.dataset.liveState = `${ui.changes}:${ui.phase}:${written}`;
  }

  // Left: the conversation and its controls.
  function makeChat(ui) {
    const { el, id } = ui;
    const calm = root.matchMedia && root.matchMedia("(prefers-reduced-motion: reduce)").matches;
    ui.log = el("div", { class: "sb-chat-log", tabindex: "0", role: "group", "aria-label": "Conversation" });
    ui.text = el("input", { type: "text", id: `${id}-text`, maxlength: 200, value: ui.data.question, autocomplete: "off",
      oninput: () => changed(ui) });
    ui.send = el("button", { type: "submit" }, "Send");
    const press = (event) => {
      event.preventDefault();
      if (ui.phase === "writing") stop(ui);
      else say(ui);
    };
    ui.again = el("button", { type: "button", onclick: () => again(ui) }, "Regenerate");
    const fresh = el("button", { type: "button", onclick: () => {
      halt(ui);
      ui.messages = [];
      show(ui);
      ui.asked.textContent = ui.wire.textContent = ui.counts.textContent = "";
      setPhase(ui, "ready", "A new conversation.");
    } }, "New");
    ui.temperature = slider(ui, "temperature", { min: 0, max: 2, step: 0.1, value: 0.5 }, 1);
    ui.topP = slider(ui, "top-p", { min: 0.05, max: 1, step: 0.05, value: 0.9 }, 2);
    ui.pace = el("select", { id: `${id}-pace`, onchange: () => changed(ui) },
      ...Object.entries(PACES).sort((a, b) => b[0] - a[0]).map(([value, name]) => el("option", { value }, name)));
    ui.pace.value = calm ? "0" : "20";
    return el("div", {}, el("h4", {}, "The conversation"), ui.log,
      el("form", { class: "sb-row", onsubmit: press }, el("label", { for: ui.text.id }, "Your message"), ui.text, ui.send),
      el("div", { class: "sb-row" }, ui.again, fresh), ui.temperature.row, ui.topP.row,
      el("div", { class: "sb-chat-slider" }, el("label", { for: ui.pace.id }, "held back to"), ui.pace));
  }

  function slider(ui, name, range, digits) {
    const input = ui.el("input", { type: "range", id: `${ui.id}-${name}`, ...range, oninput: () => { said(); changed(ui); } });
    const value = ui.el("output", { for: input.id });
    const said = () => {
      value.textContent = Number(input.value).toFixed(digits);
      input.setAttribute("aria-valuetext", value.textContent);
    };
    said();
    const row = ui.el("div", { class: "sb-chat-slider" }, ui.el("label", { for: input.id }, name), input, value);
    return { row, get value() { return Number(input.value); } };
  }

  // Right: what a client asks, and the bytes that come back.
  function makeWire(ui) {
    const { el } = ui;
    ui.asked = el("span", { class: "sb-chat-asked" });
    ui.wire = el("span", {});
    ui.box = el("pre", { class: "sb-chat-wire", tabindex: "0", role: "group", "aria-label": "Request and server-sent events" }, ui.asked, ui.wire);
    ui.counts = el("p", { class: "sb-chat-counts" });
    return el("div", {}, el("h4", {}, "The wire: what is asked, and the server-sent events"), ui.box, ui.counts);
  }

  // The weights lie beside the page: one file for all figures that compute with them.
  function load(ui) {
    if (ui.phase === "loading") return;
    setPhase(ui, "loading", "Loading the model.");
    const arrived = () => {
      const weights = ui.data.weights || root.Scratchbook.tinyModelWeights;
      if (!weights) return setPhase(ui, "broken", MISSING);
      ui.model = part("tiny_model").load(weights);
      ui.load.parentElement.hidden = ui.still.hidden = true;
      ui.chat.hidden = false;
      setPhase(ui, "ready", `The model is here: ${ui.model.card.line || "small"}. It never learned to chat: it goes on `
        + "writing behind what it reads. Its tokens are letters.");
      return ui.text.focus();
    };
    if (ui.data.weights || root.Scratchbook.tinyModelWeights) arrived();
    else document.head.append(ui.el("script", { src: ui.data.source, onload: arrived,
      onerror: () => setPhase(ui, "broken", MISSING) }));
  }

  function say(ui) {
    const content = ui.text.value.trim();
    if (!content) return setPhase(ui, "ready", "Write a message first.");
    ui.text.value = "";
    ui.messages.push({ role: "user", content });
    return begin(ui);
  }

  function again(ui) {
    if (ui.again.getAttribute("aria-disabled") === "true") return;
    halt(ui);
    while (ui.messages.at(-1).role === "assistant") ui.messages.pop();
    ui.seed += 1;
    begin(ui);
  }

  function show(ui) {
    ui.log.replaceChildren(...ui.messages.map((message) => {
      message.node = ui.el("span", {}, message.content);
      return ui.el("div", {}, ui.el("b", {}, message.role === "user" ? "You" : "Model"), message.node);
    }));
    ui.log.scrollTop = ui.log.scrollHeight;
  }

  const hex = (count) => Array.from({ length: count }, () => Math.floor(16 * Math.random()).toString(16)).join("");

  // Ask, and let the answer come: a slice of work in each frame, or a token when its time has come.
  function begin(ui) {
    const asked = { model: "tiny", messages: ui.messages.map(({ role, content }) => ({ role, content })), stream: true,
      stream_options: { include_usage: true }, temperature: ui.temperature.value, top_p: ui.topP.value, seed: ui.seed,
      max_tokens: MOST };
    ui.messages.push({ role: "assistant", content: "" });
    show(ui);
    ui.asked.textContent = `POST /v1/chat/completions\n${dumps(asked)}\n\n`;
    ui.wire.textContent = "";
    const run = { begun: root.performance.now(), first: null, work: 0, events: 0, bytes: 0, written: 0, read: 0,
      pace: Number(ui.pace.value), steps: answer(readerOf(ui.model), { ...asked, topP: asked.top_p, stops: ui.data.stops,
        most: MOST, id: `chatcmpl-${hex(32)}`, created: Math.floor(Date.now() / 1000) }) };
    ui.run = run;
    const unknown = new Set([...asked.messages.at(-1).content].filter((letter) => !ui.model.numberOf.has(letter)));
    run.note = unknown.size ? ` Not in its alphabet, left out: ${[...unknown].join(" ")}` : "";
    setPhase(ui, "writing", "Writing.");
    run.timer = root.setTimeout(() => work(ui, run), 0);
  }

  function work(ui, run) {
    const slice = root.performance.now();
    do {
      const before = root.performance.now();
      const { done, value } = run.steps.next();
      const now = root.performance.now();
      if (done) return finished(ui, run, value);
      if (value.kind === "token") run.work += now - before;
      take(ui, run, value, now);
      if (value.text && run.pace) break;
    } while (root.performance.now() - slice < SLICE);
    const wait = run.pace && run.first !== null ? 1000 / run.pace - (root.performance.now() - slice) : 0;
    run.timer = root.setTimeout(() => work(ui, run), Math.max(0, wait));
    return changed(ui);
  }

  function take(ui, run, { kind, sent, text }, now) {
    if (kind === "read") run.read += 1;
    if (kind === "token") {
      run.written += 1;
      run.last = now;
      if (text && run.first === null) [run.first, run.before] = [now, run.written];
    }
    if (sent) {
      run.events += sent.split("\n\n").length - 1;
      run.bytes += new TextEncoder().encode(sent).length;
      append(ui.box, ui.wire, sent);
    }
    if (text) {
      const message = ui.messages.at(-1);
      message.content += text;
      append(ui.log, message.node, text);
    }
    count(ui, run);
  }

  // Follow the end, unless the reader has scrolled up.
  function append(box, node, text) {
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    node.append(text);
    if (follows) box.scrollTop = box.scrollHeight;
  }

  const rounded = (value) => Math.round(value).toLocaleString("en");

  function count(ui, run) {
    if (run.first === null) return;
    const later = run.written - run.before;
    const rate = later ? `, then ${rounded((1000 * later) / (run.last - run.first))} a second` : "";
    const alone = later ? ` (${run.pace ? "held back; " : ""}the model alone: ${
      rounded((1000 * run.written) / run.work)})` : "";
    const size = new TextEncoder().encode(ui.messages.at(-1).content).length;
    ui.counts.textContent = `${run.read} tokens read; the first text came after ${rounded(run.first - run.begun)} ms`
      + `${rate}${alone}. ${run.written} tokens written, ${rounded(size)} bytes of text; over the wire `
      + `${run.events} events, ${rounded(run.bytes)} bytes.`;
  }

  function finished(ui, run, { read, written, reason }) {
    ui.run = null;
    const why = { stop: "It came to a stop string", length: `It came to the limit of ${MOST}` };
    setPhase(ui, "ready", `${why[reason]}: ${read} tokens read, ${written} written.${run.note}`);
  }

  function halt(ui) {
    if (!ui.run) return;
    root.clearTimeout(ui.run.timer);
    ui.run = null;
  }

  function stop(ui) {
    const { written } = ui.run;
    halt(ui);
    setPhase(ui, "ready", `Stopped after ${written} tokens: the connection is closed, and no [DONE] comes.`);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.chat_stream = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.chat_stream;
})(typeof window === "undefined" ? globalThis : window);
