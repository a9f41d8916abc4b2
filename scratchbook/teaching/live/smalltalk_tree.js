// A parse tree of Smalltalk as a list that opens and closes, and a syntax error at its place.
// Chapter: chapters/09_smalltalk_model.ipynb
// The lines of text are pure; drawTree() below only puts them on the page.
(function (root) {
  "use strict";

  const STYLE = `
    .sb-st-tree,.sb-st-tree ul{list-style:none;margin:0;padding:0}
    .sb-st-tree ul{margin-left:9px;padding-left:12px;border-left:1px solid var(--sb-line)}
    .sb-st-tree li{margin:0}
    .sb-st-tree li[aria-expanded=false]>ul{display:none}
    .sb-st-tree li>div{display:flex;flex-wrap:wrap;gap:0 8px;align-items:center;min-height:28px;cursor:pointer;border-radius:4px}
    .sb-st-tree li:focus{outline:none}
    .sb-st-tree li:focus-visible>div{outline:3px solid var(--sb-accent);outline-offset:-2px}
    .sb-st-tree li>div>i{flex:0 0 0.8em;font-style:normal;color:var(--sb-muted)}
    .sb-st-tree li>div>i::before{content:"·"}
    .sb-st-tree li[aria-expanded=true]>div>i::before{content:"▾"}
    .sb-st-tree li[aria-expanded=false]>div>i::before{content:"▸"}
    .sb-st-tree small{color:var(--sb-muted);font-size:13px}
    .sb-st-tree code{background:none;color:var(--sb-ink);padding:0;font-size:14px;overflow-wrap:anywhere;white-space:pre-wrap}`;
  const WORDS = { send: "message", array: "literal array", bytes: "byte array", brace: "brace array" };

  // The part that a child plays in its parent.
  function roleOf({ kind }, at) {
    if (at === 0 && (kind === "send" || kind === "cascade")) return "receiver";
    if (kind === "send" || kind === "message" || kind === "pragma") return "argument";
    if (kind === "assignment") return ["to", "value"][at];
    return "";
  }

  // `at: i put: v`, from the selector and the names of the parameters.
  function patternOf({ text, parameters }) {
    if (!parameters.length) return text;
    const words = text.replaceAll(":", ": ").trim().split(" ");
    return words.map((word, at) => `${word} ${parameters[at]}`).join(" ");
  }

  // What is a node's own and of no child: a selector, a name, a constant.
  function ownText(node) {
    const bars = node.temporaries && node.temporaries.length ? ["|", ...node.temporaries, "|"] : [];
    if (node.kind === "method") return [patternOf(node), ...bars].join(" ");
    if (node.kind === "block") return [...node.parameters.map((name) => `:${name}`), ...bars].join(" ");
    return ["array", "bytes", "brace", "cascade", "return", "assignment"].includes(node.kind) ? "" : node.text;
  }

  // A tree as scratchbook/smalltalk/outlines.py tells it: {role, kind, text, start, stop, children}.
  function outline(node, role = "") {
    return { role, kind: WORDS[node.kind] || node.kind, text: ownText(node), start: node.start, stop: node.stop,
      children: node.children.map((child, at) => outline(child, roleOf(node, at))) };
  }

  // Where a source is refused, for a person: {line, column, expected, atEnd, text, caret}, the last two
  // to stand under each other.
  function explain(source, fault) {
    const before = source.slice(0, fault.position).split("\n");
    const begun = before.at(-1);
    const text = source.split("\n")[before.length - 1];
    const indent = /^\t*/.exec(begun)[0].length;
    return { line: before.length, column: begun.length + 1, expected: fault.expected, text: text.slice(indent),
      caret: `${begun.slice(indent).replace(/[^\t]/g, " ")}^`, atEnd: fault.position >= source.trimEnd().length };
  }

  function item(tree, row, level) {
    const { el } = tree;
    const words = el("div", {}, el("i", { "aria-hidden": "true" }), row.role ? el("small", {}, row.role) : null,
      el("small", {}, row.kind), row.text ? el("code", {}, row.text) : null);
    const node = el("li", { role: "treeitem", tabindex: "-1", "aria-level": level, "aria-selected": "false",
      "aria-expanded": row.children.length ? "true" : null,
      "aria-label": [row.role, row.kind, row.text].filter(Boolean).join(" ") }, words);
    if (row.children.length) {
      node.append(el("ul", { role: "group" }, ...row.children.map((child) => item(tree, child, level + 1))));
    }
    tree.rows.set(node, row);
    return node;
  }

  // onSelect(row): a node was reached, by mouse or by keyboard.
  function makeTree(el, onSelect) {
    const node = el("ul", { class: "sb-st-tree" });
    const tree = { el, node, rows: new Map(), onSelect, chosen: null };
    node.addEventListener("keydown", (event) => walk(tree, event));
    node.addEventListener("click", (event) => {
      const found = event.target.closest("li");
      if (!found) return;
      if (found === tree.chosen || event.target.tagName === "I") turn(found);
      found.focus();
    });
    node.addEventListener("focusin", (event) => select(tree, event.target.closest("li")));
    return tree;
  }

  function turn(found, open = found.getAttribute("aria-expanded") === "false") {
    if (found.hasAttribute("aria-expanded")) found.setAttribute("aria-expanded", String(open));
  }

  function select(tree, found) {
    if (!found) return;
    if (tree.chosen) {
      tree.chosen.tabIndex = -1;
      tree.chosen.setAttribute("aria-selected", "false");
    }
    tree.chosen = found;
    found.tabIndex = 0;
    found.setAttribute("aria-selected", "true");
    tree.onSelect(tree.rows.get(found));
  }

  // The tree of a parsed method, or an empty place.
  function drawTree(tree, parsed) {
    tree.rows.clear();
    tree.chosen = null;
    ["role", "aria-label"].forEach((name) => tree.node.removeAttribute(name));
    tree.node.replaceChildren();
    if (!parsed) return;
    tree.node.setAttribute("role", "tree");
    tree.node.setAttribute("aria-label", "Parse tree of the method");
    tree.node.append(item(tree, outline(parsed), 1));
    tree.node.firstChild.tabIndex = 0;
  }

  function walk(tree, event) {
    const now = event.target.closest("li");
    const shown = Array.from(tree.node.querySelectorAll("li")).filter((each) => each.checkVisibility());
    const at = shown.indexOf(now);
    const open = now.getAttribute("aria-expanded");
    const goals = {
      ArrowDown: () => shown[at + 1], ArrowUp: () => shown[at - 1], Home: () => shown[0], End: () => shown.at(-1),
      ArrowRight: () => (open === "false" ? turn(now) : open && shown[at + 1]),
      ArrowLeft: () => (open === "true" ? turn(now) : now.parentElement.closest("li")),
      Enter: () => turn(now), " ": () => turn(now),
    };
    if (!goals[event.key]) return;
    event.preventDefault();
    const goal = goals[event.key]();
    if (goal) goal.focus();
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.smalltalkTree = { STYLE, outline, explain, makeTree, drawTree };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.smalltalkTree;
})(typeof window === "undefined" ? globalThis : window);
