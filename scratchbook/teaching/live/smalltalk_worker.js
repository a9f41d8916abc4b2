// Writing a method with the Smalltalk model, a token at a time, in a worker of the reader's browser.
// Chapter: chapters/09_smalltalk_model.ipynb
// `write` is what scratchbook.smalltalk_model.write_method does, and is tested without a browser.
(function define(root) {
  "use strict";

  const MAX_TRIES = 200; // refused draws in a row before it gives up
  const SLICE = 60; // milliseconds between two looks at what the reader wants
  const END = "<|end|>";
  const parts = () => root.Scratchbook;

  // file: {weights: base64, tables, tokenizer: {pattern, tokens, special}}
  function makeWriter(file, progress) {
    const { smalltalkModel, smalltalkTokens, safetensors } = parts();
    const model = smalltalkModel.load(safetensors.bytesFromBase64(file.weights), file.tables, progress);
    const tokenizer = smalltalkTokens.makeTokenizer(file.tokenizer);
    return { model, tokenizer, cache: smalltalkModel.newCache(model), end: tokenizer.special[END] };
  }

  // While the rest of what was typed is written again, its own token may follow, or one that begins
  // with all that is left; then any text, or the end. Gives back the token that was typed, or null.
  function forbid(writer, logits, written, rest) {
    const { tokens, special } = writer.tokenizer;
    const k = written.length;
    const again = k < rest.length && written.every((id, at) => id === rest[at]);
    for (const id of Object.values(special)) if (again || id !== writer.end) logits[id] = -Infinity;
    if (!again) return null;
    const left = rest.slice(k).map((id) => tokens[id]).join("");
    tokens.forEach((token, id) => {
      if (id !== rest[k] && !token.startsWith(left)) logits[id] = -Infinity;
    });
    return rest[k];
  }

  // Draw until the rule lets a token pass; null when it never does.
  function draw(logits, request, random, allowed) {
    const { probabilities, pick } = parts().smalltalkModel;
    for (let tries = 0; tries < MAX_TRIES && logits.some((logit) => logit > -Infinity); tries++) {
      const id = pick(probabilities(logits, request.temperature, request.topK), random());
      if (allowed(id)) return id;
      logits[id] = -Infinity;
    }
    return null;
  }

  // The rule of "only valid Smalltalk": the parser still sees a method coming, or it is one. Of half a
  // character it is not asked.
  function ruleOf(writer, request, settled) {
    if (!request.valid) return () => true;
    const { smalltalkSyntax: syntax, smalltalkTokens: tokens } = parts();
    if (!syntax.isViable(request.begun)) {
      throw new Error("no continuation makes a method of what you typed: mend it, or allow what is not valid");
    }
    return (id, written) => {
      const ended = id === writer.end;
      const text = tokens.strictText(writer.tokenizer, ended ? written : [...written, id], ended);
      if (text === null) return false;
      if (ended) return Boolean(syntax.parse(settled + text).tree);
      return settled.length + text.length <= request.begun.length || syntax.isViable(settled + text);
    };
  }

  // The ids to read, the ids that are written again behind them, and how many there may be in all.
  function prepare(writer, request) {
    const { smalltalkTokens: tokens } = parts();
    const [settled, rest] = tokens.settle(writer.tokenizer, request.begun);
    const ids = tokens.promptIds(writer.tokenizer, request.record, settled, writer.model.max_seq_len);
    const again = tokens.encode(writer.tokenizer, rest);
    const room = writer.model.max_seq_len - ids.length;
    if (room <= again.length) {
      throw new Error(`the class and what you typed fill the model's ${writer.model.max_seq_len} tokens: make them shorter`);
    }
    return { ids, settled, again, room, most: again.length + request.most };
  }

  // Yields {kind: "prompt", pieces, settled}, {kind: "read"} and {kind: "token", id, text, share,
  // typed}, in which `share` is what the model gave the token among all. Returns why it ended: {reason: "end",
  // "most", "full" or "stuck", half}. request: {record, begun, temperature, topK, valid, seed, most}
  function* write(writer, request) {
    const { model, tokenizer, cache } = writer;
    const { forward, softmax, randomFrom } = parts().smalltalkModel;
    const { ids, settled, again, room, most } = prepare(writer, request);
    const [allowed, random, written] = [ruleOf(writer, request, settled), randomFrom(request.seed), []];
    yield { kind: "prompt", pieces: piecesOf(tokenizer, ids), settled };
    cache.length = 0;
    let logits = forward(model, cache, ids);
    yield { kind: "read" };
    const text = parts().smalltalkTokens.decoder(tokenizer);
    const ended = (reason) => ({ reason, half: text.end() }); // of a character, where it stops inside one
    while (written.length < most) {
      const shares = softmax(logits);
      const typed = forbid(writer, logits, written, again);
      const id = draw(logits, request, random, (each) => allowed(each, written));
      if (id === null) return ended("stuck");
      if (id === writer.end) return { ...ended("end"), name: END, share: shares[id] };
      written.push(id);
      yield { kind: "token", id, text: text.add(id), share: shares[id], typed: id === typed };
      if (written.length === room) return ended("full");
      logits = forward(model, cache, [id]);
    }
    return ended("most");
  }

  function piecesOf(tokenizer, ids) {
    const text = parts().smalltalkTokens.decoder(tokenizer);
    return ids.map((id) => ({ text: text.add(id), special: tokenizer.names.has(id) }));
  }

  function inWords(error) {
    const memory = error instanceof RangeError && /alloc|memory|length/i.test(error.message);
    return memory ? "There is not enough memory here for the model (about 60 MB)." : error.message;
  }

  // Answer the page's messages: load, write, stop, attention.
  function serve(scope) {
    let writer = null;
    let run = null;
    const say = (message) => scope.postMessage(message);
    const answers = {
      load: ({ file }) => {
        writer = makeWriter(file, (done, of) => say({ kind: "progress", done, of }));
        say({ kind: "ready", layers: writer.model.num_layers, heads: writer.model.num_heads });
      },
      write: ({ request }) => {
        run = request.run;
        return writeInSlices(writer, request, (message) => say({ run: request.run, ...message }), () => run);
      },
      stop: () => { run = null; },
      attention: ({ layer, head, position }) => say({ kind: "attention", layer, head, position,
        weights: parts().smalltalkModel.attentionOf(writer.model, writer.cache, layer, head, position) }),
    };
    scope.onmessage = async ({ data }) => {
      try {
        await answers[data.kind](data);
      } catch (error) {
        say({ kind: "error", during: data.kind, run, text: inWords(error) });
      }
    };
  }

  // Write, and listen between the slices: a newer run, or Stop, ends this one.
  async function writeInSlices(writer, request, say, current) {
    const steps = write(writer, request);
    let [batch, since, begun, count] = [[], performance.now(), 0, 0];
    const tell = (more) => say({ kind: "wrote", batch, count, milliseconds: performance.now() - begun, ...more });
    for (;;) {
      const { done, value } = steps.next();
      if (done) return tell(value);
      if (value.kind === "read") begun = performance.now();
      else if (value.kind === "prompt") say(value);
      else batch.push(value);
      count += Number(value.kind === "token");
      if (performance.now() - since < SLICE) continue;
      tell({});
      await new Promise((resume) => setTimeout(resume, 0));
      [batch, since] = [[], performance.now()];
      if (current() !== request.run) return tell({ reason: "stopped" });
    }
  }

  const api = { makeWriter, write, inWords, serve };
  api.source = `(${define})(self);`;
  (root.Scratchbook = root.Scratchbook || {}).smalltalkWorker = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
