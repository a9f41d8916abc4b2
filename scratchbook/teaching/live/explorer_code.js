// The text of the attention explorer, token by token, and what is known of each: syntax, role, scope,
// message, tree. Chapter: chapters/06d_seeing_attention.ipynb
// No kind is told by its colour alone: each pair of colour and line is used once.
(function (root) {
  "use strict";

  const LOOKS = { // what is drawn under a token: line, colour
    syntax: { keyword: ["solid", 1], message: ["solid", 2], constant: ["dashed", 3], number: ["solid", 3],
      string: ["solid", 4], symbol: ["dashed", 4], comment: ["dotted", 5], operator: ["double", 6], name: ["dotted", 1],
      punctuation: ["dotted", 8], unknown: ["double", 7] },
    role: { selector: ["solid", 2], receiver: ["solid", 1], argument: ["dashed", 3], assigned: ["double", 4],
      parameter: ["dashed", 6], temporary: ["dotted", 6], definition: ["solid", 7], comment: ["dotted", 5],
      literal: ["double", 3] },
  };
  const MARKS = { "\n": "\u21b5\n", "\r": "\u240d" };
  const MOST_BANDS = 4; // bars above a token; deeper scopes are told in words
  const STYLE = `
    .sb-ex-text{white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4;max-height:22em;overflow-y:auto;margin:6px 0;
      padding:8px 10px;border:1px solid var(--sb-line);border-radius:6px;background:var(--sb-soft);
      font:14px/2.8 ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
    .sb-ex-text [role=option]{cursor:pointer;position:relative;padding:15px 0 2px;margin-right:1px;border-radius:2px;
      border-bottom:3px solid transparent;color:var(--sb-ink)}
    .sb-ex-text [role=option]:hover{background:var(--sb-line)}
    .sb-ex-text [aria-selected=true]{outline:3px solid var(--sb-ink);outline-offset:0}
    .sb-ex-text .sb-ex-declared{outline:2px dashed var(--sb-2)}
    .sb-ex-text .sb-ex-node{background:color-mix(in srgb,var(--sb-2) 28%,transparent)}
    .sb-ex-text i{font-style:normal;color:var(--sb-muted)}
    .sb-ex-facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 12px;margin:6px 0;font-size:14px}
    .sb-ex-facts dt{color:var(--sb-muted);margin:0}.sb-ex-facts dd{margin:0;overflow-wrap:anywhere}
    .sb-ex-facts code{background:none;color:var(--sb-ink);padding:0;border:0;white-space:pre-wrap}
    .sb-ex-key{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:13px;list-style:none;margin:4px 0;padding:0}
    .sb-ex-key li{margin:0}
    .sb-ex-key b{font-weight:400;border-bottom:3px solid transparent;padding:0 2px}
    .sb-ex .sb-ex-path{display:flex;flex-wrap:wrap;gap:4px}
    .sb-ex .sb-ex-path button{min-height:26px;padding:1px 8px;font-size:13px;text-align:left}`;

  const line = ([style, colour]) => `border-bottom-style:${style};border-bottom-color:var(--sb-${colour})`;

  // onSelect(token): by mouse or keyboard; null takes the selection away.
  function makeText(el, onSelect) {
    const node = el("div", { class: "sb-ex-text", role: "listbox",
      "aria-label": "The text, token by token; the arrow keys go through the tokens, Escape selects none" });
    const text = { el, node, spans: [], onSelect };
    node.addEventListener("click", (event) => {
      const at = text.spans.indexOf(event.target.closest("[role=option]"));
      if (at >= 0) onSelect(at);
    });
    node.addEventListener("keydown", (event) => walk(text, event));
    return text;
  }

  function walk(text, event) {
    const at = text.spans.indexOf(event.target);
    const last = text.spans.length - 1;
    const goals = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last,
      Enter: at, " ": at, Escape: null };
    if (at < 0 || !(event.key in goals)) return;
    event.preventDefault();
    const goal = goals[event.key] === null ? null : Math.min(last, Math.max(0, goals[event.key]));
    text.onSelect(goal);
    if (goal !== null) text.spans[goal].focus();
  }

  function setTokens(text, view) {
    const { el } = text;
    const { visible } = root.Scratchbook.explorerData;
    const before = text.tokens || [];
    text.tokens = view.tokens;
    let same = 0; // tokens that stand there already
    while (same < Math.min(before.length, view.tokens.length) && before[same] === view.tokens[same]) same++;
    text.spans.slice(same).forEach((span) => span.remove());
    const added = view.tokens.slice(same).map((token, place) => {
      const at = same + place;
      const parts = token.split(/(\n|\r)/).filter(Boolean).map((part) => (MARKS[part] ? el("i", {}, MARKS[part]) : part));
      return el("span", { role: "option", "aria-selected": "false", tabindex: at ? "-1" : "0",
        "aria-label": `${at}: ${visible(token)}` }, ...parts);
    });
    text.spans = [...text.spans.slice(0, same), ...added];
    text.node.append(...added);
  }

  // Bars above a token, one for each scope around it, the outermost on top.
  function bands(count) {
    const bars = Array.from({ length: Math.min(count, MOST_BANDS) }, (_, at) =>
      `linear-gradient(var(--sb-${[8, 6, 4, 2][at]}),var(--sb-${[8, 6, 4, 2][at]})) 0 ${at * 4}px/100% 3px no-repeat`);
    return bars.join(",");
  }

  // state: {token, colour, scopes, node}; node is a place whose tokens are marked.
  function drawText(text, view, overlay, state) {
    const { explorerData: data } = root.Scratchbook;
    const variable = overlay && state.token !== null ? data.variableAt(overlay, state.token) : null;
    const declared = variable && variable.declared;
    text.spans.forEach((span, at) => {
      const kinds = overlay ? { syntax: overlay.classes[at], role: overlay.roles[at][0] } : {};
      const look = (LOOKS[state.colour] || {})[kinds[state.colour]];
      const around = overlay && state.scopes ? data.scopesOver(overlay, at).length : 0;
      span.style.cssText = (look ? line(look) : "") + (around ? `;background:${bands(around)}` : "");
      span.className = [declared && data.holds(declared, at) && at !== state.token ? "sb-ex-declared" : "",
        state.node && data.holds(state.node, at) ? "sb-ex-node" : ""].join(" ").trim();
      span.setAttribute("aria-selected", String(at === state.token));
      span.tabIndex = at === (state.token === null ? 0 : state.token) ? 0 : -1;
    });
  }

  // The key to what is drawn: only the kinds that the text has.
  function keyOf(el, overlay, state) {
    const items = [];
    const used = new Set(overlay ? (state.colour === "syntax" ? overlay.classes : overlay.roles.map((kinds) => kinds[0])) : []);
    for (const [kind, look] of Object.entries(LOOKS[state.colour] || {})) {
      if (used.has(kind)) items.push(el("li", {}, el("b", { style: line(look) }, kind)));
    }
    if (overlay && state.scopes && overlay.scopes.length) {
      items.push(el("li", {}, "bars above: one for each scope around the token"));
    }
    return el("ul", { class: "sb-ex-key", "aria-label": "Key to the text" }, ...items);
  }

  // What is known of the selected token, as pairs of a word and what stands beside it.
  function factsOf(view, overlay, state) {
    const { explorerData: data } = root.Scratchbook;
    const { token } = state;
    if (!overlay || token === null) return [];
    const facts = [];
    const roles = overlay.roles[token];
    facts.push(["Syntax", overlay.classes[token] || "white space"]);
    const found = data.sendAt(overlay, token);
    if (roles.length) facts.push(["Role", roleText(roles, found)]);
    if (found) {
      const { send, at } = found;
      facts.push(["Message", `${send.selector}  (${send.kind})`]);
      if (send.receiver) facts.push(["Receiver", send.receiver.text]);
      send.arguments.forEach((each, place) => facts.push([each.word ? `Argument of ${each.word}` : `Argument ${place + 1}`, each.text]));
      const path = data.pathOf(overlay, at);
      if (path.length > 1) facts.push(["Path", path.join(" \u2192 ")]);
      const others = overlay.sends.filter((each) => send.cascade >= 0 && each.cascade === send.cascade);
      if (others.length) facts.push(["Cascade", `${others.map((each) => each.selector).join("; ")}, all to ${send.receiver.text}`]);
    }
    const variable = data.variableAt(overlay, token);
    if (variable) facts.push(["Variable", variableText(variable, view)]);
    const around = data.scopesOver(overlay, token);
    if (around.length) facts.push(["Scopes", around.map(scopeName).join(" \u203a ")]);
    return facts;
  }

  function roleText(roles, found) {
    const word = found && found.part === "argument" && found.word ? ` of ${found.word}` : "";
    return roles.map((role) => (role === "argument" ? `argument${word}` : role)).join(", ");
  }

  const scopeName = ({ kind, name, first, last }) => `${kind}${name ? ` ${name}` : ""} (tokens ${first} to ${last - 1})`;

  function variableText({ name, scope, declared }, view) {
    if (!scope) return `${name}: no scope of this text declares it`;
    const where = declared ? `, at token ${declared.first}` : "";
    return `${name}: ${declared ? declared.what : "variable"} of the ${scopeName(scope)}${where}`;
  }

  // The facts, and the nodes of the tree over the token as buttons: onNode(place or null).
  function drawFacts(el, box, view, overlay, state, onNode) {
    const { explorerData: data } = root.Scratchbook;
    const facts = factsOf(view, overlay, state);
    const rows = facts.flatMap(([word, said]) => [el("dt", {}, word), el("dd", {}, el("code", {}, said))]);
    const nodes = overlay && state.tree && state.token !== null ? data.nodesOver(overlay, state.token) : [];
    if (nodes.length) {
      const buttons = nodes.map((node) => {
        const words = [node.role, node.kind, node.text].filter(Boolean).join(" ");
        const chosen = state.node && state.node.at === node.at;
        const share = data.inside(view, state, node.first, node.last);
        return el("button", { type: "button", "aria-pressed": String(Boolean(chosen)), "data-node": node.at,
          onclick: () => onNode(chosen ? null : node) }, `${words} (${share.toFixed(2)})`);
      });
      rows.push(el("dt", {}, "Tree"), el("dd", { class: "sb-ex-path" }, ...buttons),
        el("dt", {}, ""), el("dd", { class: "sb-muted" }, "in brackets: the weight that the token gives to the node's tokens"));
    }
    const held = box.contains(document.activeElement) ? document.activeElement.dataset.node : null;
    box.replaceChildren(...(rows.length ? [el("dl", { class: "sb-ex-facts" }, ...rows)] : []));
    const again = held && box.querySelector(`[data-node="${held}"]`); // made anew, it keeps the focus
    if (again) again.focus();
  }

  // The tree of classes, and who sends and implements what: data.classes.
  function classPanel(el, classes) {
    if (!classes) return null;
    const parts = [];
    if (classes.rows) {
      parts.push(el("pre", { tabindex: "0", "aria-label": "The tree of classes" }, classes.rows.map(([level, name]) =>
        `${"  ".repeat(level)}${name}${name === classes.here ? "   \u25c0 this class" : ""}`).join("\n")));
    }
    if (classes.around) {
      const { method, senders, sends } = classes.around;
      const item = (name, list, none) => [el("dt", {}, el("code", {}, name)), el("dd", {}, list.length ? list.join(", ") : none)];
      parts.push(el("p", {}, `${method} is sent by: ${senders.length ? senders.join(", ") : "no method of this library"}`),
        el("p", {}, "It sends, and these implement it:"),
        el("dl", { class: "sb-ex-facts" }, ...sends.flatMap((each) => item(each.selector, each.implementors, "none of this library"))));
    }
    return el("details", {}, el("summary", {}, "Classes, senders and implementors"), ...parts);
  }

  const api = { STYLE, LOOKS, makeText, setTokens, drawText, keyOf, factsOf, drawFacts, classPanel };
  (root.Scratchbook = root.Scratchbook || {}).explorerCode = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
