// node --test tests/js/film.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_film_js.py writes from a real run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { along, commonStart, mean, nearest, problem, reach, rowAt, spread, thin } =
  require("../../scratchbook/teaching/live/film.js");

const near = (got, want, bound = 1e-12) => {
  assert.equal(got.length, want.length);
  got.forEach((value, i) => assert.ok(Math.abs(value - want[i]) <= bound, `${got} is not ${want}`));
};

test("the axis begins at step 0, ends at the last, and gives early steps more room", () => {
  assert.equal(along(0, 99), 0);
  assert.equal(along(99, 99), 1);
  assert.ok(Math.abs(along(9, 99) - 0.5) < 1e-12);
  assert.equal(along(0, 0), 0);
});

test("a place on the curve belongs to the nearest checkpoint on the axis", () => {
  const steps = [0, 10, 100, 1000];
  steps.forEach((step, i) => assert.equal(nearest(steps, step), i));
  assert.equal(nearest(steps, 2), 0);
  assert.equal(nearest(steps, 3), 1);
  assert.equal(nearest(steps, 25), 1);
  assert.equal(nearest(steps, 300), 2);
  assert.equal(nearest(steps, 1e6), 3);
  assert.equal(nearest(steps, -5), 0);
});

test("the prompt is what all samples share", () => {
  assert.equal(commonStart(["def f", "def g", "def "]), "def ");
  assert.equal(commonStart(["a", "b"]), "");
  assert.equal(commonStart(["same", "same"]), "same");
});

test("a click on the map chooses the row under it, or the nearest", () => {
  assert.deepEqual([-9, 0, 99, 100, 299, 300, 400].map((y) => rowAt(y, 300, 3)), [0, 0, 0, 1, 2, 2, 2]);
});

test("spread and reach by hand", () => {
  near(spread([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]), [1, 2, 3]);
  near(spread([[0.499, 0.499, 0]]), [2]); // rounded rows need not sum to one
  near(reach([[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]]), [0, 1, 1]);
  assert.equal(mean([1, 2, 6]), 3);
});

test("a thinned curve keeps its ends, its order and its mean", () => {
  const curve = Array.from({ length: 1000 }, (_, i) => [i + 1, 5 - Math.log(i + 1) / 2]);
  const points = thin(curve, 50);
  assert.ok(points.length <= 50 && points.length > 30);
  assert.deepEqual(points[0], curve[0]);
  points.slice(1).forEach((point, i) => assert.ok(point[0] > points[i][0] && point[1] < points[i][1]));
  assert.deepEqual(thin([[1, 4]], 50), [[1, 4]]);
});

test("data that cannot be played is refused with its reason", () => {
  const data = { steps: [0, 1], losses: [2, 1], samples: ["a", "b"], curve: [[1, 2]], tokens: ["x"],
    attention: [[[1]], [[1]]] };
  assert.equal(problem(data), "");
  assert.equal(problem({ ...data, steps: [] }), "there is no frame");
  assert.equal(problem({ ...data, samples: ["a"] }), "1 samples for 2 steps");
  assert.equal(problem({ ...data, curve: [] }), "the curve is empty");
  assert.equal(problem({ ...data, tokens: ["x", "y"] }), "an attention map is not 2 by 2");
});

const path = process.env.SCRATCHBOOK_CASES;

test("the film of a real run", { skip: path ? false : "SCRATCHBOOK_CASES is not set" }, () => {
  const { data, prompt, spreads, reaches } = JSON.parse(readFileSync(path, "utf8"));
  assert.equal(problem(data), "");
  assert.ok(commonStart(data.samples).startsWith(prompt));
  data.attention.forEach((weights, i) => {
    near(spread(weights), spreads[i], 1e-9);
    near(reach(weights), reaches[i], 1e-9);
    weights.forEach((row, q) => row.slice(q + 1).forEach((w) => assert.equal(w, 0)));
  });
  const points = thin(data.curve, 160);
  assert.ok(points[points.length - 1][1] < points[0][1], "it has learned something");
});
