// What all living figures share: colours that follow the page's theme, and mounting each figure once.
(function (root) {
  "use strict";
  const book = (root.Scratchbook = root.Scratchbook || {});

  const LIGHT = `--sb-ink:#1c1e21;--sb-paper:#ffffff;--sb-muted:#5a6068;--sb-line:#c9ced6;--sb-accent:#1f6fb2;
    --sb-soft:#f1f4f8;--sb-1:#2f7fc1;--sb-2:#cc6a1d;--sb-3:#2a9071;--sb-4:#b8609a;--sb-5:#8a7a1f;--sb-6:#6f6bd1;
    --sb-7:#c9504c;--sb-8:#5b8a3a;`;
  const DARK = `--sb-ink:#e6e8eb;--sb-paper:#121417;--sb-muted:#a3abb5;--sb-line:#454c55;--sb-accent:#6db3f2;
    --sb-soft:#1d2126;--sb-1:#5aa5e6;--sb-2:#e58a43;--sb-3:#45b593;--sb-4:#d584b9;--sb-5:#b8a63f;--sb-6:#9894ee;
    --sb-7:#e6746f;--sb-8:#82b55c;`;
  // Who says which theme it is: the book and Colab, JupyterLab, VS Code. Else the reader's preference counts.
  const UNKNOWN = "html:not([data-theme],[theme]) body:not([data-jp-theme-light],[class*=vscode-])";
  const KNOWN_DARK = `html[data-theme=dark],html[theme=dark],body[data-jp-theme-light=false],body.vscode-dark,
    body.vscode-high-contrast:not(.vscode-high-contrast-light)`;
  const STYLE = `
  .sb-live{${LIGHT}color:var(--sb-ink);background:var(--sb-paper);border:1px solid var(--sb-line);border-radius:8px;
    padding:12px;margin:1rem 0;max-width:100%;box-sizing:border-box;font:15px/1.45 system-ui,sans-serif}
  .sb-live *{box-sizing:border-box}
  @media (prefers-color-scheme:dark){${UNKNOWN} .sb-live{${DARK}}}
  :is(${KNOWN_DARK}) .sb-live,.sb-live.sb-dark{${DARK}}
  .sb-live button{font:inherit;color:var(--sb-ink);background:var(--sb-soft);border:1px solid var(--sb-muted);
    border-radius:6px;min-height:32px;min-width:32px;padding:3px 12px;cursor:pointer}
  .sb-live button:hover{border-color:var(--sb-accent)}
  .sb-live button[aria-pressed=true]{border-color:var(--sb-accent);box-shadow:inset 0 -3px 0 var(--sb-accent)}
  .sb-live textarea,.sb-live select,.sb-live input[type=text],.sb-live input[type=number]{font:inherit;
    color:var(--sb-ink);background:var(--sb-paper);border:1px solid var(--sb-muted);border-radius:6px;padding:6px 8px;max-width:100%}
  .sb-live textarea{width:100%}
  .sb-live input[type=range]{accent-color:var(--sb-accent);min-height:28px;max-width:100%}
  .sb-live :focus-visible{outline:3px solid var(--sb-accent);outline-offset:2px}
  .sb-live .sb-row{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;margin:8px 0}
  .sb-live label{color:var(--sb-ink)}
  .sb-live .sb-muted{color:var(--sb-muted)}
  .sb-live svg{max-width:100%;height:auto;touch-action:none}
  .sb-live .sb-scroll{overflow-x:auto;max-width:100%}
  .sb-live table{border-collapse:collapse;margin:0;width:auto}
  .sb-live td,.sb-live th{padding:3px 8px;border-bottom:1px solid var(--sb-line);text-align:right;color:inherit;background:none}`;

  // Build an element: el("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child)
  book.el = function (tag, attributes, ...children) {
    const svgTags = "svg g path line circle rect text polygon polyline defs marker title desc";
    const node = svgTags.split(" ").includes(tag)
      ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };

  function addStyle() {
    if (document.getElementById("sb-live-style")) return;
    const style = book.el("style", { id: "sb-live-style" }, STYLE);
    document.head.append(style);
  }

  // Mount every figure whose script is loaded and that is not alive yet.
  book.mountAll = function () {
    addStyle();
    for (const element of document.querySelectorAll("[data-live]")) {
      const figure = book[element.dataset.live];
      if (!figure || !figure.mount || element.dataset.liveMounted) continue;
      element.dataset.liveMounted = "yes";
      const script = element.querySelector("script.sb-data");
      const data = script ? JSON.parse(script.textContent) : null;
      try {
        figure.mount(element, data);
      } catch (error) {
        // the still picture stays; the console says why
        console.error("living figure " + element.dataset.live + ": " + error.message);
      }
    }
  };

  if (typeof document !== "undefined" && document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", book.mountAll);
  }
  if (typeof module !== "undefined") module.exports = book;
})(typeof window === "undefined" ? globalThis : window);
