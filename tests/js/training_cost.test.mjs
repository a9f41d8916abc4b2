// node --test tests/js/training_cost.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_training_cost_js.py writes from Python.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { PARTS, duration, gigabytes, short, trainingCost } =
  require("../../scratchbook/teaching/live/training_cost.js");

const start = { parameters: 1e9, tokens_each: 20, ranks: 8, stage: 0, speed: 1e14, price: 3 };

test("sixteen bytes for each weight, and less where they are divided", () => {
  const sums = [0, 1, 2, 3].map((stage) => {
    const { bytes } = trainingCost({ ...start, stage });
    return PARTS.reduce((all, part) => all + bytes[part], 0) / 1e9;
  });
  assert.deepEqual(sums, [16, 9, 5.5, 2]);
});

test("more ranks take less time and the same money", () => {
  const few = trainingCost(start), many = trainingCost({ ...start, ranks: 80 });
  assert.ok(Math.abs(few.hours / many.hours - 10) < 1e-9);
  assert.ok(Math.abs(few.dollars - many.dollars) < 1e-6 * few.dollars);
});

test("words", () => {
  assert.equal(short(1e9), "1 billion");
  assert.equal(short(999.6), "1 thousand");
  assert.equal(short(0.034), "0.034");
  assert.equal(duration(0.5), "30 minutes");
  assert.equal(duration(24), "24 hours");
  assert.equal(duration(240), "10 days");
  assert.equal(gigabytes(1.234e10), "12.3 GB");
});

test("numbers equal Python's", { skip: !process.env.SCRATCHBOOK_CASES }, () => {
  for (const c of JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8"))) {
    const found = trainingCost(c.settings);
    for (const [name, wanted] of Object.entries({ ...c.bytes })) {
      assert.ok(Math.abs(found.bytes[name] - wanted) <= 1e-9 * wanted, JSON.stringify(c));
    }
    for (const name of ["flops", "hours", "dollars"]) {
      assert.ok(Math.abs(found[name] - c[name]) <= 1e-9 * c[name], JSON.stringify(c));
    }
  }
});
