// What every head of a model looks at in a text: a grid of heads, one head in detail, its heaviest edges, and
// the code's syntax laid over them. Chapter: chapters/06d_seeing_attention.ipynb
// This file holds the controls; explorer_data.js counts, explorer_draw.js and explorer_code.js draw.
(function (root) {
  "use strict";

  const MOST = 12; // edges at first
  const STYLE = `
    .sb-ex p{margin:4px 0}.sb-ex h4{font-size:1rem;font-weight:600;margin:10px 0 2px;color:inherit}
    .sb-ex-halves>div{min-width:0}.sb-ex .sb-ex-halves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19em),1fr));gap:6px 24px}
    .sb-ex select,.sb-ex input[type=number]{min-height:32px;padding:3px 6px}
    .sb-ex input[type=number]{width:4.5em}
    .sb-ex input[type=checkbox]{width:20px;height:20px;margin:0}
    .sb-ex :is(label,.sb-ex-field){display:inline-flex;gap:6px;align-items:center;min-height:28px;max-width:100%}
    .sb-ex-field :is(select,input[type=range]){min-width:0}
    .sb-ex output{min-width:2.4em;font-variant-numeric:tabular-nums}
    .sb-ex-grid{display:grid;gap:3px;padding:4px}
    .sb-ex-grid>span{font-size:12px;color:var(--sb-muted);align-self:center;justify-self:center}
    .sb-ex .sb-ex-grid button{position:relative;padding:2px;min-width:0;min-height:0;width:100%;border-radius:4px;background:var(--sb-paper);
      border:2px solid var(--sb-line);display:block;line-height:1}
    .sb-ex .sb-ex-grid button[aria-pressed=true]{border-color:var(--sb-accent);box-shadow:0 0 0 2px var(--sb-accent)}
    .sb-ex .sb-ex-grid button.sb-ex-marked{border-style:double;border-width:4px;border-color:var(--sb-2)}
    .sb-ex-marked::after{content:"\\2605";position:absolute;top:0;right:1px;font-size:12px;color:var(--sb-ink);
      text-shadow:0 0 2px var(--sb-paper),0 0 2px var(--sb-paper)}
    .sb-ex canvas{display:block;width:100%;image-rendering:pixelated;aspect-ratio:1}
    .sb-ex-map{position:relative;max-width:430px;cursor:crosshair}
    .sb-ex-map canvas{position:absolute}
    .sb-ex-map svg,.sb-ex-graph svg{position:relative;display:block;width:100%}
    .sb-ex-graph{max-width:460px}
    .sb-ex-graph text[data-token]{cursor:pointer}
    .sb-ex-list{columns:2;column-gap:18px;list-style:none;margin:4px 0;padding:0;font-size:13px}
    .sb-ex-list li{margin:0;break-inside:avoid;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
    .sb-ex-shades{display:flex;flex-wrap:wrap;gap:4px 12px;font-size:13px;align-items:center}
    .sb-ex-shades i{display:inline-block;width:16px;height:12px;margin-right:4px;border:1px solid var(--sb-line);vertical-align:-1px}
    .sb-ex pre{font-size:13px;line-height:1.4;max-height:18em;overflow:auto;background:var(--sb-soft);color:var(--sb-ink);padding:6px 8px;
      border:1px solid var(--sb-line);border-radius:6px}
    .sb-ex summary{min-height:28px;cursor:pointer}.sb-ex [hidden]{display:none!important}`;

  let made = 0;

  function mount(element, data) {
    const { el, explorerCode, explorerData } = root.Scratchbook;
    const views = data.views.map((each) => ({ ...each, read: explorerData.read(each.view) }));
    const ui = { el, element, data, views, id: `sb-ex-${++made}`, at: 0, state: { layer: data.layer || 0, head: data.head || 0,
      token: null, direction: "from", threshold: 0.05, most: MOST, colour: "syntax", scopes: true, tree: false,
      score: "", mark: 0.4, node: null } };
    ui.text = explorerCode.makeText(el, (token) => select(ui, { token }));
    const box = el("div", { class: "sb-ex" }, el("style", {}, STYLE + explorerCode.STYLE), makeTop(ui), ui.text.node, makeTextRow(ui),
      el("div", { class: "sb-ex-halves" }, makeGrid(ui), makeMap(ui)), makeGraph(ui), makeEnd(ui));
    element.replaceChildren(box);
    element.explorer = { state: ui.state, select: (change) => select(ui, change),
      take: (at) => take(ui, at) };
    take(ui, 0);
  }

  const current = (ui) => ui.views[ui.at];

  // Take another view: its tokens and its heads are made anew.
  function take(ui, at) {
    ui.at = at;
    const { read, overlay } = current(ui);
    const { explorerCode, explorerData } = root.Scratchbook;
    const { state } = ui;
    ui.scores = explorerData.scores(read, current(ui).own || ui.data.views.length > 1 ? {} : ui.data.scores);
    state.layer = Math.min(state.layer, read.layers - 1);
    state.head = Math.min(state.head, read.heads - 1);
    [state.token, state.node] = [null, null];
    explorerCode.setTokens(ui.text, read);
    const shape = JSON.stringify([read.names, read.heads, Object.keys(ui.scores)]);
    if (ui.shape !== shape) { // a text of the same model has the same heads
      fillChoices(ui);
      fillGrid(ui);
      ui.shape = shape;
    }
    for (const { layer, head, canvas } of ui.cells) root.Scratchbook.explorerDraw.paint(canvas, read.maps[layer][head], read.time);
    for (const each of ui.ofCode) each.hidden = !overlay;
    ui.fault.textContent = overlay && overlay.error ? `${overlay.error}. Only syntax classes and comments are shown.` : "";
    draw(ui);
  }

  // The reader's own text is one more of the texts, the last: a view as to_json writes it, and its overlay.
  function showOwn(ui, view, overlay) {
    const { el, views } = ui;
    const own = views.findIndex((each) => each.own);
    const at = own < 0 ? views.length : own;
    views[at] = { title: "your own text", own: true, view, overlay, read: root.Scratchbook.explorerData.read(view) };
    if (own < 0) ui.which.node.append(...optionsOf(el, [[at, views[at].title]]));
    [ui.which.label.hidden, ui.which.node.value] = [false, String(at)];
    take(ui, at);
  }

  function select(ui, change) {
    if ("token" in change || "layer" in change || "head" in change) ui.state.node = null;
    Object.assign(ui.state, change);
    draw(ui);
  }

  // ------------------------------------------------------------------------------- controls

  function choice(ui, title, options, onchange) {
    const { el } = ui;
    const id = `${ui.id}-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
    const node = el("select", { id, onchange: () => onchange(node.value) }, ...optionsOf(el, options));
    return { node, label: el("span", { class: "sb-ex-field" }, el("label", { for: id }, title), node) };
  }

  const optionsOf = (el, options) => options.map(([value, words]) => el("option", { value }, words));

  function slider(ui, title, value, onchange) {
    const { el } = ui;
    const id = `${ui.id}-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
    const said = el("output", { for: id }, value.toFixed(2));
    const node = el("input", { type: "range", id, min: 0, max: 1, step: 0.01, value, oninput: () => {
      said.textContent = Number(node.value).toFixed(2);
      onchange(Number(node.value));
    } });
    return { node, label: el("span", { class: "sb-ex-field" }, el("label", { for: id }, title), node, said) };
  }

  function checkbox(ui, title, name) {
    const id = `${ui.id}-${name}`;
    const node = ui.el("input", { type: "checkbox", id, onchange: () => select(ui, { [name]: node.checked, node: null }) });
    node.checked = ui.state[name];
    return ui.el("label", { for: id }, node, title);
  }

  function makeTop(ui) {
    const { el } = ui;
    ui.which = choice(ui, "Text", ui.views.map(({ title }, at) => [at, title]), (value) => take(ui, Number(value)));
    ui.which.label.hidden = ui.views.length < 2;
    ui.which.node.style.maxWidth = "16em";
    ui.fault = el("p", { role: "status" });
    const { model } = ui.data;
    const own = model ? root.Scratchbook.explorerModel.makeOwnText(el, ui.id, model, ui.data.views[0].view.text,
      ({ view, overlay }) => showOwn(ui, view, overlay), (phase) => { ui.phase = phase; tell(ui); }) : null;
    return el("div", {}, own, el("div", { class: "sb-row" }, ui.which.label), ui.fault);
  }

  function makeTextRow(ui) {
    const { el } = ui;
    ui.colour = choice(ui, "Lines under the text", [["syntax", "syntax"], ["role", "role"], ["", "none"]],
      (colour) => select(ui, { colour }));
    ui.none = el("button", { type: "button", onclick: () => select(ui, { token: null }) }, "Select no token");
    ui.key = el("div", {});
    ui.facts = el("div", { "aria-live": "polite" });
    ui.ofCode = [el("div", { class: "sb-row" }, ui.colour.label, checkbox(ui, "scopes", "scopes"), checkbox(ui, "tree", "tree")), ui.key];
    return el("div", {}, ...ui.ofCode, el("div", { class: "sb-row" }, ui.none), ui.facts);
  }

  function fillChoices(ui) {
    const { el } = ui;
    const { read } = current(ui);
    ui.layer.node.replaceChildren(...optionsOf(el, read.names.map((name, at) => [at, String(name)])));
    ui.head.node.replaceChildren(...optionsOf(el, Array.from({ length: read.heads }, (_, at) => [at, String(at)])));
    ui.score.node.replaceChildren(...optionsOf(el, [["", "none"], ...Object.keys(ui.scores).map((name) => [name, name])]));
    if (!ui.scores[ui.state.score]) ui.state.score = "";
  }

  // ------------------------------------------------------------------------------- the heads

  function makeGrid(ui) {
    const { el } = ui;
    ui.grid = el("div", { class: "sb-ex-grid", role: "group",
      "aria-label": "Heads, a row for each layer; the arrow keys go through them" });
    ui.grid.addEventListener("keydown", (event) => walkGrid(ui, event));
    ui.score = choice(ui, "Mark heads by", [["", "none"]], (score) => select(ui, { score }));
    ui.mark = slider(ui, "mark from", ui.state.mark, (mark) => select(ui, { mark }));
    ui.said = el("p", { class: "sb-muted" });
    return el("div", {}, el("h4", {}, "All heads"), el("div", { class: "sb-scroll" }, ui.grid),
      el("div", { class: "sb-row" }, ui.score.label, ui.mark.label), ui.said);
  }

  function fillGrid(ui) {
    const { el } = ui;
    const { read } = current(ui);
    const side = Math.max(28, Math.min(76, Math.floor(400 / read.heads)));
    ui.grid.style.gridTemplateColumns = `1.6em repeat(${read.heads}, minmax(24px, ${side}px))`;
    ui.cells = [];
    const parts = [el("span", {}, ""), ...Array.from({ length: read.heads }, (_, head) => el("span", {}, `h${head}`))];
    for (let layer = 0; layer < read.layers; layer++) {
      parts.push(el("span", {}, `L${read.names[layer]}`));
      for (let head = 0; head < read.heads; head++) {
        const canvas = el("canvas", { "aria-hidden": "true" });
        const button = el("button", { type: "button", onclick: () => select(ui, { layer, head }) }, canvas);
        ui.cells.push({ layer, head, button, canvas });
        parts.push(button);
      }
    }
    ui.grid.replaceChildren(...parts);
  }

  function walkGrid(ui, event) {
    const { read } = current(ui);
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
    const cell = ui.cells.find((each) => each.button === event.target);
    if (!cell || !(down || right)) return;
    event.preventDefault();
    const layer = Math.min(read.layers - 1, Math.max(0, cell.layer + down));
    const head = Math.min(read.heads - 1, Math.max(0, cell.head + right));
    select(ui, { layer, head });
    ui.cells[layer * read.heads + head].button.focus();
  }

  function drawGrid(ui) {
    const { state } = ui;
    const { read } = current(ui);
    const score = ui.scores[state.score];
    let marked = 0;
    for (const { layer, head, button } of ui.cells) {
      const value = score ? score.values[layer][head] : null;
      const isMarked = value !== null && value >= state.mark;
      const chosen = layer === state.layer && head === state.head;
      marked += isMarked;
      button.classList.toggle("sb-ex-marked", isMarked);
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      const said = value === null ? "" : `, ${state.score} ${value.toFixed(2)}${isMarked ? ", marked" : ""}`;
      button.setAttribute("aria-label", `layer ${read.names[layer]}, head ${head}${said}`);
      button.title = button.getAttribute("aria-label");
    }
    ui.mark.node.disabled = !score;
    ui.said.textContent = score ? `${score.about}: ${marked} of ${ui.cells.length} heads reach ${state.mark.toFixed(2)}. ` +
      `This head: ${valueText(score.values[state.layer][state.head])}.` : "";
  }

  const valueText = (value) => (value === null ? "no token counts" : value.toFixed(2));

  // ------------------------------------------------------------------------------- one head

  function makeMap(ui) {
    const { el } = ui;
    const { MAP, LEFT, ABOVE, PLOT, SHADE, opacity } = root.Scratchbook.explorerDraw;
    ui.layer = choice(ui, "Layer", [], (value) => select(ui, { layer: Number(value) }));
    ui.head = choice(ui, "Head", [], (value) => select(ui, { head: Number(value) }));
    const share = (part, of) => `${((100 * part) / of).toFixed(3)}%`;
    ui.canvas = el("canvas", { role: "img", style: `left:${share(LEFT, MAP.width)};top:${share(ABOVE, MAP.height)};width:${share(PLOT, MAP.width)}` });
    ui.over = el("div", {});
    ui.map = el("div", { class: "sb-ex-map" }, ui.canvas, ui.over);
    ui.map.addEventListener("click", (event) => {
      const cell = cellOf(ui, event);
      if (cell) select(ui, { token: ui.state.direction === "from" ? cell.from : cell.to });
    });
    ui.map.addEventListener("pointermove", (event) => sayCell(ui, cellOf(ui, event)));
    ui.cell = el("p", { class: "sb-muted" }, "\u00a0");
    const shades = [0.01, 0.1, 0.25, 0.5, 1].map((weight) => el("span", {},
      el("i", { style: `background:rgb(${SHADE.join(" ")}/${opacity(weight).toFixed(3)})` }), String(weight)));
    ui.rings = el("span", {}, "\u25a1 a node's tokens, \u25cb an edge of the tree");
    return el("div", {}, el("h4", {}, "One head: a row looks, a column is looked at"),
      el("div", { class: "sb-row" }, ui.layer.label, ui.head.label), ui.map,
      el("div", { class: "sb-ex-shades", role: "group", "aria-label": "Key to the weights" }, "weight", ...shades, ui.rings), ui.cell);
  }

  function cellOf(ui, event) {
    const frame = ui.map.getBoundingClientRect();
    return root.Scratchbook.explorerDraw.cellAt(current(ui).read.time, (event.clientX - frame.left) / frame.width,
      (event.clientY - frame.top) / frame.height);
  }

  function sayCell(ui, cell) {
    const { read } = current(ui);
    const { nameOf } = root.Scratchbook.explorerData;
    ui.cell.textContent = cell ? `${nameOf(read, cell.from)} looks at ${nameOf(read, cell.to)}: ${
      read.maps[ui.state.layer][ui.state.head][cell.from * read.time + cell.to].toFixed(3)}` : "\u00a0";
  }

  function drawMap(ui) {
    const { state } = ui;
    const { read, overlay } = current(ui);
    const { explorerDraw, explorerData } = root.Scratchbook;
    explorerDraw.paint(ui.canvas, read.maps[state.layer][state.head], read.time);
    ui.canvas.setAttribute("aria-label", `The map of layer ${read.names[state.layer]}, head ${state.head}: ${read.time} by ${read.time} weights`);
    ui.over.innerHTML = explorerDraw.mapSvg(read.time, over(ui)); // numbers only
    ui.rings.hidden = !(overlay && state.tree);
    ui.layer.node.value = String(state.layer);
    ui.head.node.value = String(state.head);
    ui.treeSaid.textContent = "";
    if (overlay && state.tree && overlay.nodes.length) {
      const { along, of } = explorerData.treeWeight(read, state, overlay, state.threshold);
      ui.treeSaid.textContent = `Along ${along} of the ${of} edges of the tree this head's weight is ${state.threshold.toFixed(2)} or more.`;
    }
  }

  // What of the tree lies over the map: the nodes over the selected token, or else the larger half of them.
  function over(ui) {
    const { state } = ui;
    const { overlay } = current(ui);
    const { explorerData } = root.Scratchbook;
    if (!overlay || !state.tree) return { token: state.token };
    const nodes = state.token === null ? overlay.nodes : explorerData.nodesOver(overlay, state.token);
    const places = new Map(nodes.filter((node) => node.last - node.first > 1).map((node) => [`${node.first} ${node.last}`, node]));
    const largest = [...places.values()].sort((a, b) => b.last - b.first - (a.last - a.first)).slice(0, 12);
    return { token: state.token, squares: (state.node ? [state.node] : largest).map((node) => [node.first, node.last]),
      rings: explorerData.treeEdges(overlay) };
  }

  // ------------------------------------------------------------------------------- the edges

  function makeGraph(ui) {
    const { el } = ui;
    ui.direction = choice(ui, "Of the selected token", [["from", "what it looks at"], ["to", "what looks at it"]],
      (direction) => select(ui, { direction }));
    ui.threshold = slider(ui, "weight from", ui.state.threshold, (threshold) => select(ui, { threshold }));
    const id = `${ui.id}-most`;
    ui.most = el("input", { type: "number", id, min: 1, max: 60, value: MOST, onchange: () => {
      const most = Math.min(60, Math.max(1, Math.round(Number(ui.most.value)) || MOST));
      ui.most.value = String(most);
      select(ui, { most });
    } });
    ui.graph = el("div", { class: "sb-ex-graph" });
    ui.graph.addEventListener("click", (event) => {
      const label = event.target.closest("[data-token]");
      if (label) select(ui, { token: Number(label.dataset.token) });
    });
    ui.edgeSaid = el("p", { role: "status" });
    ui.treeSaid = el("p", {});
    ui.list = el("ol", { class: "sb-ex-list", "aria-label": "The edges and their weights, the heaviest first" });
    return el("div", {}, el("h4", {}, "The heaviest edges"), el("div", { class: "sb-row" }, ui.direction.label, ui.threshold.label,
      el("span", { class: "sb-ex-field" }, el("label", { for: id }, "edges at most"), ui.most)), ui.edgeSaid, el("div", { class: "sb-ex-halves" }, el("div", {}, ui.graph),
      el("div", {}, ui.list, ui.treeSaid)));
  }

  const found = (ui) => root.Scratchbook.explorerData.edges(current(ui).read, ui.state);

  function drawGraph(ui) {
    const { el, state } = ui;
    const { read } = current(ui);
    const { nameOf } = root.Scratchbook.explorerData;
    const { shown, left } = found(ui);
    ui.graph.innerHTML = root.Scratchbook.explorerDraw.graphSvg(shown, graphOptions(ui)); // every name is escaped
    ui.list.replaceChildren(...shown.map(({ from, to, weight }) =>
      el("li", {}, `${nameOf(read, from)} \u2192 ${nameOf(read, to)}: ${weight.toFixed(3)}`)));
    const whose = state.token === null ? "of this head" : `${state.direction === "from" ? "from" : "to"} token ${nameOf(read, state.token)}`;
    ui.edgeSaid.textContent = `${shown.length} ${shown.length === 1 ? "edge" : "edges"} ${whose}, ${state.threshold.toFixed(2)} or heavier${
      left ? `; ${left} more are not drawn` : ""}.`;
    ui.direction.node.disabled = state.token === null;
    ui.none.disabled = state.token === null;
  }

  function graphOptions(ui) {
    const { state } = ui;
    const { read, overlay } = current(ui);
    const { nameOf, treeEdges } = root.Scratchbook.explorerData;
    const tree = overlay && state.tree
      ? new Set(treeEdges(overlay).map(([a, b]) => `${Math.min(a, b)} ${Math.max(a, b)}`)) : null;
    return { name: (token) => nameOf(read, token), selected: state.token, tree };
  }

  // ------------------------------------------------------------------------------- export

  function makeEnd(ui) {
    const { el } = ui;
    ui.exported = el("p", { role: "status" });
    const button = (kind, make) => el("button", { type: "button", onclick: async () => {
      try {
        save(ui, `attention.${kind.toLowerCase()}`, await make());
        ui.exported.textContent = `attention.${kind.toLowerCase()} was made.`;
      } catch (error) {
        ui.exported.textContent = `${kind} could not be made: ${error.message}.`;
      }
    } }, `Save ${kind}`);
    const svg = () => exportSvg(ui);
    return el("div", {}, el("div", { class: "sb-row" },
      button("SVG", async () => new Blob([svg()], { type: "image/svg+xml" })),
      button("PNG", () => root.Scratchbook.explorerDraw.exportPng(svg())),
      button("JSON", async () => new Blob([root.Scratchbook.explorerData.exportJson(current(ui).view)], { type: "application/json" }))),
    ui.exported, root.Scratchbook.explorerCode.classPanel(el, ui.data.classes));
  }

  function exportSvg(ui) {
    const { state } = ui;
    const { read, title } = current(ui);
    return root.Scratchbook.explorerDraw.exportSvg(read, { ...over(ui), ...graphOptions(ui), layer: state.layer, head: state.head,
      title: `${title}: layer ${read.names[state.layer]}, head ${state.head}`, found: found(ui).shown });
  }

  function save(ui, name, blob) {
    const href = URL.createObjectURL(blob);
    const link = ui.el("a", { href, download: name });
    ui.element.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
  }

  // ------------------------------------------------------------------------------- drawing it all

  function draw(ui) {
    const { el, state } = ui;
    const { read, overlay } = current(ui);
    const { explorerCode } = root.Scratchbook;
    const { token, colour, scopes, node } = state;
    const text = JSON.stringify([token, colour, scopes, node && node.at]);
    if (ui.drawn !== text || ui.drawnOf !== read) { // another head leaves the text as it is
      explorerCode.drawText(ui.text, read, overlay, state);
      ui.key.replaceChildren(explorerCode.keyOf(el, overlay, state));
      [ui.drawn, ui.drawnOf] = [text, read];
    }
    explorerCode.drawFacts(el, ui.facts, read, overlay, state, (node) => select(ui, { node }));
    drawGrid(ui);
    drawMap(ui);
    drawGraph(ui);
    ui.shown = [ui.at, ...Object.entries(state).map(([, value]) =>
      (value && typeof value === "object" ? value.at : value)), read.time].join("/");
    tell(ui);
  }

  function tell(ui) {
    ui.element.dataset.liveState = ui.phase ? `${ui.shown}/${ui.phase}` : ui.shown;
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.attention_explorer = { mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.attention_explorer;
})(typeof window === "undefined" ? globalThis : window);
