// node --test tests/js/stability.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_stability_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { chain, size } = require("../../scratchbook/teaching/live/stability.js");

test("sizes by hand", () => {
  assert.equal(size([3, -4]), Math.sqrt(12.5));
  const double = [2, 0, 0, 2];
  assert.deepEqual(chain([1, 1], [double, double], 1, "no residual"), [1, 2, 4]);
  assert.deepEqual(chain([1, 1], [double, double], 0.5, "residual"), [1, 2, 4]);
  assert.deepEqual(chain([1, 1], [double, double], 1, "pre"), [1, 3, 5]);
  assert.deepEqual(chain([1, 1], [double, double], 1, "post"), [1, 1, 1]);
});

test("every arrangement equals torch", { skip: !process.env.SCRATCHBOOK_CASES }, () => {
  for (const c of JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8"))) {
    chain(c.start, c.matrices, c.gain, c.placement).forEach((value, layer) =>
      assert.ok(Math.abs(value - c.sizes[layer]) <= 1e-3 * c.sizes[layer],
        `${c.placement}, layer ${layer}: ${value} is not ${c.sizes[layer]}`));
  }
});
