// The figure on the page "Why your numbers differ": orders of one sum, in plain JavaScript.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const figure = require("../../scratchbook/teaching/live/addition.js");

test("every order adds the same numbers, to within float32", () => {
  const values = figure.numbers(1);
  const truth = figure.exact(values);
  for (const [name, add] of Object.entries(figure.ORDERS)) {
    assert.ok(Math.abs(add(values) - truth) / truth < 1e-4, name);
  }
});

test("adding in pairs is closer to the truth than adding one by one", () => {
  const values = figure.numbers(1);
  const truth = figure.exact(values);
  const error = (sum) => Math.abs(sum - truth);
  assert.ok(error(figure.inPairs(values)) < error(figure.oneByOne(values)));
});

test("a shuffle moves numbers and changes none", () => {
  const values = figure.numbers(3, 100);
  const moved = figure.shuffled(values, 7);
  assert.notDeepEqual(moved, values);
  assert.deepEqual(Float32Array.from(moved).sort(), Float32Array.from(values).sort());
});

test("sums are rounded to float32 after each addition", () => {
  assert.equal(figure.oneByOne(Float32Array.of(16777216, 1)), 16777216);
});

test("agreement counts the digits that two sums share", () => {
  assert.equal(figure.agreement("499.12", "499.34"), 4);
});
