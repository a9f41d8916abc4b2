// node --test tests/js/cache_calculator.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_cache_calculator_js.py writes from Python.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { cacheBytes, change, withUnit } = require("../../scratchbook/teaching/live/cache_calculator.js");

const llama = { layers: 32, heads: 32, kv_heads: 8, head_dim: 128, latent: 512, rope: 64, window: 4096,
  context: 1, batch: 1, size: 2 };

test("half a mebibyte per token with 32 heads, an eighth with 8", () => {
  assert.equal(withUnit(cacheBytes("MHA", llama, 64)), "512\u00a0KiB");
  assert.equal(withUnit(cacheBytes("GQA", llama, 64)), "128\u00a0KiB");
});

test("a window stops growing, a state never began", () => {
  const far = { ...llama, context: 2 ** 20 };
  assert.equal(cacheBytes("window", far, 64), cacheBytes("window", { ...far, context: 2 ** 19 }, 64));
  assert.equal(cacheBytes("linear", far, 64), cacheBytes("linear", llama, 64));
});

test("key heads go on dividing the heads", () => {
  assert.equal(change(llama, "heads", 4).kv_heads, 4);
  assert.equal(change(llama, "heads", 64).kv_heads, 8);
});

test("units", () => {
  assert.equal(withUnit(1000), "1000\u00a0B");
  assert.equal(withUnit(1024 * 1023.9), "1.00\u00a0MiB");
});

test("bytes equal Python's", { skip: !process.env.SCRATCHBOOK_CASES }, () => {
  for (const c of JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8"))) {
    assert.equal(cacheBytes(c.kind, c.sizes, c.slack), c.bytes, JSON.stringify(c));
  }
});
