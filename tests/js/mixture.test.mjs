// node --test tests/js/mixture.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_mixture_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { UNITS, WEIGHTS, shares, repeats, placeOf, percent } = require("../../scratchbook/teaching/live/mixture.js");

const near = (got, want, bound = 1e-12) => assert.ok(Math.abs(got - want) <= bound, `${got} is not ${want}`);
const SIZES = { code: { lines: 284, bytes: 9000, tokens: 3500 }, books: { lines: 4030, bytes: 240000, tokens: 60000 } };

test("three times 284 lines of 4,882 are not three quarters", () => {
  const found = shares(SIZES, { code: 3, books: 1 });
  near(found.code.lines, 852 / 4882);
  for (const unit of UNITS) near(found.code[unit] + found.books[unit], 1);
  assert.equal(new Set(UNITS.map((unit) => found.code[unit].toFixed(3))).size, 3);
});

test("nothing repeated, nothing shared", () => {
  near(shares(SIZES, { code: 0, books: 1 }).code.bytes, 0);
  near(shares(SIZES, { code: 0, books: 0 }).code.bytes, 0);
});

test("the repetitions that a share needs give that share", () => {
  for (const unit of UNITS) {
    for (const share of [0, 0.1, 0.5, 0.75, 0.99]) {
      const weight = repeats(SIZES.code[unit], SIZES.books[unit], share);
      near(shares(SIZES, { code: weight, books: 1 }).code[unit], share);
    }
  }
  assert.equal(repeats(1, 1, 1), Infinity);
});

test("every step of the slider is another weight, and stays where it was put", () => {
  assert.equal(WEIGHTS[0], 0);
  assert.equal(WEIGHTS.at(-1), 1000);
  for (const weight of [0.5, 1, 3, 5]) assert.ok(WEIGHTS.includes(weight));
  for (let place = 0; place < WEIGHTS.length; place++) {
    assert.equal(placeOf(WEIGHTS[place]), place);
    if (place > 1) {
      const ratio = WEIGHTS[place] / WEIGHTS[place - 1];
      assert.ok(ratio > 1.05 && ratio < 1.3, `${WEIGHTS[place]} after ${WEIGHTS[place - 1]}`);
    }
  }
});

test("weights between two steps go to the nearest", () => {
  assert.equal(WEIGHTS[placeOf(3.66)], 3.5);
  assert.equal(WEIGHTS[placeOf(42.57)], 40);
  assert.equal(WEIGHTS[placeOf(0.01)], 0);
  assert.equal(WEIGHTS[placeOf(1e9)], 1000);
});

test("only nothing is 0 %, only everything 100 %", () => {
  assert.deepEqual([0, 1e-6, 0.004, 0.5, 0.757, 0.998, 0.99999, 1].map(percent),
    ["0 %", "0.1 %", "0.4 %", "50 %", "76 %", "99.8 %", "99.9 %", "100 %"]);
});

const path = process.env.SCRATCHBOOK_CASES;

test("equal to the package on random corpora", { skip: path ? false : "SCRATCHBOOK_CASES is not set" }, () => {
  const cases = JSON.parse(readFileSync(path, "utf8"));
  assert.ok(cases.length >= 200);
  for (const { sizes, weights, wanted } of cases) {
    const found = shares(sizes, weights);
    for (const name of Object.keys(sizes)) {
      for (const unit of UNITS) near(found[name][unit], wanted[name][unit]);
    }
  }
});
