// node --test tests/js/explorer_model.test.mjs
// SCRATCHBOOK_CASES: {file, before, name, texts: [{text, view, overlay}], overlays: [{source, spans, overlay}], spelled}
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
for (const name of ["smalltalk_tokens", "safetensors", "smalltalk_model", "smalltalk_syntax"]) {
  require(`../../scratchbook/teaching/live/${name}.js`);
}
const { overlay } = require("../../scratchbook/teaching/live/smalltalk_overlay.js");
const { makeReader, read, spelled, spansOf, serve } = require("../../scratchbook/teaching/live/explorer_model.js");
const cases = JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf-8"));

test("methods have the overlay that the package gives them", () => {
  assert.ok(cases.overlays.length > 150);
  for (const { source, spans, overlay: wanted } of cases.overlays) {
    const found = overlay(source, spans);
    for (const name of Object.keys(wanted)) {
      if (name === "error") assert.equal(found.error === "", wanted.error === "", source);
      else assert.deepEqual(found[name], wanted[name], `${name} of ${source}`);
    }
  }
});

test("a text's ids, tokens, spans and weights are the package's", () => {
  const reader = makeReader(cases.file, cases.before, cases.name);
  let most = 0;
  for (const { text, view, overlay: wanted } of cases.texts) {
    const found = read(reader, text);
    for (const name of ["format", "version", "model", "text", "ids", "tokens", "spans", "layers", "causal", "scale"]) {
      assert.deepEqual(found.view[name], view[name], name);
    }
    view.attention.forEach((layer, l) => layer.forEach((head, h) => head.forEach((row, i) => {
      assert.equal(found.view.attention[l][h][i].length, row.length);
      row.forEach((whole, j) => { most = Math.max(most, Math.abs(whole - found.view.attention[l][h][i][j])); });
    })));
    assert.deepEqual(found.overlay.roles, wanted.roles);
  }
  assert.ok(most <= 1, `a weight differs by ${most} thousandths`); // both are rounded
  assert.throws(() => read(reader, ""), /empty/);
  assert.throws(() => read(reader, "x ".repeat(2000)), /shorten it/);
});

test("bytes are spelled as Python spells them", () => {
  for (const { bytes, text } of cases.spelled) assert.equal(spelled(Uint8Array.from(bytes)), text);
  assert.deepEqual(spansOf("a😀é", [1, 2, 2, 1, 1]).map((each) => each.characters), [[0, 1], [1, 2], [1, 2], [2, 3], [2, 3]]);
  assert.deepEqual(spansOf("a😀é", [1, 2, 2, 1, 1]).map((each) => each.units), [[0, 1], [1, 3], [1, 3], [3, 4], [3, 4]]);
});

test("of texts that wait only the last is read, and a fault is said", async () => {
  const said = [];
  const scope = { postMessage: (message) => said.push(message) };
  serve(scope);
  scope.onmessage({ data: { kind: "load", file: cases.file, before: cases.before, name: "x" } });
  assert.equal(said.at(-1).kind, "ready");
  said.length = 0;
  for (const [run, text] of [[1, "foo"], [2, "foo ^ 1"], [3, "bar ^ self"]]) scope.onmessage({ data: { kind: "read", run, text } });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(said.map((each) => [each.kind, each.run, each.view.text]), [["read", 3, "bar ^ self"]]);
  scope.onmessage({ data: { kind: "read", run: 4, text: "" } });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual([said.at(-1).kind, said.at(-1).run], ["error", 4]);
  assert.match(said.at(-1).text, /empty/);
});
