// The chat page: conversations live in this browser, the server keeps nothing of them.

const $ = id => document.getElementById(id);
const PREFIX = "scratchbook.chat.", SETTINGS = "scratchbook.settings", THEME = "scratchbook.theme";
const FIELDS = ["choice", "temperature", "top-p", "max-tokens"];
const read = (key, otherwise) => {
  try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; }
};
let models = [], model = "", conversation = null, writing = null;   // writing: an AbortController

// ---- the API

const headers = () => {
  const key = sessionStorage.getItem("scratchbook.key");
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
};

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  if (response.ok) return response;
  if (response.status === 401) { $("key-row").hidden = false; $("more").open = true; $("key").focus(); }
  let said = `the server answers ${response.status}`;
  try { said = (await response.json()).error.message; } catch { /* no JSON: the number must do */ }
  const later = response.headers.get("Retry-After");
  throw new Error(later ? `${said} (try again in ${later} s)` : said);
}

/** The JSON of each server-sent event of a response; ends at [DONE]. */
async function* events(response) {
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the answer broke off");
    buffer += decoder.decode(value, { stream: true });
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// ---- conversations

const keys = () => Object.keys(localStorage).filter(key => key.startsWith(PREFIX)).sort().reverse();

function fresh() {
  const id = PREFIX + Date.now().toString().padStart(15, "0") + Math.random().toString(16).slice(2, 8);
  return { id, title: "New conversation", messages: [] };
}

function keep() {
  const first = conversation.messages.find(message => message.role === "user");
  conversation.title = first ? first.content.slice(0, 60) : "New conversation";
  try {
    localStorage.setItem(conversation.id, JSON.stringify(conversation));
  } catch { problem("this browser has no room left: delete a conversation"); }
  list();
}

function list() {
  const known = keys().map(key => read(key)).filter(Boolean);
  if (!known.some(each => each.id === conversation.id)) known.unshift(conversation);
  $("conversations").replaceChildren(...known.map(each => {
    const item = document.createElement("li");
    const choose = button(each.title, () => open(each));
    if (each.id === conversation.id) choose.setAttribute("aria-current", "true");
    item.append(choose);
    return item;
  }));
}

function open(next) {
  writing?.abort();
  conversation = next;
  problem("");
  show();
  list();
  $("text").focus();
}

function remove() {
  writing?.abort();
  localStorage.removeItem(conversation.id);
  const [key] = keys();
  open((key && read(key)) || fresh());
}

function transcript() {
  const text = [`# ${conversation.title}`, ...conversation.messages.map(
    message => `## ${author(message)}\n\n${message.content}`)].join("\n\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "text/markdown" }));
  link.download = "transcript.md";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---- what is seen

function button(text, action, label) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

const problem = text => { $("problem").textContent = text; };

const author = message => message.role === "user" ? "You" : message.model || model;

function article(message, place) {
  const box = document.createElement("article"), name = document.createElement("h2");
  const text = document.createElement("div"), foot = document.createElement("footer");
  box.className = message.role;
  name.textContent = author(message);
  text.className = "text";
  text.textContent = message.content;
  const note = document.createElement("span");
  note.textContent = message.note || "";
  const last = place === conversation.messages.length - 1;
  if (message.role === "user") foot.append(button("Edit", () => edit(box, place), `Edit message ${place + 1}`));
  else if (last) foot.append(button("Regenerate", () => again(place), "Regenerate this answer"));
  for (const each of foot.children) each.disabled = Boolean(writing);   // its end draws all anew
  foot.append(note);
  box.append(name, text, foot);
  return box;
}

function show() {
  $("log").replaceChildren(...conversation.messages.map(article));
  $("log").scrollTop = $("log").scrollHeight;
  $("send").disabled = Boolean(writing);
  $("stop").disabled = !writing;
  $("log").setAttribute("aria-busy", String(Boolean(writing)));
}

function edit(box, place) {
  const area = document.createElement("textarea"), row = document.createElement("div");
  area.value = conversation.messages[place].content;
  area.setAttribute("aria-label", `New text of message ${place + 1}`);
  row.className = "row";
  const send = () => {
    if (!area.value.trim()) return;
    cut(place);
    say(area.value);
  };
  row.append(button("Send again", send), button("Cancel", () => show()));
  area.addEventListener("keydown", event => onEnter(event, send));
  box.replaceChildren(area, row);
  area.focus();
}

// ---- writing

function cut(place) {
  writing?.abort();
  conversation.messages.length = place;
}

function again(place) {
  cut(place);
  answer();
}

function say(text) {
  conversation.messages.push({ role: "user", content: text });
  keep();
  answer();
}

async function answer() {
  const mine = new AbortController(), asked = conversation, begun = performance.now();
  const messages = asked.messages.map(({ role, content }) => ({ role, content }));
  const message = { role: "assistant", content: "", model };
  let usage = null, reason = null;
  asked.messages.push(message);
  writing = mine;
  problem("");
  $("status").textContent = "writing…";
  show();
  try {
    const response = await ask("v1/chat/completions", { method: "POST", signal: mine.signal,
      body: JSON.stringify({ model, messages, stream: true, stream_options: { include_usage: true },
        temperature: Number($("temperature").value), top_p: Number($("top-p").value),
        max_tokens: Math.max(1, Math.round(Number($("max-tokens").value)) || 1) }) });
    for await (const event of events(response)) {
      usage = event.usage || usage;
      for (const choice of event.choices) {
        message.content += choice.delta.content || "";
        reason = choice.finish_reason || reason;
      }
      if (asked === conversation && writing === mine) {
        const log = $("log"), below = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
        log.lastElementChild.querySelector(".text").textContent = message.content;
        if (below) log.scrollTop = log.scrollHeight;
      }
    }
    message.note = counts(usage, reason, (performance.now() - begun) / 1000);
  } catch (error) {
    if (mine.signal.aborted) message.note = "stopped";
    else {
      if (!message.content) asked.messages.pop();
      problem(error.message);
    }
  }
  if (writing === mine) writing = null;
  if (asked !== conversation) {          // another is open: only keep what was written
    if (!localStorage.getItem(asked.id)) return;   // unless it was deleted meanwhile
    try { localStorage.setItem(asked.id, JSON.stringify(asked)); } catch { /* no room: said there */ }
    return;
  }
  if (asked.messages.includes(message) || !writing) keep();
  if (!writing) { $("status").textContent = $("problem").textContent ? "" : "done"; show(); }
}

function counts(usage, reason, seconds) {
  if (!usage) return "";
  const speed = (usage.completion_tokens / Math.max(seconds, 0.001)).toFixed(0);
  return `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written, ${speed} a second`
    + (reason === "length" ? "; cut at the limit of new tokens" : "");
}

// ---- keys and settings

function onEnter(event, action) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  action();
}

function send() {
  const text = $("text").value;
  if (!text.trim() || writing) return;
  $("text").value = "";
  say(text);
}

function settings() {
  const kept = {};
  for (const id of FIELDS) {
    kept[id] = $(id).value;
    const shown = $(`${id}-value`);
    if (shown) shown.textContent = $(id).value;
  }
  return kept;
}

function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  const dark = name ? name === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").setAttribute("aria-pressed", String(dark));
}

async function meet() {
  try {
    models = (await (await ask("v1/models")).json()).data;
    $("choice").replaceChildren(...models.map(({ id }) => new Option(id, id)));
    $("choice-row").hidden = models.length === 1;
    const kept = read(SETTINGS, {}).choice;
    if (models.some(({ id }) => id === kept)) $("choice").value = kept;
    choose();
    problem("");
  } catch (error) { problem(error.message); }
}

function choose() {
  const room = models.find(({ id }) => id === $("choice").value).max_model_len;
  const most = $("max-tokens");
  model = $("choice").value;
  $("model").textContent = model;
  document.title = `Chat with ${model}`;
  most.max = room;
  most.value = Math.min(Number(most.value) || 1, Math.max(1, Math.floor(room / 2)));
  show();
}

for (const [id, value] of Object.entries(read(SETTINGS, {}))) if ($(id)) $(id).value = value;
settings();
theme(read(THEME, null));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(read(THEME, null)));
const [newest] = keys();
conversation = (newest && read(newest)) || fresh();
$("more").open = matchMedia("(min-width: 44rem)").matches;
for (const id of FIELDS) {
  $(id).addEventListener("input", () => localStorage.setItem(SETTINGS, JSON.stringify(settings())));
}
$("choice").addEventListener("change", choose);
$("theme").addEventListener("click", () => {
  const next = $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  localStorage.setItem(THEME, JSON.stringify(next));
  theme(next);
});
$("key").addEventListener("change", () => {
  sessionStorage.setItem("scratchbook.key", $("key").value);
  meet();
});
$("new").addEventListener("click", () => open(fresh()));
$("delete").addEventListener("click", remove);
$("export").addEventListener("click", transcript);
$("stop").addEventListener("click", () => writing?.abort());
$("composer").addEventListener("submit", event => { event.preventDefault(); send(); });
$("text").addEventListener("keydown", event => onEnter(event, send));
document.addEventListener("keydown", event => {
  if (event.key === "Escape") writing?.abort();
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); open(fresh()); }
});
show();
list();
meet();
