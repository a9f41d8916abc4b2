// node --test tests/js/rank.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_rank_js.py writes with torch.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { approximate, energy, svd } = require("../../scratchbook/teaching/live/rank.js");

const near = (rows, others, bound) => rows.forEach((row, i) => row.forEach((x, j) =>
  assert.ok(Math.abs(x - others[i][j]) <= bound, `row ${i}, column ${j}: ${x} is not ${others[i][j]}`)));

test("by hand: a matrix of rank one, and its singular value", () => {
  const parts = svd([[3, 0], [4, 0]]);
  assert.deepEqual(parts.s.map((s) => Number(s.toFixed(12))), [5, 0]);
  near(approximate(parts, 1), [[3, 0], [4, 0]], 1e-12);
  near(approximate(parts, 0), [[0, 0], [0, 0]], 0);
  assert.equal(energy(parts.s, 1), 1);
  assert.equal(energy([0, 0], 1), 1);
  assert.ok(Math.abs(energy([2, 1], 1) - 0.8) < 1e-12);
});

test("fewer rows than columns are refused", () => {
  assert.throws(() => svd([[1, 2, 3]]), /transpose/);
});

test("singular values and the best copies equal torch", { skip: !process.env.SCRATCHBOOK_CASES }, () => {
  for (const c of JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8"))) {
    const parts = svd(c.matrix);
    near([parts.s], [c.s], 1e-9 * Math.max(1, c.s[0]));
    near(approximate(parts, c.rank), c.best, 1e-9 * Math.max(1, c.s[0]));
    near(approximate(parts, c.s.length), c.matrix, 1e-9 * Math.max(1, c.s[0]));
  }
});
