// node --test tests/js/attention.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_attention_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { attend, clamp, scores, softmax } = require("../../scratchbook/teaching/live/attention.js");

const near = (got, want, bound = 1e-12) => {
  assert.equal(got.length, want.length);
  got.forEach((value, i) => assert.ok(Math.abs(value - want[i]) <= bound, `${got} is not ${want}`));
};

test("a score is the dot product over the root of the size", () => {
  near(scores([3, 4], [[1, 0], [0, 1]], { scale: false }), [3, 4]);
  near(scores([3, 4], [[1, 0], [0, 1]]), [3 / Math.SQRT2, 4 / Math.SQRT2]);
  near(scores([3, 4], [[1, 0], [0, 1]], { scale: false, temperature: 2 }), [1.5, 2]);
});

test("three times the odds, three quarters of the weight", () => {
  near(softmax([Math.log(3), 0]), [0.75, 0.25]);
  const hand = attend([Math.SQRT2 * Math.log(3), 0], [[1, 0], [0, 1]], [8, 0]);
  near(hand.weights, [0.75, 0.25]);
  near([hand.output], [6]);
});

test("adding a constant changes nothing, and large scores do not overflow", () => {
  near(softmax([1001, 1000]), softmax([1, 0]));
  near(softmax([1e6, -1e6]), [1, 0]);
});

test("hidden keys get nothing, and nothing to see gives zeros", () => {
  const visible = [true, false];
  near(attend([1, 0], [[0, 0], [9, 9]], [2, 100], { visible }).weights, [1, 0]);
  const none = attend([1, 0], [[1, 1], [9, 9]], [2, 100], { visible: [false, false] });
  near([...none.weights, none.output], [0, 0, 0]);
});

test("a handle stays in the frame and never reads minus zero", () => {
  assert.equal(clamp(7, 3), 3);
  assert.equal(clamp(-7, 3), -3);
  assert.equal(clamp(1.2345, 3), 1.25);
  assert.ok(Object.is(clamp(-0.001, 3), 0));
});

const path = process.env.SCRATCHBOOK_CASES;

test("equal to torch on random cases", { skip: path ? false : "SCRATCHBOOK_CASES is not set" }, () => {
  const cases = JSON.parse(readFileSync(path, "utf8"));
  assert.ok(cases.length >= 200);
  for (const { query, keys, values, options, weights, output } of cases) {
    const got = attend(query, keys, values, options);
    near(got.weights, weights, 1e-9);
    near([got.output], [output], 1e-9);
  }
});
