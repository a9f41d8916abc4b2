// The pictures of the attention explorer: maps on canvases, the graph as SVG, and their export.
// Chapter: chapters/06d_seeing_attention.ipynb
// One function writes the graph for the page and for the file; only the colours differ.
(function (root) {
  "use strict";

  const SHADE = [66, 146, 214]; // seen on white and on black; the shade is its opacity
  const SCREEN = { ink: "var(--sb-ink)", muted: "var(--sb-muted)", line: "var(--sb-line)", paper: "var(--sb-paper)",
    edge: "var(--sb-1)", tree: "var(--sb-2)" };
  const PRINT = { ink: "#1c1e21", muted: "#5a6068", line: "#c9ced6", paper: "#ffffff", edge: "#2f7fc1", tree: "#cc6a1d" };
  const [ROW, WIDE, SIDE, TOP] = [22, 360, 118, 22]; // of the graph: a row, all, a column of names, the heading
  const [PLOT, LEFT, ABOVE] = [400, 30, 20]; // of a map: its side, and room for the numbers
  const NAMED = 15; // letters of a token's name

  const escape = (text) => String(text).replace(/[<>&"']/g, (c) => `&#${c.charCodeAt(0)};`)
    // what XML has no character for
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
  const cut = (name) => (Array.from(name).length > NAMED ? `${Array.from(name).slice(0, NAMED - 1).join("")}\u2026` : name);

  // Half the weight is more than half the shade: small weights are to be seen.
  const opacity = (weight) => Math.sqrt(Math.min(1, Math.max(0, weight)));

  function paint(canvas, map, time) {
    if (canvas.width !== time) [canvas.width, canvas.height] = [time, time];
    const context = canvas.getContext("2d");
    const image = context.createImageData(time, time);
    for (let at = 0, to = 0; at < map.length; at++, to += 4) {
      image.data[to] = SHADE[0];
      image.data[to + 1] = SHADE[1];
      image.data[to + 2] = SHADE[2];
      image.data[to + 3] = Math.round(255 * opacity(map[at]));
    }
    context.putImageData(image, 0, 0);
  }

  // Two columns of tokens and the edges between them, as wide as they weigh. options: {name(token), selected,
  // tree: Set of "small large" pairs or null, colours}
  function graphBody(found, { name, selected, tree, colours: c }) {
    const column = (key) => [...new Set(found.map((edge) => edge[key]))].sort((a, b) => a - b);
    const [left, right] = [column("from"), column("to")];
    const rows = Math.max(left.length, right.length, 1);
    const y = (list, token) => TOP + ROW * (list.indexOf(token) + 0.5 + (rows - list.length) / 2);
    const text = (x, at, words, anchor, more = "") =>
      `<text x="${x}" y="${at}" text-anchor="${anchor}" fill="${c.ink}" ${more}>${escape(words)}</text>`;
    const label = (list, x, anchor, side) => list.map((token) => text(x, y(list, token) + 4, cut(name(token)), anchor,
      `data-token="${token}" data-side="${side}"${token === selected ? ' font-weight="bold" text-decoration="underline"' : ""}`));
    const lines = found.map((edge, at) => {
      const [x1, x2, y1, y2] = [SIDE + 6, WIDE - SIDE - 6, y(left, edge.from), y(right, edge.to)];
      const along = tree && tree.has(`${Math.min(edge.from, edge.to)} ${Math.max(edge.from, edge.to)}`);
      const share = left.length === 1 ? 0.8 : right.length === 1 ? 0.2 : [0.25, 0.5, 0.75][at % 3];
      return { line: `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${along ? c.tree : c.edge}"
        stroke-width="${(1 + 6 * edge.weight).toFixed(2)}" stroke-opacity="0.8"${tree && !along ? ' stroke-dasharray="5 3"' : ""}
        data-from="${edge.from}" data-to="${edge.to}" data-weight="${edge.weight}"/>`,
      number: text(x1 + share * (x2 - x1), y1 + share * (y2 - y1) + 4, edge.weight.toFixed(2), "middle",
        `font-size="11" stroke="${c.paper}" stroke-width="3" paint-order="stroke"`) };
    });
    const body = [text(SIDE, 14, "looks", "end", `font-style="italic"`), text(WIDE - SIDE, 14, "is looked at", "start", `font-style="italic"`),
      ...lines.map((each) => each.line), ...lines.map((each) => each.number),
      ...label(left, SIDE, "end", "from"), ...label(right, WIDE - SIDE, "start", "to")];
    return { body: body.join("\n"), width: WIDE, height: TOP + ROW * rows + 8 };
  }

  function graphSvg(found, options) {
    const { body, width, height } = graphBody(found, { colours: SCREEN, ...options });
    const told = found.length ? `The ${found.length} heaviest edges` : "No edge is as heavy as that";
    return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${told}; the list beside it has their weights"
      font-family="system-ui,sans-serif" font-size="12.5">${body}</svg>`;
  }

  // What lies over a map: the numbers of its tokens, the selected token's row and column, and of the tree the
  // stretches of nodes as squares and the edges as rings.
  function mapBody(time, { token, squares = [], rings = [], colours: c }) {
    const unit = PLOT / time;
    const x = (at) => LEFT + at * unit;
    const y = (at) => ABOVE + at * unit;
    const step = [1, 2, 4, 8, 16, 32, 64, 128].find((each) => time / each <= 9) || 256;
    const parts = [`<rect x="${LEFT}" y="${ABOVE}" width="${PLOT}" height="${PLOT}" fill="none" stroke="${c.line}"/>`];
    for (let at = 0; at < time; at += step) {
      parts.push(`<text x="${x(at + 0.5)}" y="${ABOVE - 5}" text-anchor="middle" fill="${c.muted}" font-size="12">${at}</text>`,
        `<text x="${LEFT - 5}" y="${y(at + 0.5) + 4}" text-anchor="end" fill="${c.muted}" font-size="12">${at}</text>`);
    }
    for (const [first, last] of squares) {
      parts.push(`<rect x="${x(first)}" y="${y(first)}" width="${(last - first) * unit}" height="${(last - first) * unit}"
        fill="none" stroke="${c.tree}" stroke-width="1.5" data-first="${first}" data-last="${last}"/>`);
    }
    for (const [a, b] of rings) {
      parts.push(`<circle cx="${x(Math.min(a, b) + 0.5)}" cy="${y(Math.max(a, b) + 0.5)}" r="${Math.max(2.5, 0.4 * unit)}"
        fill="none" stroke="${c.tree}" stroke-width="1.5" data-tree="${a} ${b}"/>`);
    }
    if (token !== null) {
      parts.push(`<rect x="${LEFT}" y="${y(token)}" width="${PLOT}" height="${unit}" fill="none" stroke="${c.ink}" stroke-width="1.5"/>`,
        `<rect x="${x(token)}" y="${ABOVE}" width="${unit}" height="${PLOT}" fill="none" stroke="${c.ink}" stroke-dasharray="4 3"/>`);
    }
    return parts.join("\n");
  }

  const MAP = { width: LEFT + PLOT + 2, height: ABOVE + PLOT + 2 };
  const mapSvg = (time, options) => `<svg viewBox="0 0 ${MAP.width} ${MAP.height}" aria-hidden="true"
    font-family="system-ui,sans-serif">${mapBody(time, { colours: SCREEN, ...options })}</svg>`;

  // Which cell of a map a place on its picture is, as shares of width and height: {from, to}, or null beside it.
  function cellAt(time, right, down) {
    const to = Math.floor(((right * MAP.width - LEFT) / PLOT) * time);
    const from = Math.floor(((down * MAP.height - ABOVE) / PLOT) * time);
    return to >= 0 && from >= 0 && to < time && from < time ? { from, to } : null;
  }

  const legend = (c, y) => [0.01, 0.1, 0.25, 0.5, 1].map((weight, at) =>
    `<rect x="${LEFT + at * 70}" y="${y}" width="16" height="12" fill="${c.edge}" fill-opacity="${opacity(weight).toFixed(3)}" stroke="${c.line}"/>
    <text x="${LEFT + 20 + at * 70}" y="${y + 10}" fill="${c.ink}" font-size="11">${weight}</text>`).join("\n");

  // A file of its own: the map, its key, the text of the tokens, the graph. Weights below 0.002 stay white.
  function exportSvg(view, { layer, head, title, found, ...options }) {
    const c = PRINT;
    const unit = PLOT / view.time;
    const cells = [];
    view.maps[layer][head].forEach((weight, at) => {
      if (weight < 0.002) return;
      const [i, j] = [Math.floor(at / view.time), at % view.time];
      cells.push(`<rect x="${(LEFT + j * unit).toFixed(2)}" y="${(ABOVE + i * unit).toFixed(2)}" width="${unit.toFixed(2)}"
        height="${unit.toFixed(2)}" fill-opacity="${opacity(weight).toFixed(3)}"/>`);
    });
    const graph = graphBody(found, { ...options, colours: c });
    const below = MAP.height + 60;
    const height = below + graph.height + 10;
    return `<svg role="img" aria-label="${escape(title)}: its map and heaviest edges" width="${MAP.width + 10}" height="${height}"
      viewBox="0 0 ${MAP.width + 10} ${height}" xmlns="http://www.w3.org/2000/svg"
      font-family="system-ui,sans-serif" font-size="12.5">
      <title>${escape(title)}</title><rect width="100%" height="100%" fill="${c.paper}"/>
      <g transform="translate(0 20)"><text x="${LEFT}" y="-4" fill="${c.ink}">${escape(title)}</text>
      <g fill="${c.edge}">${cells.join("\n")}</g>${mapBody(view.time, { ...options, colours: c })}
      ${legend(c, MAP.height + 6)}</g>
      <g transform="translate(0 ${below})">${graph.body}</g></svg>`;
  }

  // The picture as PNG, twice as large: a promise of a Blob.
  function exportPng(svg) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large"))), "image/png");
      };
      image.onerror = () => reject(new Error("the picture could not be drawn"));
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
    });
  }

  const api = { SHADE, paint, opacity, graphSvg, mapSvg, cellAt, exportSvg, exportPng, escape, MAP, LEFT, ABOVE, PLOT };
  (root.Scratchbook = root.Scratchbook || {}).explorerDraw = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
