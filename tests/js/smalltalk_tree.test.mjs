// node --test tests/js/smalltalk_tree.test.mjs
// SCRATCHBOOK_CASES: [{source, lines, fault: {line, column} or null}]
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { parse } = require("../../scratchbook/teaching/live/smalltalk_syntax.js");
const { outline, explain } = require("../../scratchbook/teaching/live/smalltalk_tree.js");
const cases = JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf-8"));

const lines = (row, level = 0) => [
  `${"  ".repeat(level)}${row.role ? `${row.role}: ` : ""}${row.kind} ${row.text.replaceAll("\n", "\\n")}`.trimEnd(),
  ...row.children.flatMap((child) => lines(child, level + 1))];

test("a tree is told in the package's words", () => {
  const whole = cases.filter((each) => each.lines);
  assert.ok(whole.length > 100);
  for (const each of whole) assert.deepEqual(lines(outline(parse(each.source).tree)), each.lines);
});

test("every node knows its stretch of the source", () => {
  const source = "at: i\n\t^ self foo: #(1 2) bar: [ :x | x ]";
  const stretches = (row) => [source.slice(row.start, row.stop), ...row.children.flatMap(stretches)];
  assert.deepEqual(stretches(outline(parse(source).tree)).slice(1, 5), ["^ self foo: #(1 2) bar: [ :x | x ]",
    "self foo: #(1 2) bar: [ :x | x ]", "self", "#(1 2)"]);
});

test("a fault is shown at its line and column, under the letter", () => {
  const broken = cases.filter((each) => each.fault);
  assert.ok(broken.length > 50);
  for (const { source, fault } of broken) {
    const place = explain(source, parse(source).fault);
    assert.deepEqual([place.line, place.column], [fault.line, fault.column], source);
    assert.ok(place.caret.endsWith("^") && place.caret.length <= place.text.length + 1);
  }
  const place = explain("foo\n\t\t^ a b: ) c", parse("foo\n\t\t^ a b: ) c").fault);
  assert.deepEqual([place.text, place.caret, place.line, place.column, place.atEnd],
    ["^ a b: ) c", "       ^", 2, 10, false]);
  assert.ok(explain("foo ^ (1", parse("foo ^ (1").fault).atEnd);
});
