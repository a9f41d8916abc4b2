// node --test tests/js/tokens.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_tokens_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const tokens = require("../../scratchbook/teaching/live/tokens.js");

const tiny = tokens.makeBpe({ merges: [97, 97, 256, 98] }); // "aa", then "aab"

test("a chunk is merged lowest rank first and every state is kept", () => {
  const steps = tokens.mergeSteps(tiny, "aaab");
  assert.deepEqual(steps.map((step) => step.ids), [
    [97, 97, 97, 98], [256, 97, 98],
  ]);
  assert.deepEqual(tokens.mergeSteps(tiny, "aab").at(-1).ids, [257]);
});

test("with a limit only the first merges are known", () => {
  assert.deepEqual(tokens.encode(tiny, "aab", 0), [97, 97, 98]);
  assert.deepEqual(tokens.encode(tiny, "aab", 1), [256, 98]);
  assert.deepEqual(tokens.encode(tiny, "aab", 2), [257]);
});

test("white space is Unicode's, not JavaScript's", () => {
  assert.deepEqual(tokens.split("a\u0085b", "gpt2"), ["a", "\u0085", "b"]);
  assert.deepEqual(tokens.split(" \ufeff", "gpt2"), [" \ufeff"]);
});

test("the long s ends a word as an s does, for GPT-4 only", () => {
  assert.deepEqual(tokens.split("it'\u017f", "cl100k"), ["it", "'\u017f"]);
  assert.deepEqual(tokens.split("it'S", "gpt2"), ["it", "'", "S"]);
});

test("what cannot be seen is written out", () => {
  assert.equal(tokens.visible(" \n\t"), "\u00b7\u21b5\u2192");
  assert.equal(tokens.visible("\u200d"), "U+200D");
  assert.equal(tokens.visibleBytes([0xf0, 0x9f]), "F0 9F");
  assert.equal(tokens.visibleBytes([0xef, 0xbb, 0xbf]), "U+FEFF");
});

test("an empty text has no pieces", () => {
  for (const name of Object.keys(tokens.PATTERNS)) assert.deepEqual(tokens.split("", name), []);
  assert.deepEqual(tokens.encode(tiny, ""), []);
});

const path = process.env.SCRATCHBOOK_CASES;

test("ids and splits equal the package's", { skip: path ? false : "no fixture given" }, () => {
  const fixture = JSON.parse(readFileSync(path, "utf-8"));
  const models = Object.fromEntries(
    Object.entries(fixture.models).map(([name, data]) => [name, tokens.makeBpe(data)]));
  // Python wrote only assigned code points: one that is unassigned here is newer than this engine
  const cases = fixture.cases.filter(({ text }) => !/\p{Cn}/u.test(text));
  assert.ok(cases.length >= 3000, `only ${cases.length} cases`);
  for (const { text, splits, ids } of cases) {
    for (const [name, want] of Object.entries(splits)) {
      assert.deepEqual(tokens.split(text, name), want, `${name} splits ${JSON.stringify(text)}`);
    }
    for (const [name, want] of Object.entries(ids)) {
      assert.deepEqual(tokens.encode(models[name], text), want, `${name}: ${JSON.stringify(text)}`);
    }
  }
});
