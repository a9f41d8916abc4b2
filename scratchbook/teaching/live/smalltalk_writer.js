// The Smalltalk model alive: type the head of a method, watch it written, parsed and looked into.
// Chapter: chapters/09_smalltalk_model.ipynb
// This file holds the controls; the model works in a worker (smalltalk_worker.js), its text and its
// attention are drawn by smalltalk_paper.js, its parse tree by smalltalk_tree.js.
(function (root) {
  "use strict";

  const MOST = 200; // tokens at one press
  const WORKED_WITH = ["smalltalkTokens", "safetensors", "smalltalkModel", "smalltalkSyntax", "smalltalkWorker"];
  const FIELDS = [["name", "Class", 60], ["superclass", "Superclass", 60],
    ["variables", "Instance variables", 200], ["comment", "Comment", 300]];
  const STYLE = `
    .sb-st button,.sb-st select,.sb-st input[type=text]{min-height:44px}
    .sb-st button{min-width:44px}
    .sb-st button:is(:disabled,[aria-disabled=true]){color:var(--sb-muted);border-color:var(--sb-line);cursor:default}
    .sb-st [hidden]{display:none!important}
    .sb-st-fields{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,11em),1fr));gap:6px 12px}
    .sb-st-fields label,.sb-st-head{display:flex;flex-direction:column;gap:2px;min-width:0}
    .sb-st input[type=text],.sb-st textarea{width:100%;font:14px/1.5 ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
    .sb-st textarea{tab-size:4;resize:vertical;min-height:3.6em}
    .sb-st-head{margin-top:6px}
    .sb-st-slider,.sb-st-check{display:flex;gap:8px;align-items:center;min-height:44px}
    .sb-st-slider output{min-width:2em;font-variant-numeric:tabular-nums}
    .sb-st-check input{width:22px;height:22px;margin:0}
    .sb-st progress{width:100%;max-width:24em;height:14px;accent-color:var(--sb-accent)}
    .sb-st p{margin:6px 0}
    .sb-st-halves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19em),1fr));gap:4px 24px}
    .sb-st-halves>div{min-width:0}
    .sb-st h4{font-size:1rem;font-weight:600;margin:8px 0 2px;color:inherit}
    .sb-st-tree-box{max-height:26em;overflow:auto}
    .sb-st .sb-st-still pre,.sb-st-box pre{margin:4px 0;padding:6px 8px;background:var(--sb-soft);color:var(--sb-ink);
      border:1px solid var(--sb-line);border-radius:6px;tab-size:4;overflow-x:auto;
      white-space:pre;font-size:13px}
    .sb-st .sb-st-still pre{white-space:pre-wrap;overflow-wrap:anywhere}`;
  const WHY = { end: "It ended the method", most: "It came to the limit", full: "Its window is full",
    stuck: "It found no token that keeps the method valid", stopped: "Stopped" };
  const MISSING = "The model lies beside the published page, and is not here: open this figure there. In a notebook, "
    + "scratchbook.smalltalk_model.write_method does the same.";

  let made = 0;

  function mount(element, data) {
    const { el, smalltalkPaper, smalltalkTree } = root.Scratchbook;
    const ui = { el, element, data, id: `sb-st-${++made}`, phase: "asleep", changes: 0, seed: 1, run: 0, fields: {},
      hovered: null, layers: 0, heads: 0, rate: "" };
    ui.paper = smalltalkPaper.makePaper(el, (position) => look(ui, position));
    ui.tree = smalltalkTree.makeTree(el, (row) => {
      smalltalkPaper.underline(ui.paper, "sb-st-node", row.start, row.stop);
      changed(ui);
    });
    ui.still = el("div", { class: "sb-st-still" }, ...(element.querySelector(".sb-still")?.childNodes || []));
    element.replaceChildren(el("style", {}, STYLE + smalltalkPaper.STYLE + smalltalkTree.STYLE),
      el("div", { class: "sb-st" }, makeForm(ui), makeButtons(ui), makeStatus(ui), ui.still, makeResult(ui)));
    take(ui, data.presets[0]);
    setPhase(ui, "asleep");
  }

  function changed(ui) {
    ui.changes += 1;
    const written = ui.paper.tokens.filter((token) => !token.given).length;
    ui.element.dataset.liveState = `${ui.changes}:${ui.phase}:${written}`;
  }

  // ---------------------------------------------------------------------------- what is typed

  function makeForm(ui) {
    const { el } = ui;
    ui.presets = ui.data.presets.map((preset) => el("button", { type: "button",
      onclick: () => { take(ui, preset); changed(ui); } }, preset.name));
    const inputs = FIELDS.map(([name, title, maxlength]) => {
      ui.fields[name] = el("input", { type: "text", id: `${ui.id}-${name}`, maxlength, autocomplete: "off",
        autocapitalize: "off", spellcheck: "false", oninput: () => edited(ui) });
      return el("label", { for: `${ui.id}-${name}` }, title, ui.fields[name]);
    });
    ui.begun = el("textarea", { id: `${ui.id}-begun`, rows: 2, maxlength: 600, autocapitalize: "off",
      autocomplete: "off", spellcheck: "false", oninput: () => edited(ui), onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && ui.phase === "ready") write(ui);
      } });
    return el("div", {}, el("div", { class: "sb-row", role: "group", "aria-label": "Examples" }, ...ui.presets),
      el("div", { class: "sb-st-fields" }, ...inputs),
      el("label", { class: "sb-st-head", for: ui.begun.id }, "Beginning of the method: its head, or more", ui.begun));
  }

  function take(ui, preset) {
    ui.package = preset.package;
    for (const [name] of FIELDS) ui.fields[name].value = preset[name];
    ui.begun.value = preset.begun;
    mark(ui, preset);
  }

  function mark(ui, preset) {
    ui.presets.forEach((button, at) => button.setAttribute("aria-pressed", String(ui.data.presets[at] === preset)));
  }

  function edited(ui) {
    mark(ui, null);
    changed(ui);
  }

  function recordOf(ui) {
    const [name, superclass, variables, comment] = FIELDS.map(([field]) => ui.fields[field].value.trim());
    return name ? { name, superclass, comment, variables: variables.split(/\s+/).filter(Boolean), package: ui.package }
      : null;
  }

  // ---------------------------------------------------------------------------- buttons, status

  function makeButtons(ui) {
    const { el } = ui;
    const button = (text, onclick) => el("button", { type: "button", onclick }, text);
    ui.load = button(`Load the model (${ui.data.megabytes} MB)`, () => load(ui));
    ui.complete = button("Complete", () => write(ui));
    ui.stop = button("Stop", () => stop(ui));
    ui.again = button("Again, otherwise", () => { ui.seed += 1; write(ui); });
    ui.temperature = el("input", { type: "range", id: `${ui.id}-temperature`, min: 0, max: 1.5, step: 0.1, value: 0.6,
      oninput: () => { said(); changed(ui); } });
    const value = el("output", { for: ui.temperature.id });
    const said = () => {
      value.textContent = Number(ui.temperature.value).toFixed(1);
      ui.temperature.setAttribute("aria-valuetext", value.textContent);
    };
    said();
    ui.valid = el("input", { type: "checkbox", id: `${ui.id}-valid`, onchange: () => changed(ui) });
    return el("div", {},
      el("div", { class: "sb-row" }, ui.load, ui.complete, ui.stop, ui.again),
      el("div", { class: "sb-row" },
        el("div", { class: "sb-st-slider" }, el("label", { for: ui.temperature.id }, "Temperature"), ui.temperature, value),
        el("label", { class: "sb-st-check", for: ui.valid.id }, ui.valid, "only valid Smalltalk")));
  }

  function makeStatus(ui) {
    ui.status = ui.el("p", { role: "status", "aria-live": "polite" });
    ui.progress = ui.el("progress", { "aria-label": "Loading the model", max: 1, value: 0 });
    return ui.el("div", {}, ui.status, ui.progress);
  }

  function setPhase(ui, phase, text = "") {
    const had = document.activeElement;
    ui.phase = phase;
    ui.status.textContent = text;
    ui.load.hidden = !["asleep", "loading", "broken"].includes(phase);
    ui.load.setAttribute("aria-disabled", String(phase === "loading")); // disabled, it would lose the focus
    for (const button of [ui.complete, ui.stop, ui.again]) button.hidden = !ui.load.hidden;
    ui.complete.disabled = phase === "writing";
    ui.again.disabled = phase === "writing" || !ui.run;
    ui.stop.disabled = phase !== "writing";
    ui.progress.hidden = phase !== "loading";
    ui.result.hidden = !ui.run;
    ui.still.hidden = !ui.result.hidden;
    // a button that goes away hands the focus on
    if (had === ui.load && ui.load.hidden) ui.complete.focus();
    if (had === ui.complete && phase === "writing") ui.stop.focus();
    if (had === ui.again && phase === "writing") ui.stop.focus();
    if (had === ui.stop && phase === "ready") ui.complete.focus();
    changed(ui);
  }

  // ---------------------------------------------------------------------------- loading

  function script(src) {
    return new Promise((resolve, reject) => {
      const onerror = () => reject(new Error(MISSING));
      document.head.append(root.Scratchbook.el("script", { src, onload: resolve, onerror }));
    });
  }

  // The file lies in parts beside the page, so that what has come can be shown: a page opened from a
  // disk may run scripts, but not fetch data.
  async function fetchParts(source, progress) {
    await script(source);
    const found = root.Scratchbook.smalltalkWeights;
    if (!found) throw new Error(MISSING);
    for (let part = 1; part <= found.count; part++) {
      if (!found.parts[part]) await script(source.replace(/\.js$/, `_${part}.js`));
      const { of, text } = found.parts[part] || {};
      if (of !== found.digest) throw new Error("Parts of two different models came together: reload the page.");
      progress(part / found.count, text);
    }
    return { ...found, weights: found.parts.slice(1).map((part) => part.text).join("") };
  }

  async function load(ui) {
    if (ui.phase === "loading") return;
    ui.progress.value = 0;
    setPhase(ui, "loading", "Loading the model.");
    try {
      const { tables, tokenizer, weights } = await fetchParts(ui.data.source, (share) => { ui.progress.value = share / 2; });
      ui.worker = startWorker();
      ui.worker.onmessage = ({ data }) => hear(ui, data);
      ui.worker.onerror = (event) => broken(ui, event.message || "The worker did not start.");
      ui.worker.postMessage({ kind: "load", file: { tables, tokenizer, weights } });
      root.Scratchbook.smalltalkWeights = undefined; // the worker has its own copy
    } catch (error) {
      broken(ui, error.message);
    }
  }

  function startWorker() {
    if (typeof Worker !== "function") throw new Error("This browser has no workers, in which the model would compute.");
    const sources = WORKED_WITH.map((name) => root.Scratchbook[name].source);
    const code = new Blob([sources.join("\n"), "\nScratchbook.smalltalkWorker.serve(self);"], { type: "text/javascript" });
    const address = URL.createObjectURL(code);
    try {
      return new Worker(address);
    } catch (error) {
      throw new Error(`This page may start no worker here (${error.message}).`);
    }
  }

  function broken(ui, text) {
    if (ui.worker) ui.worker.terminate();
    ui.worker = null;
    setPhase(ui, "broken", text);
  }

  // ---------------------------------------------------------------------------- writing

  function write(ui) {
    ui.run += 1;
    root.Scratchbook.smalltalkTree.drawTree(ui.tree, null);
    ui.verdict.replaceChildren();
    ui.rate = "";
    setPhase(ui, "writing", "Writing.");
    ui.worker.postMessage({ kind: "write", request: { run: ui.run, record: recordOf(ui), begun: ui.begun.value,
      temperature: Number(ui.temperature.value), topK: 0, valid: ui.valid.checked, seed: ui.seed, most: MOST } });
  }

  function stop(ui) {
    ui.worker.postMessage({ kind: "stop" });
  }

  function hear(ui, message) {
    const { paper } = ui;
    const { smalltalkPaper } = root.Scratchbook;
    if (message.kind === "progress") ui.progress.value = (1 + message.done / message.of) / 2;
    else if (message.kind === "ready") ready(ui, message);
    else if (message.kind === "error") failed(ui, message);
    else if (message.kind === "attention") showAttention(ui, message);
    else if (message.run !== ui.run) return;
    else if (message.kind === "prompt") smalltalkPaper.reset(paper, message.pieces);
    else if (message.kind === "wrote") wrote(ui, message);
    if (message.kind !== "progress") changed(ui);
  }

  function ready(ui, { layers, heads }) {
    [ui.layers, ui.heads] = [layers, heads];
    const numbers = (count) => Array.from({ length: count }, (_, i) => ui.el("option", { value: i }, String(i + 1)));
    ui.layer.replaceChildren(...numbers(layers));
    ui.layer.value = String(layers >> 1);
    ui.head.replaceChildren(ui.el("option", { value: "all" }, "all, their mean"), ...numbers(heads));
    setPhase(ui, "ready", "The model is here. It has read nothing yet.");
  }

  function failed(ui, { during, text }) {
    if (during === "load") broken(ui, text);
    if (during === "write") setPhase(ui, "ready", text);
  }

  function wrote(ui, { batch, count, milliseconds, reason, half, name, share }) {
    const { smalltalkPaper } = root.Scratchbook;
    smalltalkPaper.add(ui.paper, batch);
    if (half) smalltalkPaper.extend(ui.paper, half);
    if (reason === "end") smalltalkPaper.end(ui.paper, name, share);
    if (count > 1 && milliseconds > 0) ui.rate = `${Math.round((1000 * count) / milliseconds)} tokens a second`;
    const soFar = `${count} tokens${ui.rate ? `, ${ui.rate}` : ""}`;
    ui.live.textContent = count && !reason ? soFar : "";
    const { parse } = root.Scratchbook.smalltalkSyntax;
    const { tree, fault } = parse(smalltalkPaper.sourceOf(ui.paper));
    if (tree && !ui.tree.node.contains(document.activeElement)) root.Scratchbook.smalltalkTree.drawTree(ui.tree, tree);
    if (!reason) return;
    if (!tree) root.Scratchbook.smalltalkTree.drawTree(ui.tree, null);
    judge(ui, fault);
    setPhase(ui, "ready", `${WHY[reason]} after ${soFar}. ${
      tree ? "The method is valid." : "The method is not valid, or not finished."}`);
  }

  // Say at which place the parser stops, and underline it.
  function judge(ui, fault) {
    const { smalltalkPaper, smalltalkTree } = root.Scratchbook;
    const { el } = ui;
    if (!fault) return ui.verdict.replaceChildren();
    const source = smalltalkPaper.sourceOf(ui.paper);
    const place = smalltalkTree.explain(source, fault);
    smalltalkPaper.underline(ui.paper, "sb-st-fault", fault.position, fault.position + 1);
    return ui.verdict.replaceChildren(
      el("p", {}, `${place.atEnd ? "It is not finished" : "It is no method"}: in line ${place.line}, column ${place.column}, ${
        place.expected}.`),
      el("pre", { tabindex: "0", "aria-label": "The line in question" }, `${place.text}\n${place.caret}`));
  }

  // ---------------------------------------------------------------------------- what is shown

  function makeResult(ui) {
    const { el, paper, tree } = ui;
    const choice = (name, title) => {
      ui[name] = el("select", { id: `${ui.id}-${name}`, onchange: () => { look(ui, paper.selected); changed(ui); } });
      return el("div", { class: "sb-st-slider" }, el("label", { for: ui[name].id }, title), ui[name]);
    };
    ui.live = el("p", { class: "sb-muted" });
    ui.verdict = el("div", { class: "sb-st-box" });
    ui.looking = el("div", {}, el("h4", {}, "What it looked at"),
      el("div", { class: "sb-row" }, choice("layer", "Layer"), choice("head", "Head")), paper.said, paper.looks);
    ui.hint = el("p", { class: "sb-muted" }, "Choose a token that it wrote, by a press or by the arrow keys.");
    ui.looking.append(ui.hint);
    ui.result = el("div", {}, paper.node, ui.live, el("div", { class: "sb-st-halves" },
      el("div", {}, el("h4", {}, "How it parses"), ui.verdict, el("div", { class: "sb-st-tree-box" }, tree.node)),
      ui.looking));
    return ui.result;
  }

  // Ask for the attention behind the token at a position: that of the place before it.
  function look(ui, position) {
    ui.hovered = position;
    if (position === null || position < 1 || !ui.worker) return;
    ui.worker.postMessage({ kind: "attention", layer: Number(ui.layer.value),
      head: ui.head.value === "all" ? null : Number(ui.head.value), position: position - 1 });
  }

  function showAttention(ui, { layer, head, position, weights }) {
    if (position + 1 !== ui.hovered) return; // the reader went on
    ui.hint.hidden = true;
    const where = `layer ${layer + 1}, ${head === null ? "its heads together" : `head ${head + 1}`},`;
    root.Scratchbook.smalltalkPaper.showAttention(ui.paper, position + 1, weights, where);
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.smalltalk_writer = { mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.smalltalk_writer;
})(typeof window === "undefined" ? globalThis : window);
