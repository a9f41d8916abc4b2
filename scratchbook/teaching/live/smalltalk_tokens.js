// Smalltalk's tokenizer in the reader's browser: the ids of scratchbook/tokenizers/smalltalk.py.
// Chapter: chapters/09_smalltalk_model.ipynb
// The vocabulary and the pattern of the first cut come with the model's file, from the package.
(function define(root) {
  "use strict";

  const SETTLED = 2; // chunks at the end of a beginning that what follows may still change

  // One character that can be seen for each byte, as GPT-2's files spell their tokens.
  function alphabet() {
    const shown = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    let next = 256;
    return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(shown(byte) ? byte : next++));
  }
  const LETTERS = alphabet();
  const BYTES = new Map(LETTERS.map((letter, byte) => [letter, byte]));

  // file: {pattern, tokens: [spelled in LETTERS, by id], special: {text: id}}
  function makeTokenizer(file) {
    return { cut: new RegExp(file.pattern, "gu"), tokens: file.tokens, special: file.special,
      ranks: new Map(file.tokens.map((token, id) => [token, id])),
      names: new Map(Object.entries(file.special).map(([text, id]) => [id, text])) };
  }

  const split = (tokenizer, text) => text.match(tokenizer.cut) || [];

  // A text's bytes in LETTERS.
  const spelled = (text) => Array.from(new TextEncoder().encode(text), (byte) => LETTERS[byte]).join("");

  // Fuse neighbours, the pair of the lowest rank before all others, the leftmost of equals.
  function merge(ranks, chunk) {
    if (ranks.has(chunk)) return [chunk];
    const parts = Array.from(chunk);
    const rank = (at) => ranks.get(parts[at] + parts[at + 1]);
    const pairs = parts.slice(1).map((_, at) => rank(at));
    for (;;) {
      let best = -1;
      pairs.forEach((pair, at) => {
        if (pair !== undefined && (best < 0 || pair < pairs[best])) best = at;
      });
      if (best < 0) return parts;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
      pairs.splice(best, 1);
      if (best > 0) pairs[best - 1] = rank(best - 1);
      if (best < pairs.length) pairs[best] = rank(best);
    }
  }

  // The ids of a text in which nothing is special.
  function encode(tokenizer, text) {
    const half = /\p{Surrogate}/u.exec(text);
    if (half) throw new Error(`character ${half.index + 1} is half of a pair and stands for nothing: delete it`);
    const pieces = split(tokenizer, text).flatMap((chunk) => merge(tokenizer.ranks, spelled(chunk)));
    return pieces.map((piece) => tokenizer.ranks.get(piece));
  }

  // The bytes of one token; a special one has those of its name.
  function bytesOf(tokenizer, id) {
    if (tokenizer.names.has(id)) return new TextEncoder().encode(tokenizer.names.get(id));
    if (!(id in tokenizer.tokens)) throw new Error(`id ${id} is not in this vocabulary`);
    return Uint8Array.from(tokenizer.tokens[id], (letter) => BYTES.get(letter));
  }

  // Tokens to text, one at a time: half a character waits for the token that completes it.
  function decoder(tokenizer) {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    return { add: (id) => utf8.decode(bytesOf(tokenizer, id), { stream: true }), end: () => utf8.decode() };
  }

  function decode(tokenizer, ids) {
    const text = decoder(tokenizer);
    return ids.map(text.add).join("") + text.end();
  }

  // The text of ids, of whose last character some bytes may be missing unless it is `whole`; null
  // where the bytes are no UTF-8.
  function strictText(tokenizer, ids, whole) {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
    try {
      const bytes = Uint8Array.from(ids.flatMap((id) => Array.from(bytesOf(tokenizer, id))));
      return utf8.decode(bytes, { stream: !whole });
    } catch (error) {
      return null;
    }
  }

  // A beginning in two: what is settled, and what the text behind it may still change.
  function settle(tokenizer, begun) {
    const chunks = split(tokenizer, begun);
    return [chunks.slice(0, -SETTLED).join(""), chunks.slice(-SETTLED).join("")];
  }

  // A class definition as training showed it: {name, superclass, variables, package, comment}.
  function definitionOf(record, commented = true) {
    const comment = commented ? (record.comment || "").trim().replaceAll('"', '""') : "";
    return [`${record.superclass || "nil"} subclass: #${record.name}`,
      `\tinstanceVariableNames: '${record.variables.join(" ")}'`, "\tclassVariableNames: ''",
      `\tpackage: '${record.package || ""}'`, ...(comment ? [`"${comment}"`] : [])].join("\n");
  }

  // The ids before a method of a class: its definition where that fits into a third of the window,
  // without its comment where only that fits, and the token that opens a method.
  function promptIds(tokenizer, record, settled, room) {
    const { special } = tokenizer;
    const heads = !record ? [] : [true, false].map((commented) => [special["<|class|>"],
      ...encode(tokenizer, definitionOf(record, commented)), special["<|end|>"]]);
    const head = heads.find((ids) => ids.length <= Math.floor(room / 3)) || [];
    return [...head, special["<|method|>"], ...encode(tokenizer, settled)];
  }

  const api = { makeTokenizer, split, encode, decode, decoder, strictText, bytesOf, settle,
    definitionOf, promptIds };
  api.source = `(${define})(self);`;
  (root.Scratchbook = root.Scratchbook || {}).smalltalkTokens = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
