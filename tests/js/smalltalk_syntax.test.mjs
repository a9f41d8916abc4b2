// node --test tests/js/smalltalk_syntax.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_smalltalk_syntax_js.py writes with the parser in Python:
// [{source, tree, position, viable}]
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const { isViable, parse } = require("../../scratchbook/teaching/live/smalltalk_syntax.js");
const cases = process.env.SCRATCHBOOK_CASES
  ? JSON.parse(readFileSync(process.env.SCRATCHBOOK_CASES, "utf8")) : null;

function plain(node) {
  const more = node.parameters ? [node.parameters, node.temporaries] : [];
  return [node.kind, node.text, ...more, ...node.children.map(plain)];
}

test("by hand: precedence", () => {
  const { tree } = parse("foo ^ a b + c d: e");
  assert.deepEqual(plain(tree.children[0].children[0]),
    ["send", "d:", ["send", "+", ["send", "b", ["variable", "a"]], ["variable", "c"]], ["variable", "e"]]);
});

test("a hundred thousand brackets are refused", () => {
  assert.match(parse("foo " + "(".repeat(100000)).fault.expected, /fewer brackets/);
});

test("the same trees, the same refusals and the same viable beginnings as in Python", { skip: !cases }, () => {
  for (const { source, tree, position, viable } of cases) {
    const found = parse(source);
    assert.deepEqual(found.tree ? plain(found.tree) : null, tree, source);
    if (!tree) assert.equal(found.fault.position, position, source);
    assert.equal(isViable(source), viable, source);
  }
});
