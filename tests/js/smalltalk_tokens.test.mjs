// node --test tests/js/smalltalk_tokens.test.mjs
// SCRATCHBOOK_CASES: {tokenizer, texts: [{text, ids, chunks}], runs: [{ids, text}], records}
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const tokens = require("../../scratchbook/teaching/live/smalltalk_tokens.js");
const cases = JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf-8"));
const tokenizer = tokens.makeTokenizer(cases.tokenizer);

test("cut and ids of every text are the package's", () => {
  assert.ok(cases.texts.length > 4000);
  for (const { text, ids, chunks } of cases.texts) {
    assert.deepEqual(tokens.split(tokenizer, text), chunks, JSON.stringify(text));
    assert.deepEqual(tokens.encode(tokenizer, text), ids, JSON.stringify(text));
    assert.equal(tokens.decode(tokenizer, ids), text);
  }
});

test("any ids become the package's text, half characters too", () => {
  for (const { ids, text } of cases.runs) assert.equal(tokens.decode(tokenizer, ids), text);
});

test("a class definition is written as in training", () => {
  assert.ok(cases.records.length > 100);
  for (const { record, text } of cases.records) assert.equal(tokens.definitionOf(record), text);
});

test("half of a surrogate pair and an unknown id are refused", () => {
  assert.throws(() => tokens.encode(tokenizer, "a\ud83d"), /character 2 is half of a pair/);
  assert.throws(() => tokens.bytesOf(tokenizer, 1e6), /not in this vocabulary/);
  assert.equal(tokens.decode(tokenizer, tokens.encode(tokenizer, "\ud83d\ude00")), "\ud83d\ude00");
});
