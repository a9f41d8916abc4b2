// node --test tests/js/rope_clock.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_rope_clock_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { score, speeds, stretched } = require("../../scratchbook/teaching/live/rope_clock.js");

test("the first pair turns one radian per position", () => {
  assert.equal(speeds(8, 10000)[0], 1);
  assert.equal(speeds(8, 10000).length, 4);
});

test("at distance zero the score is one, and it does not feel the sign", () => {
  const found = speeds(16, 10000);
  assert.equal(score(0, found), 1);
  assert.equal(score(5, found), score(-5, found));
});

test("every scaling equals the package", { skip: !process.env.SCRATCHBOOK_CASES }, () => {
  for (const c of JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8"))) {
    const found = stretched(c.head_dim, c.base, c.scaling, c.factor, c.trained);
    found.forEach((speed, i) => assert.ok(Math.abs(speed - c.speeds[i]) <= 1e-5 * c.speeds[i],
      `${c.scaling} pair ${i}: ${speed} is not ${c.speeds[i]}`));
    assert.ok(Math.abs(score(c.distance, found) - c.score) < 1e-3);
  }
});
