// node --test tests/js/smalltalk_model.test.mjs
// SCRATCHBOOK_CASES names a JSON file that test_smalltalk_model_js.py writes with torch:
// {models: [{name, scripts, prompts, logits, attention, greedy}], chunks, choices}; a list of large
// numbers lies in a file of float32 beside it, by its name.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import test from "node:test";

const require = createRequire(import.meta.url);
const live = (name) => require(`../../scratchbook/teaching/live/${name}.js`);
const safetensors = live("safetensors");
const tokens = live("smalltalk_tokens");
const smalltalk = live("smalltalk_model");
live("smalltalk_syntax");
const worker = live("smalltalk_worker");

const path = process.env.SCRATCHBOOK_CASES;
const reference = path ? JSON.parse(readFileSync(path, "utf-8")) : { models: [], choices: [], texts: [] };
const numbers = (name) => {
  const bytes = readFileSync(join(dirname(path), name));
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};

// What the page has once it ran the scripts of the model.
function fileOf(scripts) {
  for (const script of scripts) (0, eval)(script);
  const { tables, tokenizer, parts } = globalThis.Scratchbook.smalltalkWeights;
  return { tables, tokenizer, weights: parts.slice(1).map((part) => part.text).join("") };
}

function furthest(ours, theirs) {
  assert.equal(ours.length, theirs.length);
  return ours.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i])), 0);
}

const opened = reference.models.map((each) => ({ ...each, writer: worker.makeWriter(fileOf(each.scripts)) }));
// What depends on no size is tried on small models alone.
const small = opened.filter((each) => each.writer.model.d_model < 100);

test("half precision: the numbers of the standard", () => {
  const known = { 0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 2 ** -14, 0x0001: 2 ** -24,
    0x3555: 0.333251953125, 0x7c00: Infinity, 0xfc00: -Infinity };
  for (const [bits, value] of Object.entries(known)) assert.equal(safetensors.halfToNumber(Number(bits)), value);
  assert.ok(Number.isNaN(safetensors.halfToNumber(0x7e00)));
});

test("a file that is cut short, or holds another type, is refused in words", () => {
  const header = JSON.stringify({ a: { dtype: "F64", shape: [1], data_offsets: [0, 8] } });
  const whole = new Uint8Array(8 + header.length + 8);
  new DataView(whole.buffer).setBigUint64(0, BigInt(header.length), true);
  whole.set(new TextEncoder().encode(header), 8);
  assert.throws(() => safetensors.readSafetensors(whole).tensor("a"), /a is of type F64/);
  assert.throws(() => safetensors.readSafetensors(whole).tensor("b"), /no tensor b/);
  for (const length of [0, 7, 20, whole.length - 1]) {
    assert.throws(() => safetensors.readSafetensors(whole.slice(0, length)), /cut short/);
  }
});

test("weights are the package's, bit for bit", { skip: !path }, () => {
  for (const { name, writer: { model }, weights } of opened) {
    for (const [place, file] of Object.entries(weights)) {
      const [layer, at] = place.split("/").map(Number);
      const ours = place === "embedding" ? model.embedding : place === "head" ? model.head : model.blocks[layer][at];
      assert.equal(furthest(ours, numbers(file)), 0, `${name}, ${place}`);
    }
  }
});

test("logits equal torch's at every position, read at once, by one, and in pieces", { skip: !path }, (t) => {
  for (const { name, writer: { model }, prompts, logits } of opened) {
    prompts.forEach((ids, which) => {
      const theirs = numbers(logits[which]);
      const whole = smalltalk.forward(model, smalltalk.newCache(model), ids, true);
      const error = furthest(whole, theirs);
      t.diagnostic(`${name}, prompt ${which} of ${ids.length}: largest difference ${error}`);
      assert.ok(error <= 1e-3, `${name}: ${error}`);
      const vocab = model.vocab_size;
      if (ids.length * vocab > 1e6) return; // a second of work for every hundred tokens
      const cache = smalltalk.newCache(model, ids.length);
      const cut = Math.floor(ids.length / 2);
      const pieces = [ids.slice(0, cut), ...ids.slice(cut).map((id) => [id])].filter((piece) => piece.length);
      let read = 0;
      for (const piece of pieces) {
        read += piece.length;
        const last = smalltalk.forward(model, cache, piece);
        assert.ok(furthest(last, theirs.slice((read - 1) * vocab, read * vocab)) <= 1e-3, name);
      }
      assert.throws(() => smalltalk.forward(model, cache, [0]), /do not fit into the room/);
    });
    assert.throws(() => smalltalk.forward(model, smalltalk.newCache(model), [model.vocab_size]), /outside the vocabulary/);
    assert.throws(() => smalltalk.forward(model, smalltalk.newCache(model), []), /nothing to read/);
  }
});

test("attention equals torch's in every layer and head", { skip: !path }, () => {
  for (const { writer: { model }, prompts, attention } of opened) {
    const cache = smalltalk.newCache(model);
    const [ids, theirs] = [prompts[0], numbers(attention)]; // (layers, heads, time, time)
    smalltalk.forward(model, cache, ids);
    const row = (layer, head, p) => {
      const at = ((layer * model.num_heads + head) * ids.length + p) * ids.length;
      return theirs.slice(at, at + p + 1);
    };
    for (let layer = 0; layer < model.num_layers; layer++) {
      for (const p of [0, 1, ids.length - 1]) {
        const heads = Array.from({ length: model.num_heads }, (_, head) => row(layer, head, p));
        heads.forEach((each, head) => {
          assert.ok(furthest(smalltalk.attentionOf(model, cache, layer, head, p), each) < 1e-5);
        });
        const mean = heads[0].map((_, i) => heads.reduce((sum, each) => sum + each[i], 0) / heads.length);
        assert.ok(furthest(smalltalk.attentionOf(model, cache, layer, null, p), mean) < 1e-5);
      }
    }
    assert.throws(() => smalltalk.attentionOf(model, cache, 0, 0, ids.length), /no attention/);
  }
});

test("probabilities equal torch's after temperature and top-k", { skip: !path }, () => {
  for (const { logits, temperature, top_k, probs } of reference.choices) {
    const ours = smalltalk.probabilities(Float32Array.from(logits), temperature, top_k);
    assert.ok(furthest(Array.from(ours), probs) < 1e-6, `temperature ${temperature}, top-k ${top_k}`);
  }
  assert.throws(() => smalltalk.probabilities([1, 2], -1), /temperature is -1/);
  assert.throws(() => smalltalk.probabilities([-Infinity, -Infinity]), /no token left/);
});

// Everything that a run of the writer says, and why it ended.
function written(writer, request) {
  const steps = worker.write(writer, { temperature: 0, topK: 0, valid: false, seed: 1, most: 40, ...request });
  const said = [];
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) {
      const made = said.filter((each) => each.kind === "token");
      return { pieces: said[0].pieces, settled: said[0].settled, ids: made.map((each) => each.id), reason: step.value.reason,
        text: made.map((each) => each.text).join("") + step.value.half, shares: made.map((each) => each.share) };
    }
    said.push(step.value);
  }
}

test("at temperature 0 it writes what write_method writes", { skip: !path }, () => {
  for (const { name, writer, greedy } of opened) {
    for (const { record, begun, source, valid, most } of greedy) {
      const found = written(writer, { record, begun, valid, most });
      assert.equal(found.settled + found.text, source, `${name}: ${begun}`);
      assert.ok(found.shares.every((share) => share > 0 && share <= 1));
    }
  }
});

test("the prompt is the package's", { skip: !path }, () => {
  for (const { name, writer, prompted } of opened) {
    for (const { record, begun, settled, ids } of prompted) {
      assert.equal(tokens.settle(writer.tokenizer, begun)[0], settled);
      const ours = tokens.promptIds(writer.tokenizer, record, settled, writer.model.max_seq_len);
      assert.deepEqual(ours, ids, `${name}: ${record && record.name}, ${begun}`);
    }
  }
});

test("a beginning is kept, whatever the model likes; the same seed writes the same", { skip: !path }, () => {
  for (const { writer } of small) {
    for (const begun of ["deposit: anAmo", "foo ^ sel", "at: index put: (", "naïve ^ 'ü", "x"]) {
      const request = { record: null, begun, temperature: 1.2, seed: 7, most: 30 };
      const [one, two, other] = [written(writer, request), written(writer, request),
        written(writer, { ...request, seed: 8 })];
      assert.ok((one.settled + one.text).startsWith(begun), `${begun} → ${one.text}`);
      assert.deepEqual(one, two);
      assert.notDeepEqual(one.ids, other.ids);
    }
  }
});

test("only valid Smalltalk: every step can still become a method, and the end is one", { skip: !path }, () => {
  const { parse, isViable } = globalThis.Scratchbook.smalltalkSyntax;
  for (const { writer } of small) {
    for (let seed = 1; seed <= 6; seed++) {
      const request = { record: null, begun: "foo: x", temperature: 1.5, seed, most: 25, valid: true };
      const found = written(writer, request);
      let source = found.settled;
      for (const id of found.ids) {
        source += tokens.decode(writer.tokenizer, [id]);
        assert.ok(source.includes("\ufffd") || isViable(source), source);
      }
      if (found.reason === "end") assert.ok(parse(source).tree, source);
    }
    assert.throws(() => written(writer, { record: null, begun: "foo ) ", valid: true }), /no continuation/);
  }
});

test("only text is drawn, and under the rule the end behind a whole method alone", { skip: !path }, () => {
  const { parse } = globalThis.Scratchbook.smalltalkSyntax;
  let ends = 0;
  for (const { writer } of small) {
    const { model, tokenizer, end } = writer;
    const free = written({ ...writer, end: -1 }, { record: null, temperature: 8, most: 40, begun: "foo" });
    assert.ok(free.ids.length >= 40 && free.ids.every((id) => id < tokenizer.tokens.length));
    // a head to which the end is as likely as the token that it likes best
    const request = { record: null, valid: true, most: 8 };
    const liked = written(writer, { ...request, begun: "foo: x ^ 1" }).ids.at(-1);
    const head = model.head.slice();
    head.set(head.slice(liked * model.d_model, (liked + 1) * model.d_model), end * model.d_model);
    for (let seed = 1; seed <= 40; seed++) {
      const found = written({ ...writer, model: { ...model, head } },
        { ...request, begun: seed % 4 ? "foo: x ^ 1." : "foo: x ^ (", seed, temperature: 1 });
      if (found.reason !== "end") continue;
      ends += 1;
      assert.ok(parse(found.settled + found.text).tree, found.settled + found.text);
    }
  }
  assert.ok(ends > 0 || !small.length, `${ends}`);
});

test("a full window ends the text, and a beginning without room is refused", { skip: !path }, () => {
  for (const { writer } of small) {
    const endless = { ...writer, end: -1, cache: smalltalk.newCache(writer.model) };
    const found = written(endless, { record: null, begun: "foo", most: 5000, temperature: 1 });
    assert.equal(found.reason, "full");
    assert.equal(found.pieces.length + found.ids.length, writer.model.max_seq_len);
    assert.throws(() => written(writer, { record: null, begun: "x ".repeat(2000) }), /fill the model's/);
  }
});

test("too little memory is said in words, and so is any other fault", () => {
  assert.match(worker.inWords(new RangeError("Array buffer allocation failed")), /not enough memory/);
  assert.equal(worker.inWords(new Error("id 7 is not here")), "id 7 is not here");
});

test("it writes faster than anybody reads", { skip: !path }, (t) => {
  const { model } = opened.at(-1).writer;
  const cache = smalltalk.newCache(model);
  const start = process.cpuUsage();
  for (let i = 0; i < 60; i++) smalltalk.forward(model, cache, [i]);
  const used = process.cpuUsage(start);
  const rate = 60 / ((used.user + used.system) / 1e6);
  t.diagnostic(`${rate.toFixed(0)} tokens a second`);
  assert.ok(rate > 20);
});
