// Places, blocks and the waiting line of an inference engine, step by step.
// Chapter: chapters/07b_inference_engine.ipynb
// The steps are those of scratchbook.serving.Engine without its prefix cache, and are tested against it.
(function (root) {
  "use strict";

  const SCHEDULES = ["one", "static", "continuous"];
  const needed = (tokens, size) => Math.ceil(tokens / size);

  // An engine at rest: `places` texts at once, `blocks` of `size` tokens, `chunk` prompt tokens a step.
  function make({ places, blocks, size, chunk, schedule }) {
    return { places: schedule === "one" ? 1 : places, blocks, size, chunk, schedule, steps: 0, submitted: 0,
      free: Array.from({ length: blocks }, (_, i) => blocks - 1 - i), waiting: [], running: [], gaveWay: 0 };
  }

  // Put a request at the end of the line; false when it can never fit.
  function submit(engine, prompt, fresh) {
    if (!(prompt >= 1 && fresh >= 1) || needed(prompt + fresh - 1, engine.size) > engine.blocks) return false;
    engine.waiting.push({ number: engine.submitted++, prompt, fresh, tokens: prompt, read: 0, blocks: [], place: null });
    return true;
  }

  const unread = (job) => job.tokens - job.read;
  const written = (job) => job.tokens - job.prompt;

  function admit(engine) {
    if (engine.schedule === "static" && engine.running.length) return;
    while (engine.waiting.length && engine.running.length < engine.places) {
      const job = engine.waiting[0], count = needed(job.tokens, engine.size);
      // everyone who runs will want another block soon
      if (count + engine.running.length > engine.free.length) return;
      for (let i = 0; i < count; i++) job.blocks.push(engine.free.pop());
      const taken = new Set(engine.running.map((other) => other.place));
      job.place = Array.from({ length: engine.places }, (_, i) => i).find((i) => !taken.has(i));
      engine.running.push(engine.waiting.shift());
    }
  }

  function leave(engine, job) {
    while (job.blocks.length) engine.free.push(job.blocks.pop());
    job.read = 0;
    engine.running.splice(engine.running.indexOf(job), 1);
  }

  // Blocks for the next tokens of each; the youngest gives way where there are none.
  function withRoom(engine, jobs, width) {
    const ready = [];
    for (const job of jobs) {
      while (engine.running.includes(job)) {
        const missing = needed(job.read + Math.min(unread(job), width), engine.size) - job.blocks.length;
        if (missing <= engine.free.length) {
          for (let i = 0; i < missing; i++) job.blocks.push(engine.free.pop());
          ready.push(job);
          break;
        }
        const youngest = engine.running[engine.running.length - 1];
        leave(engine, youngest);
        youngest.place = null;
        engine.waiting.unshift(youngest);
        engine.gaveWay += 1;
      }
    }
    return ready;
  }

  // One pass of the model over these; returns who wrote, who read, and who is done.
  function pass(engine, jobs, width) {
    const events = [];
    for (const job of withRoom(engine, jobs, width)) {
      job.read += Math.min(unread(job), width);
      const place = job.place;
      if (unread(job)) { events.push({ job: job.number, place, kind: "reads" }); continue; }
      job.tokens += 1;
      const done = written(job) === job.fresh;
      events.push({ job: job.number, place, kind: "writes", done });
      if (done) leave(engine, job);
    }
    return events;
  }

  // Give every running text its next token, or read on in its prompt.
  function step(engine) {
    admit(engine);
    const events = [];
    if (engine.schedule === "static") {
      if (engine.running.length) {
        events.push(...pass(engine, [...engine.running], Math.max(...engine.running.map(unread))));
      }
    } else {
      const writers = engine.running.filter((job) => unread(job) === 1);
      if (writers.length) events.push(...pass(engine, writers, 1));
      const readers = engine.running.filter((job) => unread(job) > 1);
      if (readers.length) {
        const width = Math.min(unread(readers[0]), engine.chunk);
        events.push(...pass(engine, readers.slice(0, Math.floor(engine.chunk / width)), width));
      }
    }
    engine.steps += 1;
    return events;
  }

  const idle = (engine) => !engine.waiting.length && !engine.running.length;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const nameOf = (number) => LETTERS[number % 26] + (number < 26 ? "" : Math.floor(number / 26));

  const api = { SCHEDULES, make, submit, step, idle, unread, written, nameOf };

  // ---------------------------------------------------------------------------------- drawing

  const STYLE = `
    .sb-scheduler label { display: flex; gap: 6px; align-items: center; min-height: 32px; }
    .sb-scheduler input[type=number] { width: 4.6em; }
    .sb-scheduler .sb-place { display: grid; grid-template-columns: 4.6em 1fr; gap: 8px; align-items: center; margin: 4px 0; }
    .sb-scheduler .sb-what { border: 1px solid var(--sb-line); border-radius: 4px; min-height: 30px; padding: 3px 8px;
      border-left-width: 8px; font-variant-numeric: tabular-nums; }
    .sb-scheduler .sb-cells { display: flex; flex-wrap: wrap; gap: 3px; }
    .sb-scheduler .sb-cell { width: 26px; height: 26px; border: 1px solid var(--sb-line); border-radius: 3px; text-align: center;
      font-size: 13px; line-height: 18px; border-bottom-width: 6px; }
    .sb-scheduler h4 { margin: 10px 0 4px; font-size: 14px; color: var(--sb-ink); }
    .sb-scheduler .sb-history td { width: 20px; min-width: 20px; padding: 2px 0; text-align: center; font-size: 12px;
      border: 1px solid var(--sb-line); }
    .sb-scheduler p { margin: 8px 0 0; }`;
  const SHOWN = 40; // steps of the past

  const colour = (number) => `var(--sb-${(number % 8) + 1})`;

  function mount(element, data) {
    const el = root.Scratchbook.el;
    const ui = { el, element, data, history: [], said: "" };
    const id = (name) => `sb-scheduler-${name}`;
    ui.schedule = el("select", { id: id("schedule"), onchange: () => restart(ui) },
      ...SCHEDULES.slice().reverse().map((name) => el("option", { value: name }, name)));
    ui.blocks = el("input", { type: "number", id: id("blocks"), min: 4, max: 48, value: data.blocks,
      onchange: () => restart(ui) });
    ui.prompt = el("input", { type: "number", id: id("prompt"), min: 1, max: 40, value: 6 });
    ui.fresh = el("input", { type: "number", id: id("fresh"), min: 1, max: 40, value: 4 });
    const press = (text, act) => el("button", { type: "button", onclick: act }, text);
    ui.places = el("div", {});
    ui.cells = el("div", { class: "sb-cells", role: "img" });
    ui.line = el("p", {});
    ui.past = el("table", { class: "sb-history" });
    ui.result = el("p", { "aria-live": "polite" });
    element.replaceChildren(el("div", { class: "sb-scheduler" }, el("style", {}, STYLE),
      el("div", { class: "sb-row" }, el("label", { for: id("schedule") }, "schedule", ui.schedule),
        el("label", { for: id("blocks") }, "blocks", ui.blocks), press("Start again", () => restart(ui))),
      el("div", { class: "sb-row" }, press("Step", () => advance(ui, 1)), press("5 steps", () => advance(ui, 5)),
        press("To the end", () => advance(ui, 500))),
      el("div", { class: "sb-row" }, el("label", { for: id("prompt") }, "prompt of", ui.prompt),
        el("label", { for: id("fresh") }, "writes", ui.fresh), press("Add a request", () => add(ui))),
      ui.result, el("h4", {}, "Places"), ui.places, el("h4", {}, `Blocks of ${data.size} tokens`), ui.cells,
      el("h4", {}, "Waiting line"), ui.line, el("h4", {}, "Who had which place, step by step"),
      el("div", { class: "sb-scroll", tabindex: 0, role: "region", "aria-label": "history of the places" }, ui.past)));
    restart(ui);
  }

  const whole = (input, least, most) => Math.min(most, Math.max(least, Math.round(Number(input.value)) || least));

  function restart(ui) {
    ui.blocks.value = whole(ui.blocks, 4, 48);
    ui.engine = make({ ...ui.data, blocks: Number(ui.blocks.value), schedule: ui.schedule.value });
    ui.history = [];
    const refused = ui.data.requests.filter(([prompt, fresh]) => !submit(ui.engine, prompt, fresh)).length;
    draw(ui, refused ? `${refused} requests can never fit into so few blocks and were refused. ` : "");
  }

  function add(ui) {
    ui.prompt.value = whole(ui.prompt, 1, 40);
    ui.fresh.value = whole(ui.fresh, 1, 40);
    const [prompt, fresh] = [Number(ui.prompt.value), Number(ui.fresh.value)];
    draw(ui, submit(ui.engine, prompt, fresh) ? `${nameOf(ui.engine.submitted - 1)} joins the line. `
      : `Refused: ${prompt} and ${fresh} tokens need ${needed(prompt + fresh - 1, ui.engine.size)} blocks, there are ` +
        `${ui.engine.blocks}. `);
  }

  function advance(ui, most) {
    let told = "";
    for (let i = 0; i < most && !idle(ui.engine); i++) {
      const before = ui.engine.gaveWay, events = step(ui.engine);
      const column = Array(ui.engine.places).fill(null);
      for (const event of events) column[event.place] = event;
      ui.history.push(column);
      const say = (kind, verb) => {
        const names = events.filter((event) => event.kind === kind).map((event) => nameOf(event.job));
        return names.length ? `${names.join(", ")} ${verb}${names.length > 1 ? "" : "s"}. ` : "";
      };
      const done = events.filter((event) => event.done).map((event) => nameOf(event.job));
      told = say("writes", "write") + say("reads", "read") + (done.length ? `Done: ${done.join(", ")}. ` : "")
        + (ui.engine.gaveWay > before ? "The youngest gave way and must be read again. " : "");
    }
    draw(ui, told);
  }

  function draw(ui, told) {
    const { el, engine } = ui;
    ui.places.replaceChildren(...Array.from({ length: engine.places }, (_, place) => {
      const job = engine.running.find((each) => each.place === place);
      const text = !job ? "empty" : `${nameOf(job.number)}: ${Math.min(job.read, job.prompt)} of ${job.prompt} read, ` +
        `${written(job)} of ${job.fresh} written`;
      return el("div", { class: "sb-place" }, el("span", {}, `place ${place + 1}`), el("div", { class: "sb-what",
        style: job ? `border-left-color:${colour(job.number)}` : "" }, text));
    }));
    const owner = Array(engine.blocks).fill(null);
    for (const job of engine.running) for (const block of job.blocks) owner[block] = job.number;
    ui.cells.replaceChildren(...owner.map((number) => el("div", { class: "sb-cell",
      style: number === null ? "" : `border-bottom-color:${colour(number)}` }, number === null ? "" : nameOf(number))));
    const used = engine.blocks - engine.free.length;
    ui.cells.setAttribute("aria-label", `${used} of ${engine.blocks} blocks in use: ` + (engine.running.map((job) =>
      `${nameOf(job.number)} ${job.blocks.length}`).join(", ") || "none"));
    ui.line.textContent = engine.waiting.map((job) => `${nameOf(job.number)} (${job.prompt} + ${job.fresh}` +
      `${written(job) ? `, ${written(job)} written` : ""})`).join(", ") || "nobody";
    const from = Math.max(0, ui.history.length - SHOWN);
    ui.past.replaceChildren(...Array.from({ length: engine.places }, (_, place) => el("tr", {},
      el("th", { scope: "row" }, `${place + 1}`), ...ui.history.slice(from).map((column) => {
        const event = column[place];
        return el("td", { style: event ? `box-shadow:inset 0 -4px 0 ${colour(event.job)}` : "" },
          event ? (event.kind === "reads" ? nameOf(event.job).toLowerCase() : nameOf(event.job)) : "·");
      }))));
    ui.result.textContent = `Step ${engine.steps}. ${told}${used} of ${engine.blocks} blocks in use, ` +
      `${engine.waiting.length} waiting${idle(engine) ? "; all done" : ""}. Small letters read a prompt.`;
    ui.element.dataset.liveState = [engine.schedule, engine.steps, engine.blocks, engine.submitted, used,
      engine.waiting.length].join("/");
  }

  root.Scratchbook = root.Scratchbook || {};
  root.Scratchbook.scheduler = { ...api, mount };
  if (typeof module !== "undefined") module.exports = root.Scratchbook.scheduler;
})(typeof window === "undefined" ? globalThis : window);
