// The Smalltalk model of chapters/09_smalltalk_model.ipynb, computed in the reader's browser.
// Everything here is pure and is tested against torch: scratchbook/model.py with rotary positions,
// gated feed-forward, norms without gains and a head that may be tied to the embedding.
(function define(root) {
  "use strict";

  const LAYER = ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj",
    "feedforward.gate_proj", "feedforward.up_proj", "feedforward.down_proj"];
  const COMPUTED = { norm: "rms_no_gain", positions: "rope", feedforward: "swiglu", layout: "pre", bias: "none",
    qk_norm: false, window: null, latent_dim: null };

  function checkConfig(config) {
    const odd = Object.keys(COMPUTED).find((name) => config[name] !== COMPUTED[name]);
    if (odd) throw new Error(`the page computes ${odd}=${COMPUTED[odd]}, this model has ${config[odd]}`);
    if (config.rope.scaling !== "none") throw new Error(`rope.scaling=${config.rope.scaling} is not computed here`);
    if (config.num_kv_heads !== config.num_heads) throw new Error("heads that share keys are not computed here");
  }

  // A model of the bytes of a file that `save_compressed` wrote, all weights as float32.
  // `progress(done, of)` hears of every matrix; tables: {nf4, int4, fp4, scales} from the package.
  function load(bytes, tables, progress = () => {}) {
    const { readSafetensors } = root.Scratchbook.safetensors;
    const file = readSafetensors(bytes);
    const plan = JSON.parse(file.metadata.plan || "{}");
    if (plan.format !== "scratchbook compressed model") throw new Error("the file was not written by save_compressed");
    checkConfig(plan.config);
    const config = plan.config;
    const layers = Array.from({ length: config.num_layers }, (_, i) => LAYER.map((name) => `blocks.${i}.${name}`));
    const names = ["token_embedding", ...layers.flat()];
    if (!config.tie_embeddings) names.push("lm_head");
    const matrices = new Map();
    names.forEach((name, done) => {
      matrices.set(name, matrix(file, plan, name, tables));
      progress(done + 1, names.length);
    });
    const head = matrices.get(config.tie_embeddings ? "token_embedding" : "lm_head");
    return { ...config, embedding: matrices.get("token_embedding"), head,
      blocks: layers.map((own) => own.map((name) => matrices.get(name))) };
  }

  function matrix(file, plan, name, tables) {
    const entry = plan.layers[name];
    const tensor = (full) => file.tensor(file.has(full) ? full : plan.shared[full] || full);
    if (!entry) return tensor(`${name}.weight`);
    const scaled = `${name}.input_scale`;
    if (file.has(scaled) || plan.shared[scaled]) throw new Error(`${name} scales its input (AWQ), which is not computed here`);
    const { dequantize } = root.Scratchbook.safetensors;
    return dequantize((part) => tensor(`${name}.packed.${part}`), entry.scheme, entry.shape, tables);
  }

  // Keys, values and queries of `room` tokens, for each layer a row for each token. The queries are
  // kept so that attention can be looked at afterwards.
  function newCache(model, room = model.max_seq_len) {
    const rows = () => new Float32Array(room * model.num_heads * model.head_dim);
    const layers = Array.from({ length: model.num_layers }, () => ({ queries: rows(), keys: rows(), values: rows() }));
    return { layers, room, length: 0, turns: turnsOf(model, room) };
  }

  // Cosine and sine of every position's angles, half as many as a head has coordinates.
  function turnsOf(model, room) {
    const half = model.head_dim / 2;
    const [cos, sin] = [new Float32Array(room * half), new Float32Array(room * half)];
    for (let i = 0; i < half; i++) {
      const speed = Math.fround(1 / Math.fround(model.rope.base ** Math.fround((2 * i) / model.head_dim)));
      for (let p = 0; p < room; p++) {
        const angle = Math.fround(p * speed);
        cos[p * half + i] = Math.cos(angle);
        sin[p * half + i] = Math.sin(angle);
      }
    }
    return { cos, sin };
  }

  // Rows times the transpose of a matrix that is stored row by row, as torch's Linear does. Four rows
  // of the matrix at a time share what is read of x.
  // x (time, width), weight (size, width) -> (time, size)
  function product(x, weight, time, width, size) {
    const out = new Float32Array(time * size);
    const whole = size - (size % 4);
    for (let row = 0; row < whole; row += 4) {
      const p = row * width, q = p + width, r = q + width, s = r + width;
      for (let t = 0; t < time; t++) {
        let a = 0, b = 0, c = 0, d = 0;
        for (let i = 0, from = t * width; i < width; i++, from++) {
          const value = x[from];
          a += weight[p + i] * value;
          b += weight[q + i] * value;
          c += weight[r + i] * value;
          d += weight[s + i] * value;
        }
        const to = t * size + row;
        [out[to], out[to + 1], out[to + 2], out[to + 3]] = [a, b, c, d];
      }
    }
    for (let row = whole; row < size; row++) {
      for (let t = 0; t < time; t++) {
        let sum = 0;
        for (let i = 0; i < width; i++) sum += weight[row * width + i] * x[t * width + i];
        out[t * size + row] = sum;
      }
    }
    return out;
  }

  function norm(x, width, eps) {
    const out = new Float32Array(x.length);
    for (let from = 0; from < x.length; from += width) {
      let sum = 0;
      for (let i = from; i < from + width; i++) sum += x[i] * x[i];
      const scale = 1 / Math.sqrt(sum / width + eps);
      for (let i = from; i < from + width; i++) out[i] = x[i] * scale;
    }
    return out;
  }

  // Turn each head of each row to its place: coordinate i makes a pair with i + head_dim / 2.
  function rotate(model, rows, turns, past) {
    const half = model.head_dim / 2;
    const width = model.num_heads * model.head_dim;
    for (let from = 0, at = past * half; from < rows.length; from += width, at += half) {
      for (let head = from; head < from + width; head += 2 * half) {
        for (let i = 0; i < half; i++) {
          const [first, second] = [rows[head + i], rows[head + half + i]];
          rows[head + i] = first * turns.cos[at + i] - second * turns.sin[at + i];
          rows[head + half + i] = second * turns.cos[at + i] + first * turns.sin[at + i];
        }
      }
    }
    return rows;
  }

  // What the query at `position` makes of itself and everything before, for one head.
  function weightsOf(model, kept, head, position) {
    const { head_dim: size, num_heads } = model;
    const width = num_heads * size;
    const query = position * width + head * size;
    const weights = new Float32Array(position + 1);
    let most = -Infinity;
    for (let p = 0; p <= position; p++) {
      const key = p * width + head * size;
      let dot = 0;
      for (let i = 0; i < size; i++) dot += kept.queries[query + i] * kept.keys[key + i];
      weights[p] = dot / Math.sqrt(size);
      if (weights[p] > most) most = weights[p];
    }
    let sum = 0;
    for (let p = 0; p <= position; p++) sum += weights[p] = Math.exp(weights[p] - most);
    for (let p = 0; p <= position; p++) weights[p] /= sum;
    return weights;
  }

  function attend(model, kept, past, time) {
    const { head_dim: size, num_heads } = model;
    const width = num_heads * size;
    const mixed = new Float32Array(time * width);
    for (let t = 0; t < time; t++) {
      for (let head = 0; head < num_heads; head++) {
        const weights = weightsOf(model, kept, head, past + t);
        const to = t * width + head * size;
        for (let p = 0; p <= past + t; p++) {
          const [share, from] = [weights[p], p * width + head * size];
          for (let i = 0; i < size; i++) mixed[to + i] += share * kept.values[from + i];
        }
      }
    }
    return mixed;
  }

  function addTo(x, written) {
    for (let i = 0; i < x.length; i++) x[i] += written[i];
  }

  function attention(model, [q, k, v, o], kept, turns, past, x) {
    const { d_model, num_heads, head_dim } = model;
    const time = x.length / d_model;
    const width = num_heads * head_dim;
    const normed = norm(x, d_model, model.norm_eps);
    kept.queries.set(rotate(model, product(normed, q, time, d_model, width), turns, past), past * width);
    kept.keys.set(rotate(model, product(normed, k, time, d_model, width), turns, past), past * width);
    kept.values.set(product(normed, v, time, d_model, width), past * width);
    addTo(x, product(attend(model, kept, past, time), o, time, width, d_model));
  }

  function feedForward(model, [gate, up, down], x) {
    const { d_model, d_ff } = model;
    const time = x.length / d_model;
    const normed = norm(x, d_model, model.norm_eps);
    const hidden = product(normed, gate, time, d_model, d_ff);
    const passed = product(normed, up, time, d_model, d_ff);
    for (let i = 0; i < hidden.length; i++) hidden[i] *= passed[i] / (1 + Math.exp(-hidden[i]));
    addTo(x, product(hidden, down, time, d_ff, d_model));
  }

  function check(model, cache, ids) {
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= model.vocab_size);
    if (wrong !== undefined) throw new Error(`id ${wrong} is outside the vocabulary, 0 to ${model.vocab_size - 1}`);
    const all = cache.length + ids.length;
    if (!ids.length) throw new Error("there is nothing to read: give at least one id");
    if (all > cache.room) throw new Error(`${all} tokens do not fit into the room for ${cache.room}`);
  }

  // Read new tokens, all in one go; the scores of what may follow the last one, or `every` one:
  // (vocab) or (time * vocab).
  function forward(model, cache, ids, every = false) {
    check(model, cache, ids);
    const { d_model, vocab_size } = model;
    const [past, time] = [cache.length, ids.length];
    const x = new Float32Array(time * d_model);
    ids.forEach((id, t) => x.set(model.embedding.subarray(id * d_model, (id + 1) * d_model), t * d_model));
    model.blocks.forEach((matrices, layer) => {
      attention(model, matrices, cache.layers[layer], cache.turns, past, x);
      feedForward(model, matrices.slice(4), x);
    });
    cache.length += time;
    const last = every ? x : x.subarray((time - 1) * d_model);
    return product(norm(last, d_model, model.norm_eps), model.head, every ? time : 1, d_model, vocab_size);
  }

  // What the token at `position` looked at, in a head or, with head null, in the mean of them all.
  function attentionOf(model, cache, layer, head, position) {
    const kept = cache.layers[layer];
    if (!kept || position < 0 || position >= cache.length || head < 0 || head >= model.num_heads) {
      throw new Error(`there is no attention of layer ${layer}, head ${head}, token ${position}`);
    }
    if (head !== null) return weightsOf(model, kept, head, position);
    const mean = new Float32Array(position + 1);
    for (let each = 0; each < model.num_heads; each++) {
      weightsOf(model, kept, each, position).forEach((weight, p) => { mean[p] += weight / model.num_heads; });
    }
    return mean;
  }

  // Plain loops: over ten thousand scores a function for each costs more than the arithmetic.
  function softmax(scores) {
    const raised = new Float64Array(scores.length);
    const most = largest(scores);
    let sum = 0;
    for (let id = 0; id < scores.length; id++) sum += raised[id] = Math.exp(scores[id] - most);
    for (let id = 0; id < scores.length; id++) raised[id] /= sum;
    return raised;
  }

  function largest(scores) {
    let most = -Infinity;
    for (let id = 0; id < scores.length; id++) if (!(scores[id] <= most)) most = scores[id]; // NaN too
    return most;
  }

  // The probabilities to draw from; at temperature 0 the likeliest has all. Ties with the last of
  // the top-k are kept, as in the package.
  function probabilities(logits, temperature = 1, topK = 0) {
    if (!(temperature >= 0 && temperature < Infinity)) {
      throw new Error(`temperature is ${temperature}, it must be a number from 0 up`);
    }
    const most = largest(logits);
    if (!Number.isFinite(most)) throw new Error("there is no token left to choose");
    const scores = new Float64Array(logits.length);
    if (temperature === 0) {
      scores[logits.indexOf(most)] = 1;
      return scores;
    }
    for (let id = 0; id < scores.length; id++) scores[id] = logits[id] / temperature;
    if (topK > 0 && topK < scores.length) {
      const last = scores.slice().sort()[scores.length - topK];
      for (let id = 0; id < scores.length; id++) if (scores[id] < last) scores[id] = -Infinity;
    }
    return softmax(scores);
  }

  // The id at which the running sum of probabilities passes u, which is in [0, 1).
  function pick(probs, u) {
    let [sum, last] = [0, 0];
    for (let id = 0; id < probs.length; id++) {
      if (probs[id] === 0) continue;
      last = id;
      sum += probs[id];
      if (u < sum) return id;
    }
    return last; // rounding left the sum a little below one
  }

  // A small generator of numbers in [0, 1) that a seed repeats (mulberry32).
  function randomFrom(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  const api = { load, newCache, forward, attentionOf, softmax, probabilities, pick, randomFrom };
  api.source = `(${define})(self);`;
  (root.Scratchbook = root.Scratchbook || {}).smalltalkModel = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
