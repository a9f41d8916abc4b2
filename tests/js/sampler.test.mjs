// node --test tests/js/sampler.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_sampler_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { drawOne, entropy, generator, probabilities } = require("../../scratchbook/teaching/live/sampler.js");
const logits = [0.5, 0.25, 0.15, 0.1].map(Math.log);

test("filters by hand", () => {
  assert.deepEqual(probabilities(logits, { topK: 1 }), [1, 0, 0, 0]);
  assert.deepEqual(probabilities(logits, { topP: 0.8 }).map((p) => p > 0), [true, true, true, false]);
  assert.deepEqual(probabilities(logits, { minP: 0.25 }).map((p) => p > 0), [true, true, true, false]);
  assert.deepEqual(probabilities(logits, { temperature: 0 }), [1, 0, 0, 0]);
});

test("heat spreads, cold gathers, two equal choices are one bit", () => {
  const [cold, plain, hot] = [0.5, 1, 2].map((temperature) => entropy(probabilities(logits, { temperature })));
  assert.ok(cold < plain && plain < hot);
  assert.equal(entropy([0.5, 0.5, 0]), 1);
});

test("draws follow the probabilities and the seed", () => {
  const probs = probabilities(logits, { topK: 3 });
  const counts = [0, 0, 0, 0];
  const random = generator(3);
  for (let i = 0; i < 20000; i++) counts[drawOne(probs, random)] += 1;
  // five standard errors: a false alarm once in a million runs
  counts.forEach((count, i) => assert.ok(Math.abs(count / 20000 - probs[i]) < 0.018, String(counts)));
  assert.equal(counts[3], 0);
  assert.equal(generator(5)(), generator(5)());
});

test("the probabilities equal the package's", { skip: !process.env.SCRATCHBOOK_CASES }, () => {
  for (const c of JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8"))) {
    const found = probabilities(c.logits, c.settings);
    c.probs.forEach((p, i) => assert.ok(Math.abs(p - found[i]) < 1e-5,
      `${JSON.stringify(c.settings)} token ${i}: ${found[i]} is not ${p}`));
  }
});
