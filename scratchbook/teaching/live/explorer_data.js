// What the attention explorer reads and counts; nothing here draws. Chapter: chapters/06d_seeing_attention.ipynb
// A view is what AttentionView.to_json writes: weights are whole numbers of 1/scale, a row a token.
(function define(root) {
  "use strict";

  const FORMAT = "scratchbook attention";

  // {layers, heads, time, ...view, maps}: maps[layer][head] is a row of weights for every token, one
  // behind the other.
  function read(view) {
    if (view.format !== FORMAT || view.version !== 1) throw new Error(`this is no ${FORMAT}, version 1`);
    const time = view.tokens.length;
    const maps = view.attention.map((layer) => layer.map((rows) => {
      const map = new Float64Array(time * time);
      rows.forEach((row, i) => row.forEach((whole, j) => { map[i * time + j] = whole / view.scale; }));
      return map;
    }));
    if (!time || !maps.length || !maps[0].length) throw new Error("the view holds no token, layer or head");
    return { ...view, time, layers: maps.length, heads: maps[0].length, names: view.layers, maps };
  }

  // A row or a column of a map as edges, or all of it when token is null: the heaviest first, none lighter
  // than the threshold, `most` at the most. Edges of one weight stand in the order of their tokens.
  function edges(view, { layer, head, token = null, direction = "from", threshold = 0, most = 12 }) {
    const { time } = view;
    const map = view.maps[layer][head];
    const found = [];
    const add = (from, to) => {
      const weight = map[from * time + to];
      if (weight > 0 && weight >= threshold) found.push({ from, to, weight });
    };
    for (let each = 0; each < time; each++) {
      if (token === null) for (let to = 0; to < time; to++) add(each, to);
      else if (direction === "from") add(token, each);
      else add(each, token);
    }
    found.sort((a, b) => b.weight - a.weight || a.from - b.from || a.to - b.to);
    return { shown: found.slice(0, most), left: Math.max(0, found.length - most) };
  }

  // Means over the tokens that have a choice: all but the first.
  const SCORES = {
    "previous token": { about: "mean weight on the token before", each: (row, i) => row[i - 1] },
    "first token": { about: "mean weight on the first token", each: (row) => row[0] },
    "itself": { about: "mean weight on the token itself", each: (row, i) => row[i] },
    "same token before": { about: "mean weight on earlier copies of the token, where there is one",
      each: (row, i, ids) => {
        let [sum, any] = [0, false];
        for (let j = 0; j < i; j++) if (ids[j] === ids[i]) [sum, any] = [sum + row[j], true];
        return any ? sum : null;
      } },
  };

  // {name: {about, values: [layer][head]}}: null where no token counts.
  function scores(view, more = {}) {
    const { time } = view;
    const mean = (map, each) => {
      let [sum, count] = [0, 0];
      for (let i = 1; i < time; i++) {
        const value = each(map.subarray(i * time, (i + 1) * time), i, view.ids);
        if (value !== null) [sum, count] = [sum + value, count + 1];
      }
      return count ? sum / count : null;
    };
    const own = Object.entries(SCORES).map(([name, { about, each }]) =>
      [name, { about, values: view.maps.map((layer) => layer.map((map) => mean(map, each))) }]);
    return { ...Object.fromEntries(own), ...more };
  }

  // The weight that a token gives to the tokens from first to last - 1.
  function inside(view, { layer, head, token }, first, last) {
    let sum = 0;
    for (let to = first; to < last; to++) sum += view.maps[layer][head][token * view.time + to];
    return sum;
  }

  const MARKS = { "\n": "\u21b5", "\t": "\u2192", " ": "\u2423", "\r": "\u240d" };
  // White space as marks, so that a token of nothing else has a name.
  const visible = (text) => (text.trim() ? text.trim() : Array.from(text, (c) => MARKS[c] || c).join("")) || "(nothing)";
  const nameOf = (view, token) => `${token} ${visible(view.tokens[token])}`;

  // ------------------------------------------------------------------------- the code that is laid over it
  // overlay: {language, error, classes, roles, nodes, scopes, uses, sends}, all places counted in tokens.

  const holds = (place, token) => place.first <= token && token < place.last;
  const size = (place) => place.last - place.first;

  // Nodes from the root down to the smallest that holds a token.
  function nodesOver(overlay, token) {
    return overlay.nodes.map((node, at) => ({ ...node, at })).filter((node) => holds(node, token));
  }

  function scopesOver(overlay, token) {
    return overlay.scopes.map((scope, at) => ({ ...scope, at })).filter((scope) => holds(scope, token))
      .sort((a, b) => a.depth - b.depth);
  }

  // The variable that a token names, read or declared here: {name, scope, declared}; scope is null for
  // one that is declared elsewhere.
  function variableAt(overlay, token) {
    for (const scope of overlay.scopes) {
      const own = scope.declares.find((each) => holds(each, token));
      if (own) return { name: own.name, scope, declared: own };
    }
    const use = overlay.uses.find((each) => holds(each, token));
    if (!use) return null;
    const scope = overlay.scopes[use.scope] || null;
    return { name: use.name, scope, declared: scope && scope.declares.find((each) => each.name === use.name) };
  }

  // The send that a token belongs to most closely, and the part it plays there.
  function sendAt(overlay, token) {
    let [best, found] = [Infinity, null];
    overlay.sends.forEach((send, at) => {
      const parts = [...send.words.map((place) => ["selector", place, null]),
        ...(send.receiver ? [["receiver", send.receiver, null]] : []),
        ...send.arguments.map((place) => ["argument", place, place.word])];
      for (const [part, place, word] of parts) {
        if (!holds(place, token) || size(place) - (part === "selector" ? 0.5 : 0) >= best) continue;
        best = size(place) - (part === "selector" ? 0.5 : 0);
        found = { at, send, part, word };
      }
    });
    return found;
  }

  // Selectors from the first receiver to a send: ["a", "b", "c:"].
  function pathOf(overlay, at) {
    const words = [];
    for (let here = at; here >= 0; here = overlay.sends[here].receiverSend) {
      const send = overlay.sends[here];
      words.unshift(send.selector);
      if (send.receiverSend < 0 && send.receiver) words.unshift(send.receiver.text);
    }
    return words;
  }

  // Pairs of tokens that the tree joins: a node's own token and that of its parent.
  const joined = new WeakMap(); // of an overlay, which never changes
  function treeEdges(overlay) {
    if (joined.has(overlay)) return joined.get(overlay);
    const found = new Map();
    for (const node of overlay.nodes) {
      const above = overlay.nodes[node.parent];
      if (!above || above.head === node.head || size(node) < 1) continue;
      found.set(`${node.head} ${above.head}`, [node.head, above.head]);
    }
    joined.set(overlay, [...found.values()]);
    return joined.get(overlay);
  }

  // How many of the tree's edges a head looks along, in whichever direction.
  function treeWeight(view, { layer, head }, overlay, threshold) {
    const pairs = treeEdges(overlay);
    const map = view.maps[layer][head];
    const weight = ([a, b]) => Math.max(map[a * view.time + b], map[b * view.time + a]);
    return { along: pairs.filter((pair) => weight(pair) >= threshold).length, of: pairs.length };
  }

  const exportJson = (view) => JSON.stringify(view);

  const api = { read, edges, scores, inside, visible, nameOf, holds, nodesOver, scopesOver, variableAt, sendAt, pathOf,
    treeEdges, treeWeight, exportJson };
  api.source = `(${define})(self);`;
  (root.Scratchbook = root.Scratchbook || {}).explorerData = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
