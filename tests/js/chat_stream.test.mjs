// node --test tests/js/chat_stream.test.mjs
// SCRATCHBOOK_CASES names a JSON file that tests/js/test_chat_stream_js.py writes: what the server sent.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const chat = require("../../scratchbook/teaching/live/chat_stream.js");
const file = process.env.SCRATCHBOOK_CASES;
const reference = file ? JSON.parse(readFileSync(file, "utf-8")) : null;

// A reader that knows what comes: whatever it reads behind the prompt, the next letter of a script is certain.
function scripted(script, prompt) {
  const letters = [...new Set(script)];
  let read = 0;
  return { letter: (id) => letters[id], encode: (text) => [...text].map((_, i) => i), asked: () => read,
    read: () => {
      const at = Math.max(0, ++read - [...prompt].length);
      return letters.map((letter) => (letter === script[at] ? 0 : -Infinity));
    } };
}

function answered(script, messages, more = {}) {
  const reader = scripted([...script], chat.promptOf(messages));
  const steps = chat.answer(reader, { messages, stops: [], most: [...script].length, temperature: 1, topP: 1, seed: 1,
    id: "chatcmpl-0", created: 7, model: "m", ...more });
  const found = { sent: "", text: "", kinds: [], pieces: [] };
  for (;;) {
    const { done, value } = steps.next();
    if (done) return { ...found, ...value, asked: reader.asked() };
    found.sent += value.sent;
    found.text += value.text;
    found.kinds.push(value.kind);
    if (value.kind === "token") found.pieces.push(value.text);
  }
}

const HI = [{ role: "user", content: "Hi" }];

test("JSON has a space behind each comma and colon", () => {
  const value = { a: [1, null, true, "é\"\\\n"], b: {}, c: [] };
  assert.equal(chat.dumps(value), '{"a": [1, null, true, "é\\"\\\\\\n"], "b": {}, "c": []}');
  assert.deepEqual(JSON.parse(chat.dumps(value)), value);
  assert.equal(chat.sse("[DONE]"), "data: [DONE]\n\n");
});

test("each token is asked for once and sent when it is there", () => {
  const found = answered("abcab", HI);
  const read = chat.promptOf(HI).length;
  assert.deepEqual(found.pieces, ["a", "b", "c", "a", "b"]);
  assert.deepEqual(found.kinds, ["frame", ...Array(read).fill("read"), ...Array(5).fill("token"), "frame"]);
  assert.equal(found.asked, read + 4); // behind the last token nothing is read
  assert.deepEqual([found.read, found.written, found.reason], [read, 5, "length"]);
});

test("what may begin a stop string waits, and a stop string is not shown", () => {
  const found = answered("ab##c##!d", HI, { stops: ["##!", "zz"] });
  assert.deepEqual(found.pieces, ["a", "b", "", "", "##c", "", "", ""]);
  assert.equal(found.reason, "stop");
  assert.equal(found.text, "ab##c");
  const cut = answered("ab#", HI, { stops: ["##!"] });
  assert.deepEqual([cut.text, cut.reason], ["ab#", "length"]); // held back until nothing follows
});

test("the earliest of several stop strings counts", () => {
  const stops = chat.makeStops(["cd", "bcde"]);
  assert.deepEqual([..."abcd"].map((letter) => stops.add(letter)), ["a", "", "", "b"]);
  assert.ok(stops.stopped);
});

test("the prompt is the whole conversation", () => {
  const talk = [...HI, { role: "assistant", content: "Yes" }, { role: "user", content: "No" }];
  assert.equal(chat.promptOf(talk),
    "### User:\nHi\n\n### Assistant:\nYes\n\n### User:\nNo\n\n### Assistant:\n");
});

test("temperature and top-p change what is drawn, a seed repeats it", () => {
  const reader = () => ({ letter: (id) => "xyz"[id], encode: () => [0], read: () => [2, 1, 0].map((x) => x) });
  const text = (more) => [...chat.answer(reader(), { messages: HI, stops: [], most: 60, temperature: 1, topP: 1, seed: 1,
    id: "", created: 0, model: "", ...more })].map((step) => step.text).join("");
  assert.equal(text({ temperature: 0 }), "x".repeat(60));
  assert.equal(text({ topP: 0.5 }), "x".repeat(60)); // the first alone has more than half
  assert.equal(new Set(text({ topP: 0.9 })).size, 2);
  assert.equal(new Set(text({})).size, 3);
  assert.equal(text({}), text({}));
  assert.notEqual(text({}), text({ seed: 2 }));
});

test("the bytes are the server's", { skip: !reference }, () => {
  for (const { script, messages, stops, most, sent } of reference.streams) {
    const { id, created, model } = JSON.parse(sent.split("\n\n")[0].slice("data: ".length));
    assert.equal(answered(script, messages, { stops, most, id, created, model }).sent, sent);
  }
});

test("JSON is the server's", { skip: !reference }, () => {
  for (const { value, json } of reference.values) assert.equal(chat.sse(value), json);
});

test("the prompts are the server's", { skip: !reference }, () => {
  for (const { messages, prompt } of reference.prompts) assert.equal(chat.promptOf(messages), prompt);
});

test("the texts are those of the server's stream", { skip: !reference }, () => {
  for (const { pieces, stops, shown, stopped } of reference.stopping) {
    const ours = chat.makeStops(stops);
    const found = [];
    for (const piece of pieces) {
      if (ours.stopped) break;
      found.push(ours.add(piece));
    }
    assert.deepEqual(found, shown);
    assert.equal(ours.stopped, stopped);
  }
});
