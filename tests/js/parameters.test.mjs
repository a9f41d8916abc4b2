// node --test tests/js/parameters.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_parameters_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { cacheBytes, change, operations, parameters, sum, withUnit } =
  require("../../scratchbook/teaching/live/parameters.js");

const small = { vocab_size: 10, max_seq_len: 8, num_layers: 2, d_model: 8, num_heads: 4, num_kv_heads: 2,
  head_dim: 2, d_ff: 16, feedforward: "swiglu", norm: "rms", layout: "pre", positions: "rope", window: null,
  latent_dim: null, bias: "none", qk_norm: false, tie_embeddings: true };

test("a small model by hand", () => {
  const parts = parameters(small);
  assert.equal(parts.attention, 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8));
  assert.equal(parts.feedforward, 2 * 3 * 8 * 16);
  assert.equal(parts.norms, 5 * 8);
  assert.equal(sum(parts), 80 + 384 + 768 + 40);
  assert.equal(operations(small, 3).scores, 2 * 3 * 2 * 2 * 8 * 3);
  assert.equal(cacheBytes(small), 2 * 2 * 2 * 2 * 2);
});

test("untying adds one table, and nothing else", () => {
  const untied = change(small, "tie_embeddings", false);
  assert.equal(sum(parameters(untied)) - sum(parameters(small)), 80);
  assert.equal(sum(operations(untied, 5)), sum(operations(small, 5)));
});

test("heads always divide the width, and share as before", () => {
  for (const width of [64, 100, 768, 1600]) {
    const next = change(small, "d_model", width);
    assert.equal(next.num_heads * next.head_dim, width);
    assert.equal(next.num_heads % next.num_kv_heads, 0);
    assert.ok(Math.abs(next.d_ff / width - 2) < 0.1);
  }
  const more = change(small, "num_heads", 8);
  assert.deepEqual([more.head_dim, more.num_kv_heads, more.d_ff], [1, 4, 16]);
});

test("numbers get a unit and three digits", () => {
  const units = [" B", " kB", " MB"];
  assert.equal(withUnit(5, units), "5 B");
  assert.equal(withUnit(999.9, units), "1.00 kB");
  assert.equal(withUnit(36864, units), "36.9 kB");
  assert.equal(withUnit(249e6, units), "249 MB");
});

const path = process.env.SCRATCHBOOK_CASES;

test("equal to Python on every preset and random configs",
  { skip: path ? false : "SCRATCHBOOK_CASES is not set" }, () => {
    const cases = JSON.parse(readFileSync(path, "utf8"));
    assert.ok(cases.length >= 200);
    for (const { config, time, counts, work, cache } of cases) {
      assert.deepEqual(parameters(config), counts);
      assert.deepEqual(operations(config, time), work);
      assert.equal(cacheBytes(config), cache);
    }
  });
