// Plays the checkpoints of one run: what the model writes, its loss, where it looks. Chapter: chapters/06_training.ipynb
// The arithmetic is pure and is tested against the package; mount() below only draws it.
(function (root) {
  "use strict";

  // Early steps change the most: the axis counts them logarithmically, and begins at step 0.
  const along = (step, last) => Math.log1p(step) / Math.log1p(Math.max(1, last));

  // The frame whose step lies nearest on that axis.
  function nearest(steps, step) {
    const far = steps.map((other) => Math.abs(Math.log1p(other) - Math.log1p(Math.max(0, step))));
    return far.indexOf(Math.min(...far));
  }

  // What all samples begin with is the prompt.
  function commonStart(texts) {
    let length = 0;
    const shortest = Math.min(...texts.map((text) => text.length));
    while (length < shortest && texts.every((text) => text[length] === texts[0][length])) length += 1;
    return texts[0].slice(0, length);
  }

  // Over how many positions each row spreads its weights: 2 to the power of its entropy in bits.
  function spread(weights) {
    return weights.map((row) => {
      const sum = row.reduce((a, b) => a + b, 0);
      return Math.exp(-row.reduce((total, w) => total + (w > 0 ? (w / sum) * Math.log(w / sum) : 0), 0));
    });
  }

  // How far back a row looks, on average over its weights.
  function reach(weights) {
    return weights.map((row, i) => {
      const sum = row.reduce((a, b) => a + b, 0);
      return row.reduce((total, w, j) => total + w * (i - j), 0) / sum;
    });
  }

  // At most `most` points, each the mean of those it stands for, more of them early.
  function thin(curve, most) {
    const last = curve[curve.length - 1][0];
    const bins = new Map();
    for (const [step, loss] of curve) {
      const bin = Math.min(most - 1, Math.floor(along(step, last) * most));
      const [steps, losses, count] = bins.get(bin) || [0, 0, 0];
      bins.set(bin, [steps + step, losses + loss, count + 1]);
    }
    return [...bins.values()].map(([steps, losses, count]) => [steps / count, losses / count]);
  }

  // The row at a height within a square of `rows` equal rows; beside it, the nearest.
  const rowAt = (y, height, rows) => Math.min(rows - 1, Math.max(0, Math.floor((y / height) * rows)));

  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  // Why the data cannot be played, or "".
  function problem(data) {
    const frames = data.steps.length;
    if (frames === 0) return "there is no frame";
    for (const name of ["losses", "samples", "attention"]) {
      if (data[name].length !== frames) return `${data[name].length} ${name} for ${frames} steps`;
    }
    if (data.curve.length === 0) return "the curve is empty";
    const time = data.tokens.length;
    const square = (map) => map.length === time && map.every((row) => row.length === time);
    return data.attention.every(square) ? "" : `an attention map is not ${time} by ${time}`;
  }

  const api = { along, nearest, commonStart, spread, reach, thin, rowAt, mean, problem };

  // ---------------------------------------------------------------------------------- drawing

  const PAUSE = 1400; // milliseconds a frame stands while the film plays
  const [WIDTH, LEFT, RIGHT, TOP, BOTTOM] = [360, 40, 350, 8, 128];
  const NAMES = { " ": "␣", "\n": "⏎", "\t": "⇥" };
  const STYLE = `
    .sb-film svg { display: block; width: 100%; touch-action: auto; }
    .sb-film .sb-cols { display: flex; flex-wrap: wrap; gap: 10px 22px; }
    .sb-film .sb-cols > div { flex: 1 1 260px; min-width: 0; }
    .sb-film .sb-map { max-width: 380px; }
    .sb-film text { fill: var(--sb-muted); font: 12px system-ui, sans-serif; }
    .sb-film .sb-tokens text { font-family: ui-monospace, monospace; font-size: inherit; }
    .sb-film pre { margin: 6px 0; padding: 6px 8px; min-height: 8.6em; background: var(--sb-soft);
      color: var(--sb-ink); white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px; }
    .sb-film label { display: inline-flex; flex: 1 1 220px; gap: 8px; align-items: center; min-height: 32px; }
    .sb-film input[type=range] { flex: 1 1 90px; min-width: 60px; }
    .sb-film output { min-width: 5em; font-variant-numeric: tabular-nums; }
    .sb-film button { min-width: 6.6em; }
    .sb-film .sb-result { margin: 6px 0 0; font-variant-numeric: tabular-nums; }`;

  function mount(element, data) {
    const wrong = problem(data);
    if (wrong) throw new Error(wrong);
    const el = root.Scratchbook.el;
    const last = data.steps.length - 1;
    const prompt = commonStart(data.samples);
    const still = root.matchMedia && root.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const state = { frame: 0, position: data.tokens.length - 1, timer: null };
    const name = (i) => NAMES[data.tokens[i]] || data.tokens[i];

    const curve = lossCurve(el, data, (step) => go(nearest(data.steps, step)));
    const map = attentionMap(el, data.tokens.map((_, i) => name(i)),
      (row) => { state.position = row; draw(); });
    const sample = el("pre", { "aria-label": "what the model writes" });
    const slider = (id, text, max, moved) => {
      const input = el("input", { type: "range", id: `sb-film-${id}`, min: 0, max, step: 1 });
      const shown = el("output", { for: `sb-film-${id}` });
      input.addEventListener("input", () => moved(Number(input.value)));
      return { input, shown, label: el("label", { for: `sb-film-${id}` }, text, input, shown) };
    };
    const frame = slider("frame", "checkpoint", last, go);
    const position = slider("position", "position", data.tokens.length - 1,
      (value) => { state.position = value; draw(); });
    const play = el("button", { type: "button", onclick: () => {
      if (still) go(state.frame === last ? 0 : state.frame + 1);
      else if (state.timer) stop();
      else start();
    } });
    const result = el("p", { class: "sb-result" });
    const look = el("p", { class: "sb-result", "aria-live": "polite" });

    // Any choice of the reader's ends the playing.
    function go(chosen) {
      state.frame = chosen;
      stop();
    }

    function start() {
      if (state.frame === last) state.frame = 0;
      state.timer = setInterval(() => {
        if (!element.isConnected || root.document.hidden || state.frame === last) { stop(); return; }
        state.frame += 1;
        draw();
      }, PAUSE);
      draw();
    }

    function stop() {
      clearInterval(state.timer);
      state.timer = null;
      draw();
    }

    function draw() {
      const [step, loss] = [data.steps[state.frame], data.losses[state.frame]];
      const weights = data.attention[state.frame];
      const text = data.samples[state.frame];
      sample.replaceChildren(el("b", {}, prompt), text.slice(prompt.length));
      curve.move(step, loss);
      map.paint(weights, state.position);
      frame.input.value = state.frame;
      frame.input.setAttribute("aria-valuetext", `step ${step}, loss ${loss.toFixed(2)}`);
      frame.shown.textContent = `step ${step}`;
      position.input.value = state.position;
      position.input.setAttribute("aria-valuetext", `${state.position + 1}: ${name(state.position)}`);
      position.shown.textContent = `${state.position + 1}: ${name(state.position)}`;
      play.textContent = state.timer ? "Pause"
        : still ? (state.frame === last ? "Back to 0" : "Next") : "Play";
      // while it plays, a voice would talk without end
      result.setAttribute("aria-live", state.timer ? "off" : "polite");
      result.textContent = `Step ${step}: loss ${loss.toFixed(2)} nats, as unsure as among ` +
        `${Math.exp(loss).toFixed(1)} even choices. A position spreads its attention over ${mean(spread(weights)).toFixed(1)} ` +
        `positions and looks ${mean(reach(weights)).toFixed(1)} back, on average.`;
      const row = weights[state.position];
      const most = row.indexOf(Math.max(...row));
      look.textContent = `Position ${state.position + 1}, “${name(state.position)}”, looks most at ` +
        `position ${most + 1}, “${name(most)}”: ${row[most].toFixed(2)}.`;
      element.dataset.liveState = [state.frame, state.position, state.timer ? "playing" : "still"].join("/");
    }

    const box = el("div", { class: "sb-film" }, el("style", {}, STYLE),
      el("div", { class: "sb-row" }, play, frame.label),
      el("div", { class: "sb-cols" },
        el("div", {}, curve.svg, sample, result),
        el("div", {}, el("div", { class: "sb-map" }, map.svg), position.label, look)));
    draw();
    element.replaceChildren(box);
  }

  // The loss of every step, with a dot for each checkpoint and a larger one for the present.
  function lossCurve(el, data, choose) {
    const end = Math.max(...data.steps, data.curve[data.curve.length - 1][0]);
    const points = thin(data.curve, 160);
    const losses = [...points.map((point) => point[1]), ...data.losses];
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const toX = (step) => LEFT + along(step, end) * (RIGHT - LEFT);
    const toY = (loss) => BOTTOM - ((loss - low) / (high - low || 1)) * (BOTTOM - TOP);
    const svg = el("svg", { viewBox: `0 0 ${WIDTH} 164`, role: "img", style: "cursor:pointer",
      "aria-label": `The loss over the steps of the run, from ${data.losses[0].toFixed(2)} to ` +
        `${data.losses[data.losses.length - 1].toFixed(2)}, and where the checkpoint stands` });
    for (const loss of [low, (low + high) / 2, high]) {
      svg.append(el("line", { x1: LEFT, x2: RIGHT, y1: toY(loss), y2: toY(loss), stroke: "var(--sb-line)",
        "stroke-width": 0.5 }),
      el("text", { x: LEFT - 5, y: toY(loss) + 4, "text-anchor": "end" }, loss.toFixed(1)));
    }
    for (let step = 0; step <= end; step = step === 0 ? 1 : 10 * step) {
      svg.append(el("text", { x: toX(step), y: BOTTOM + 15, "text-anchor": "middle" }, String(step)));
    }
    svg.append(el("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 31, "text-anchor": "middle" },
      "step (logarithmic), loss in nats"),
    el("polyline", { points: points.map(([step, loss]) => `${toX(step)},${toY(loss)}`).join(" "), fill: "none",
      stroke: "var(--sb-1)", "stroke-width": 1.5 }),
    ...data.steps.map((step, i) => el("circle", { cx: toX(step), cy: toY(data.losses[i]), r: 3,
      fill: "var(--sb-muted)" })));
    const line = el("line", { y1: TOP, y2: BOTTOM, stroke: "var(--sb-accent)", "stroke-dasharray": "3 3" });
    const dot = el("circle", { r: 6, fill: "var(--sb-accent)" });
    svg.append(line, dot);
    svg.addEventListener("click", (event) => {
      const frame = svg.getBoundingClientRect();
      const share = (((event.clientX - frame.left) / frame.width) * WIDTH - LEFT) / (RIGHT - LEFT);
      choose(Math.expm1(Math.max(0, share) * Math.log1p(end)));
    });
    return { svg, move(step, loss) {
      dot.setAttribute("cx", toX(step));
      dot.setAttribute("cy", toY(loss));
      line.setAttribute("x1", toX(step));
      line.setAttribute("x2", toX(step));
    } };
  }

  // One square per query (row) and key (column), a row chosen by a click; the future is left out.
  function attentionMap(el, names, choose) {
    const time = names.length;
    const [edge, size] = [20, 300 / time];
    const svg = el("svg", { viewBox: "0 0 344 322", role: "img", style: "cursor:pointer" });
    svg.addEventListener("click", (event) => {
      const frame = svg.getBoundingClientRect();
      choose(rowAt(((event.clientY - frame.top) / frame.height) * 322 - edge, 300, time));
    });
    const cells = names.map((_, i) => names.slice(0, i + 1).map((_, j) => el("rect", {
      x: edge + j * size, y: edge + i * size, width: size, height: size, fill: "var(--sb-1)" })));
    const every = Math.ceil(time / 36); // so that names do not touch
    const labels = el("g", { class: "sb-tokens", "aria-hidden": "true",
      style: `font-size:${Math.min(11, size * every)}px` });
    names.forEach((name, i) => {
      if (i % every) return;
      const middle = edge + (i + 0.5) * size;
      labels.append(el("text", { x: middle, y: edge - 5, "text-anchor": "middle" }, name),
        el("text", { x: edge - 4, y: middle + 4, "text-anchor": "end" }, name));
    });
    const row = el("rect", { x: edge, height: size, fill: "none", stroke: "var(--sb-accent)", "stroke-width": 2 });
    svg.append(el("rect", { x: edge, y: edge, width: 300, height: 300, fill: "none", stroke: "var(--sb-line)" }),
      ...cells.flat(), labels, row);
    return { svg, paint(weights, position) {
      cells.forEach((line, i) => line.forEach((cell, j) =>
        cell.setAttribute("fill-opacity", Math.min(1, weights[i][j]).toFixed(3))));
      row.setAttribute("y", edge + position * size);
      row.setAttribute("width", (position + 1) * size);
      svg.setAttribute("aria-label", `Attention of ${time} positions to those before them, averaged over the ` +
        `heads: each row spreads over ${mean(spread(weights)).toFixed(1)} positions on average`);
    } };
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.film = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.film;
})(typeof window === "undefined" ? globalThis : window);
