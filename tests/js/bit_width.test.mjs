// node --test tests/js/bit_width.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_bit_width_js.py writes with torch:
// {rounding: [{weights, bits, group, codes, scales}], models: [{weights, bits, sharing, ids, bpb, bytes}]}
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const tiny = require("../../scratchbook/teaching/live/tiny_model.js");
const { bitsPerByte, compress, greedy, groupOf, mount, quantize, round } =
  require("../../scratchbook/teaching/live/bit_width.js");
const cases = process.env.SCRATCHBOOK_CASES
  ? JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8")) : null;

test("halves go to the even neighbour", () => {
  const pairs = [[0.5, 0], [1.5, 2], [2.5, 2], [-0.5, 0], [-1.5, -2], [-2.5, -2], [2.4, 2], [-2.6, -3], [3, 3]];
  for (const [x, y] of pairs) assert.equal(round(x) + 0, y);
});

test("by hand: two groups of two, three bits", () => {
  const { codes, scales, values } = quantize([3, -1.5, 0, 0], 3, 2);
  assert.deepEqual([...codes], [3, -2, 0, 0]);
  assert.deepEqual([...scales], [1, 0]);
  assert.deepEqual([...values], [3, -2, 0, 0]);
});

test("what cannot be is refused", () => {
  assert.throws(() => quantize([1, 2], 1, 2), /bits=1/);
  assert.throws(() => quantize([1, 2], 9, 2), /bits=9/);
  assert.throws(() => quantize([1, 2, 3], 4, 2), /groups of 2/);
  assert.throws(() => groupOf([4, 6], "4"), /groups of 4/);
  assert.deepEqual([groupOf([4, 6], "matrix"), groupOf([4, 6], "row"), groupOf([4, 6], "3")], [24, 6, 3]);
});

test("codes and scales equal torch", { skip: !cases }, () => {
  for (const c of cases.rounding) {
    const found = quantize(c.weights, c.bits, c.group);
    assert.deepEqual([...found.codes], c.codes);
    found.scales.forEach((scale, g) => assert.ok(Math.abs(scale - c.scales[g]) <= 1e-7 * c.scales[g]));
  }
});

test("weights that lie beside the page are asked for, and their absence is said", () => {
  const added = [];
  globalThis.document = { head: { append: (script) => added.push(script) } };
  globalThis.Scratchbook.el = (tag, attributes, ...children) => ({ tag, attributes, children });
  const element = { append: (note) => added.push(note) };
  for (const event of ["onerror", "onload"]) {  // no file, and a file without weights
    mount(element, { source: "../live/weights.js" });
    const script = added.pop();
    assert.equal(script.attributes.src, "../live/weights.js");
    script.attributes[event]();
    assert.match(added.pop().children[0], /missing/);
  }
  assert.equal(added.length, 0);
  delete globalThis.document;
});

test("bits per byte of the rounded model equal torch", { skip: !cases }, () => {
  for (const c of cases.models) {
    const model = tiny.load(c.weights);
    const { model: small, bytes } = compress(model, c.weights.shapes, c.bits, c.sharing);
    const found = bitsPerByte(small, c.ids, c.sizes);
    assert.ok(Math.abs(found - c.bpb) < 1e-4, `${c.bits} bits, ${c.sharing}: ${found} is not ${c.bpb}`);
    assert.equal(bytes, c.bytes);
    const written = greedy(small, c.ids.slice(0, 5), 4);
    assert.equal(written.length, 4);
    const last = tiny.forward(small, c.ids.slice(0, 5)).at(-1);
    assert.equal(last[written[0]], Math.max(...last));
  }
});
