// node --test tests/js/scheduler.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_scheduler_js.py writes from the package.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { SCHEDULES, make, submit, step, idle, written, nameOf } = require("../../scratchbook/teaching/live/scheduler.js");

const rest = { places: 2, blocks: 12, size: 4, chunk: 6 };
const steps = (schedule, requests, options = {}) => {
  const engine = make({ ...rest, schedule, ...options });
  for (const [prompt, fresh] of requests) assert.ok(submit(engine, prompt, fresh));
  while (!idle(engine)) {
    step(engine);
    assert.ok(engine.steps < 1000);
  }
  assert.equal(engine.free.length, engine.blocks);
  return engine.steps;
};

test("the timeline of the page: eleven steps, eight steps", () => {
  const requests = [6, 1, 2, 3, 2].map((fresh) => [1, fresh]);
  assert.equal(steps("static", requests), 11);
  assert.equal(steps("continuous", requests), 8);
  assert.equal(steps("one", requests), 14);
});

test("what can never fit is refused", () => {
  const engine = make({ ...rest, schedule: "continuous" });
  assert.ok(submit(engine, 40, 9));
  assert.ok(!submit(engine, 40, 10));
  assert.ok(!submit(engine, 0, 3));
  assert.ok(!submit(engine, 3, 0));
});

test("with few blocks the youngest gives way, and all end", () => {
  const engine = make({ ...rest, blocks: 5, schedule: "continuous" });
  for (const [prompt, fresh] of [[3, 15], [3, 12], [5, 6]]) assert.ok(submit(engine, prompt, fresh));
  while (!idle(engine)) step(engine);
  assert.ok(engine.gaveWay > 0);
  assert.equal(engine.free.length, 5);
});

test("names", () => assert.deepEqual([0, 25, 26].map(nameOf), ["A", "Z", "A1"]));

const path = process.env.SCRATCHBOOK_CASES;

test("equal to the package, step by step", { skip: path ? false : "SCRATCHBOOK_CASES is not set" }, () => {
  const cases = JSON.parse(readFileSync(path, "utf8"));
  assert.ok(cases.length >= 60);
  assert.deepEqual([...new Set(cases.map((each) => each.options.schedule))].sort(), [...SCHEDULES].sort());
  let gaveWay = 0;
  for (const { options, requests, wanted } of cases) {
    const engine = make(options);
    for (const [prompt, fresh] of requests) assert.ok(submit(engine, prompt, fresh));
    for (const { tokens, running, waiting, blocks } of wanted) {
      const events = step(engine);
      assert.deepEqual(events.filter((event) => event.kind === "writes").map((event) => event.job), tokens);
      assert.deepEqual(engine.running.map((job) => [job.number, job.read, written(job)]), running);
      assert.deepEqual(engine.waiting.map((job) => job.number), waiting);
      assert.deepEqual(engine.running.map((job) => job.blocks), blocks);
    }
    assert.ok(idle(engine));
    gaveWay += engine.gaveWay;
  }
  assert.ok(gaveWay > 5, `${gaveWay}`);
});
