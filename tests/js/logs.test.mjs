// node --test tests/js/logs.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_logs_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const tokens = require("../../scratchbook/teaching/live/tokens.js");
const logs = require("../../scratchbook/teaching/live/logs.js");

test("a line like the one before is a mark and what differs", () => {
  assert.deepEqual(logs.fold("job 7 of 9\njob 8 of 9\n"),
    ["job 7 of 9\n", { kind: "LIKE", number: 0 }, { kind: "UP", number: 1 }]);
});

test("an empty text has no steps", () => assert.deepEqual(logs.fold(""), []));

const path = process.env.SCRATCHBOOK_CASES;

test("steps and numbers of tokens equal the package's", { skip: path ? false : "no cases" }, () => {
  const { templates, bpe, cases } = JSON.parse(readFileSync(path, "utf-8"));
  const made = tokens.makeBpe(bpe);
  assert.ok(cases.length >= 500, `only ${cases.length} cases`);
  for (const { text, steps, count } of cases) {
    const folded = logs.fold(text, templates);
    const flat = folded.map((step) => (typeof step === "string" ? step : [step.kind, step.number]));
    assert.deepEqual(flat, steps, JSON.stringify(text).slice(0, 300));
    assert.equal(logs.tokensOf(folded, made).length, count, JSON.stringify(text).slice(0, 300));
  }
});
