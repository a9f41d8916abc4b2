// The text of the Smalltalk figure, token by token, and what the model looked at as it wrote one.
// Chapter: chapters/09_smalltalk_model.ipynb
(function (root) {
  "use strict";

  const MOST_NAMED = 6; // tokens that are named with their share
  const MARKS = { "\n": "↵", "\t": "→", " ": "␣" };
  const STYLE = `
    .sb-st-paper{white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4;min-height:7em;max-height:26em;overflow-y:auto;
      margin:8px 0;padding:8px 10px;border:1px solid var(--sb-line);border-radius:6px;background:var(--sb-soft);
      font:14px/1.75 ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
    .sb-st-paper span{border-radius:3px}
    .sb-st-special{font-style:italic}
    .sb-st-written [role=option]{cursor:pointer;border-bottom:2px solid var(--sb-1);padding:1px 0;margin-right:1px}
    .sb-st-written .sb-st-typed{border-bottom:1px dotted var(--sb-muted)}
    .sb-st-paper .sb-st-line::before{content:"↵";color:var(--sb-muted);font-size:12px}
    .sb-st-written [role=option]:hover{border-bottom-color:var(--sb-ink)}
    .sb-st-written [aria-selected=true]{outline:2px solid var(--sb-accent)}
    .sb-st-paper .sb-st-node{box-shadow:inset 0 -3px 0 var(--sb-2)}
    .sb-st-paper .sb-st-fault{text-decoration:underline wavy 2px var(--sb-7)}
    .sb-st-looks{list-style:none;margin:4px 0;padding:0}
    .sb-st-looks li{display:grid;grid-template-columns:minmax(0,9em) 1fr 3.6em;gap:8px;align-items:center;
      margin:0;min-height:24px}
    .sb-st-looks code{background:none;color:var(--sb-ink);padding:0;text-align:right;white-space:nowrap;
      overflow:hidden;text-overflow:ellipsis}
    .sb-st-looks b{display:block;height:12px;border-radius:2px;background:var(--sb-1)}
    .sb-st-looks span:last-child{text-align:right;font-variant-numeric:tabular-nums}`;

  // White space as marks, so that a token of nothing else can be named.
  const visible = (text) => Array.from(text, (letter) => MARKS[letter] || letter).join("") || "(part of a letter)";
  const inner = (text) => visible(text.replace(/^ (?=\S)/, ""));

  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

  // The places of the largest weights, the largest first.
  function largest(weights, count) {
    return Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]).slice(0, count);
  }

  // onSelect(position, focused): a written token was chosen, or the mouse stands on it.
  function makePaper(el, onSelect) {
    const given = el("span", {});
    const written = el("span", { class: "sb-st-written" });
    const node = el("div", { class: "sb-st-paper", role: "group", tabindex: "0",
      "aria-label": "What the model reads, and what it writes" }, given, written);
    const looks = el("ol", { class: "sb-st-looks" });
    const said = el("p", { class: "sb-muted", "aria-live": "polite" });
    const paper = { el, node, looks, said, given, written, tokens: [], start: 0, selected: null, onSelect };
    written.addEventListener("keydown", (event) => walk(paper, event));
    written.addEventListener("click", (event) => choose(paper, positionOf(paper, event)));
    written.addEventListener("focusin", (event) => choose(paper, positionOf(paper, event)));
    written.addEventListener("pointerover", (event) => onSelect(positionOf(paper, event)));
    written.addEventListener("pointerleave", () => onSelect(paper.selected));
    return paper;
  }

  const positionOf = (paper, event) => {
    const at = paper.tokens.findIndex((token) => token.span === event.target);
    return at < 0 ? paper.selected : at;
  };

  // Begin again with what the model reads; the method's source begins behind the last special token.
  function reset(paper, pieces) {
    paper.tokens = pieces.map(({ text, special }) => ({ text, given: true,
      span: paper.el("span", { class: special ? "sb-st-special" : "" }, text) }));
    paper.start = pieces.findLastIndex((piece) => piece.special) + 1;
    paper.selected = null;
    paper.given.replaceChildren(...paper.tokens.map((token) => token.span));
    paper.written.replaceChildren();
    ["role", "aria-label"].forEach((name) => paper.written.removeAttribute(name));
    clear(paper);
  }

  function clear(paper) {
    paper.looks.replaceChildren();
    paper.said.textContent = "";
    paper.tokens.forEach(({ span }) => { span.style.background = ""; span.title = ""; });
  }

  function option(paper, text, typed) {
    const marks = [typed ? "sb-st-typed" : "", text.startsWith("\n") ? "sb-st-line" : ""];
    return paper.el("span", { role: "option", class: marks.join(" ").trim(), tabindex: "-1",
      "aria-selected": "false", "aria-label": text.trim() ? null : visible(text) }, text);
  }

  function add(paper, batch) {
    const down = paper.node.scrollHeight - paper.node.scrollTop - paper.node.clientHeight < 40;
    const made = batch.map(({ text, share, typed }) => ({ text, share, span: option(paper, text, typed) }));
    if (made.length && !paper.written.firstChild) {
      made[0].span.tabIndex = 0;
      paper.written.setAttribute("role", "listbox");
      paper.written.setAttribute("aria-label", "Tokens that the model wrote; the arrow keys go through them");
    }
    paper.tokens.push(...made);
    paper.written.append(...made.map((token) => token.span));
    if (down) paper.node.scrollTop = paper.node.scrollHeight;
  }

  // That the model ended the method is a choice of a token too, with a name instead of a text.
  function end(paper, name, share) {
    add(paper, [{ text: name, share, typed: false }]);
    const last = paper.tokens.at(-1);
    last.special = true;
    last.span.classList.add("sb-st-special");
  }

  // More text of the last token: what stands for bytes that became no character.
  function extend(paper, text) {
    const last = paper.tokens.at(-1);
    last.text += text;
    last.span.append(text);
  }

  // The method's source so far.
  const sourceOf = (paper) =>
    paper.tokens.slice(paper.start).map((token) => (token.special ? "" : token.text)).join("");

  function choose(paper, position) {
    if (position === null || position === paper.selected || paper.tokens[position].given) return;
    if (paper.selected !== null) mark(paper.tokens[paper.selected], false);
    else paper.tokens.filter((token) => !token.given).forEach(({ span }) => { span.tabIndex = -1; });
    paper.selected = position;
    mark(paper.tokens[position], true);
    paper.onSelect(position);
  }

  function mark({ span }, chosen) {
    span.setAttribute("aria-selected", String(chosen));
    span.tabIndex = chosen ? 0 : -1;
  }

  function walk(paper, event) {
    const first = paper.tokens.findIndex((token) => !token.given);
    const last = paper.tokens.length - 1;
    const now = paper.selected === null ? first : paper.selected;
    const goal = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: first,
      End: last }[event.key];
    if (goal === undefined || first < 0) return;
    event.preventDefault();
    paper.tokens[Math.min(last, Math.max(first, goal))].span.focus();
  }

  // Show what the model looked at: `weights` over the tokens before the one at `position`.
  function showAttention(paper, position, weights, where) {
    clear(paper);
    const token = paper.tokens[position];
    if (!token) return;
    const most = largest(weights, MOST_NAMED);
    weights.forEach((weight, at) => {
      const { span } = paper.tokens[at];
      const strength = Math.round((45 * weight) / weights[most[0]]);
      span.style.background = `color-mix(in srgb, var(--sb-1) ${strength}%, transparent)`;
      span.title = percent(weight);
    });
    const name = (at) => inner(paper.tokens[at].text);
    paper.said.textContent = `“${inner(token.text)}” had a probability of ${percent(token.share)}. As it was chosen, `
      + `${where} looked most at ${most.slice(0, 3).map((at) => `“${name(at)}” (${percent(weights[at])})`).join(", ")}.`;
    paper.looks.replaceChildren(...most.map((at) => {
      const bar = paper.el("b", { "aria-hidden": "true" });
      bar.style.width = `${Math.max(1, 100 * weights[at])}%`;
      return paper.el("li", {}, paper.el("code", {}, name(at)), paper.el("span", {}, bar),
        paper.el("span", {}, percent(weights[at])));
    }));
  }

  // Underline the tokens of a stretch of the method's source, or of none.
  function underline(paper, name, start, stop) {
    let from = 0;
    paper.tokens.slice(paper.start).forEach(({ text, span }) => {
      span.classList.toggle(name, from < stop && from + text.length > start);
      from += text.length;
    });
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.smalltalkPaper = { STYLE, makePaper, reset, add, end, extend, sourceOf, choose, showAttention, underline, visible,
    percent, largest };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.smalltalkPaper;
})(typeof window === "undefined" ? globalThis : window);
