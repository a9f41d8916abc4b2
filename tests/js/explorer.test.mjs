// node --test tests/js/explorer.test.mjs
// SCRATCHBOOK_CASES: {views: [{view, overlay, attention, edges: [{options, found}], scores, facts}], hostile}
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const data = require("../../scratchbook/teaching/live/explorer_data.js");
const draw = require("../../scratchbook/teaching/live/explorer_draw.js");
globalThis.Scratchbook.explorerData = data;
const code = require("../../scratchbook/teaching/live/explorer_code.js");
const { views, hostile, kinds } = JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf-8"));

test("the maps are the view's weights, number for number", () => {
  let numbers = 0;
  for (const each of views) {
    const read = data.read(each.view);
    assert.deepEqual([read.layers, read.heads, read.time], each.shape);
    each.attention.forEach((layer, l) => layer.forEach((head, h) => {
      assert.deepEqual(Array.from(read.maps[l][h]), head.flat());
      numbers += head.flat().length;
    }));
  }
  assert.ok(numbers > 10_000);
  assert.throws(() => data.read({ ...views[0].view, version: 2 }), /version 1/);
  assert.throws(() => data.read({ ...views[0].view, attention: [] }), /no token, layer or head/);
});

test("the edges are those of the package, in its order", () => {
  let compared = 0;
  for (const each of views) {
    const read = data.read(each.view);
    for (const { options, found } of each.edges) {
      const { shown, left } = data.edges(read, options);
      assert.deepEqual(shown.map(({ from, to, weight }) => [from, to, weight]), found.slice(0, options.most));
      assert.equal(left, Math.max(0, found.length - options.most));
      compared += found.length;
    }
    assert.ok(data.edges(read, { layer: 0, head: 0 }).shown.length <= 12);
  }
  assert.ok(compared > 1000);
});

test("the scores are those that torch counts", () => {
  for (const each of views) {
    const found = data.scores(data.read(each.view), { mine: { about: "x", values: [[1]] } });
    for (const [name, values] of Object.entries(each.scores)) {
      values.flat().forEach((value, at) => {
        const own = found[name].values.flat()[at];
        if (value === null) assert.equal(own, null);
        else assert.ok(Math.abs(own - value) < 1e-6, `${name} ${own} ${value}`);
      });
    }
    assert.equal(found.mine.about, "x");
  }
});

test("what is said of every token is what the package says", () => {
  let said = 0;
  for (const { view, overlay, facts } of views) {
    facts.forEach((wanted, token) => {
      const found = code.factsOf(data.read(view), overlay, { token });
      assert.deepEqual(found, wanted);
      said += found.length;
    });
  }
  assert.ok(said > 300);
  assert.deepEqual(code.factsOf(data.read(views[0].view), views[0].overlay, { token: null }), []);
});

test("what is exported is the view", () => {
  for (const { view } of views) assert.deepEqual(JSON.parse(data.exportJson(view)), view);
});

test("weights inside of a node sum up, those along the tree are counted", () => {
  for (const { view, overlay } of views) {
    const read = data.read(view);
    for (let token = 0; token < read.time; token++) {
      const all = data.inside(read, { layer: 0, head: 0, token }, 0, read.time);
      assert.ok(Math.abs(all - 1) < 0.5 * read.time / view.scale + 1e-9);
    }
    if (!overlay || !overlay.nodes.length) continue;
    const pairs = data.treeEdges(overlay);
    const { along, of } = data.treeWeight(read, { layer: 0, head: 0 }, overlay, 0);
    assert.equal(of, pairs.length);
    assert.equal(along, of);
    assert.equal(data.treeWeight(read, { layer: 0, head: 0 }, overlay, 1.1).along, 0);
    for (const node of overlay.nodes) if (node.parent >= 0) {
      const above = overlay.nodes[node.parent];
      assert.ok(above.first <= node.first && node.last <= above.last);
      const over = data.nodesOver(overlay, node.first).map((each) => each.at);
      assert.ok(over.includes(node.parent));
    }
  }
});

test("every kind has a line and a colour of its own", () => {
  for (const [mode, wanted] of [["syntax", kinds.classes], ["role", kinds.roles]]) {
    const looks = code.LOOKS[mode];
    assert.deepEqual(Object.keys(looks).sort(), wanted.sort());
    assert.equal(new Set(Object.values(looks).map(String)).size, wanted.length);
  }
});

test("hostile text stays text in the pictures", () => {
  const read = data.read(hostile);
  const { shown } = data.edges(read, { layer: 0, head: 0 });
  const name = (token) => data.nameOf(read, token);
  for (const svg of [draw.graphSvg(shown, { name, selected: 0, tree: null }),
    draw.exportSvg(read, { layer: 0, head: 0, title: hostile.text, found: shown, name, selected: null, tree: new Set(), token: 1 })]) {
    assert.ok(!/<script|<img|<b>|\u0000/.test(svg));
    assert.ok(svg.includes("&#60;"));
    const weights = [...svg.matchAll(/data-weight="([^"]+)"/g)].map((found) => Number(found[1]));
    assert.deepEqual(weights, shown.map((edge) => edge.weight));
  }
  assert.equal(draw.escape("a\u0000<\ud800>😀&\"'"), "a\ufffd&#60;\ufffd&#62;😀&#38;&#34;&#39;");
});

test("a place on the map is a cell, one beside it none", () => {
  const { MAP, LEFT, ABOVE, PLOT } = draw;
  const at = (x, y) => draw.cellAt(4, (LEFT + x * PLOT) / MAP.width, (ABOVE + y * PLOT) / MAP.height);
  assert.deepEqual(at(0.1, 0.9), { from: 3, to: 0 });
  assert.deepEqual(at(0.99, 0.01), { from: 0, to: 3 });
  assert.equal(at(-0.01, 0.5), null);
  assert.equal(at(0.5, 1.01), null);
  assert.equal(draw.opacity(0.25), 0.5);
});
