// The page: conversations, the stream of an answer, settings. The map is in map.js.
import { render } from "/markdown.js";
import { relayout, theme as mapTheme, unwatch, watch } from "/map.js";

const $ = (id) => document.getElementById(id);
const app = $("app"), log = $("log"), scroll = $("scroll"), prompt = $("prompt");

// --- storage ---------------------------------------------------------------------------------------

const read = (key, otherwise) => { try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; } };
const write = (key, value) => { try { localStorage.setItem(key, JSON.stringify(value)); } catch { say("The browser's storage is full: this conversation is not kept."); } };
const settings = read("flash-moe.settings", {});
let conversations = read("flash-moe.conversations", []);
if (!Array.isArray(conversations)) conversations = [];
let current = null, running = null, props = null;

const keep = () => write("flash-moe.conversations", conversations.filter((c) => c.messages.length).slice(0, 200));
const say = (text) => { $("say").textContent = text; };
const icon = (d) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", d);
  svg.append(path);
  return svg;
};
const ICONS = { copy: "M9 9h10v11H9zM5 15V4h10", redo: "M4 12a8 8 0 0 1 14-5.3L20 9M20 4v5h-5M20 12a8 8 0 0 1-14 5.3L4 15M4 20v-5h5", edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4", bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13", done: "M5 12.5l4.5 4.5L19 7.5" };
const button = (label, d, action, text) => {
  const b = document.createElement("button");
  b.type = "button";
  b.title = label;
  b.setAttribute("aria-label", label);
  if (d) b.append(icon(d));
  if (text) b.append(text);
  b.addEventListener("click", action);
  return b;
};

// --- talking to the server --------------------------------------------------------------------------

const headers = () => settings.key ? { Authorization: `Bearer ${settings.key}` } : {};

async function failure(response) {
  let text = `${response.status} ${response.statusText}`;
  try { text = (await response.json()).error.message; } catch { /* not JSON */ }
  const error = new Error(text);
  error.status = response.status;
  return error;
}

// Server-sent events by fetch, since EventSource can send no key.
export async function stream(url, options, onData) {
  const response = await fetch(url, { ...options, headers: { ...options.headers, ...headers() } });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events)
      for (const line of event.split("\n"))
        if (line.startsWith("data: ") && line !== "data: [DONE]") onData(line.slice(6));
  }
}

function banner(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text ?? "";
}

const giga = (n) => n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${(n / 1e6).toFixed(0)} MB`;

async function greet() {
  try {
    const response = await fetch("/props", { headers: headers() });
    if (!response.ok) throw await failure(response);
    props = await response.json();
  } catch (error) {
    if (error.status === 401) { banner("This server asks for an API key: enter it in the settings."); openSettings(); }
    else banner("The server does not answer. Trying again…");
    setTimeout(greet, 3000);
    return;
  }
  banner(null);
  const m = props.model;
  $("model").textContent = m.name;
  document.title = m.name;
  $("facts").textContent = `${m.layers} layers, ${m.experts} experts each, ${m.top_k} a token; ${giga(m.experts_bytes)} of experts`;
  $("hello-text").textContent = `${m.name} runs here, on your machine. “Experts” shows which of its ${(m.moe_layers * m.experts).toLocaleString("en")} experts each word calls for.`;
  prompt.placeholder = `Message ${m.name}`;
  const d = props.default_generation_settings;
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repeat_penalty"]) $(`s-${name}`).placeholder = String(Math.round(d[name] * 1000) / 1000);
}

// --- the list of conversations ---------------------------------------------------------------------------

function drawList() {
  $("list").replaceChildren(...conversations.map((c) => {
    const li = document.createElement("li");
    li.classList.toggle("current", c === current);
    const open = button(c.title || "New conversation", null, () => { show(c); closeSide(); }, c.title || "New conversation");
    open.className = "open";
    open.removeAttribute("aria-label");
    if (c === current) open.setAttribute("aria-current", "true");
    const remove = button(`Delete “${c.title || "New conversation"}”`, ICONS.bin, () => discard(c));
    remove.className = "icon remove";
    li.append(open, remove);
    return li;
  }));
}

function discard(c) {
  if (c === current && running) stop();
  const at = conversations.indexOf(c);
  conversations.splice(at, 1);
  keep();
  if (c === current) show(conversations[Math.min(at, conversations.length - 1)] ?? fresh());
  else drawList();
  say("Conversation deleted");
}

const fresh = () => {
  const empty = conversations.find((c) => !c.messages.length);
  if (empty) return empty;
  const c = { id: crypto.randomUUID?.() ?? String(Math.random()), title: "", messages: [] };
  conversations.unshift(c);
  return c;
};

function show(c) {
  if (c !== current && running) stop();
  current = c;
  drawList();
  drawLog();
  toEnd(true);
}

// --- the conversation ----------------------------------------------------------------------------------------

const IDEAS = ["Tell me a story about a fox and a crow.", "What does the command grep do?", "Write a C function that reverses a string.", "Who are you?"];
$("ideas").append(...IDEAS.map((text) => button(text, null, () => { prompt.value = text; submit(); }, text)));

function drawLog() {
  $("hello").hidden = current.messages.length > 0;
  log.hidden = !current.messages.length;
  log.replaceChildren(...current.messages.map(turn));
}

function turn(message, index) {
  const li = document.createElement("li");
  li.className = `turn ${message.role}${message.error ? " error" : ""}`;
  const who = document.createElement("span");
  who.className = "hidden";
  who.textContent = message.role === "user" ? "You:" : "The model:";
  const body = document.createElement("div");
  body.className = "body";
  const tools = document.createElement("div");
  tools.className = "tools";
  li.append(who, body, tools);
  li.view = { message, body, tools };
  fill(li.view, index);
  return li;
}

function fill({ message, body, tools }, index) {
  const live = running?.message === message;
  if (message.role === "user") body.textContent = message.content;
  else {
    render(message.content || "", body);
    if (message.reasoning) body.prepend(thinking(message, live && !message.content, body));
    if (live && !message.content && !message.reasoning) body.append(waiting());
    if (message.error) {
      const p = document.createElement("p");
      p.textContent = message.error;
      body.append(p);
    }
  }
  tools.replaceChildren();
  if (live) return;
  tools.append(button("Copy", ICONS.copy, (e) => copy(message.content, e.currentTarget)));
  if (message.role === "user") tools.append(button("Edit and send again", ICONS.edit, () => edit(current.messages.indexOf(message))));
  else tools.append(button("Answer again", ICONS.redo, () => again(current.messages.indexOf(message))));
  if (message.note) {
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = message.note;
    tools.append(note);
  }
}

const opened = new WeakMap();
function thinking(message, live) {
  const details = document.createElement("details");
  details.className = "thinking";
  details.open = opened.get(message) ?? live;
  details.addEventListener("click", () => opened.set(message, !details.open));
  const summary = document.createElement("summary");
  summary.textContent = live ? "Thinking…" : "Thoughts";
  const text = document.createElement("div");
  text.textContent = message.reasoning;
  details.append(summary, text);
  return details;
}

function waiting() {
  const p = document.createElement("p");
  p.className = "wait";
  p.append(...[1, 2, 3].map(() => document.createElement("i")));
  const text = document.createElement("span");
  text.textContent = running.state ?? "";
  p.append(text);
  return p;
}

async function copy(text, from) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied");
  const before = [...from.childNodes];
  if (from.querySelector("svg")) from.replaceChildren(icon(ICONS.done)); else from.replaceChildren("Copied");
  setTimeout(() => from.replaceChildren(...before), 1200);
}
log.addEventListener("click", (event) => {
  const b = event.target.closest("button[data-copy]");
  if (b) copy(b.dataset.copy, b);
});

// --- asking -------------------------------------------------------------------------------------------------

function body(messages) {
  const q = { messages: messages.map(({ role, content }) => ({ role, content })), stream: true, stream_options: { include_usage: true } };
  if (settings.system) q.messages.unshift({ role: "system", content: settings.system });
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"])
    if (settings[name] !== undefined && settings[name] !== "") q[name] = Number(settings[name]);
  return JSON.stringify(q);
}

async function answer() {
  const conversation = current, message = { role: "assistant", content: "" };
  const asked = conversation.messages.filter((m) => !m.error || m.content);
  conversation.messages.push(message);
  const controller = new AbortController();
  const mine = running = { controller, message, state: "" };
  drawLog();
  toEnd(true);
  busy();
  const slow = setTimeout(() => { mine.state = "reading the prompt"; refresh(message); }, 1500);
  let usage = null, queued = false;
  const draw = () => { queued = false; if (current === conversation) { refresh(message); toEnd(false); } };
  try {
    await stream("/v1/chat/completions", { method: "POST", body: body(asked), signal: controller.signal, headers: { "Content-Type": "application/json" } }, (data) => {
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices?.[0]?.delta ?? {};
      message.content += delta.content ?? "";
      if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
      if (event.choices?.[0]?.finish_reason === "length") message.cut = true;
      if (event.usage) usage = event;
      if (!queued) { queued = true; requestAnimationFrame(draw); }
    });
  } catch (error) {
    if (!controller.signal.aborted) message.error = error.status ? error.message : `The answer broke off: ${error.message}`;
    else message.note = "stopped";
  }
  clearTimeout(slow);
  if (usage) message.note = describe(usage, message);
  if (running === mine) running = null;
  busy();
  keep();
  if (current === conversation) { refresh(message); toEnd(false); }
  say(message.error ? message.error : "The answer is complete");
}

function describe({ usage, timings: t, x_moe: x }, message) {
  const parts = [`${usage.completion_tokens} tokens`];
  if (t.predicted_per_second) parts.push(`${t.predicted_per_second.toFixed(1)} tok/s`);
  parts.push(`${(x.hit_rate * 100).toFixed(1)} % found in memory`);
  if (usage.prompt_tokens_details?.cached_tokens) parts.push(`${usage.prompt_tokens_details.cached_tokens} of ${usage.prompt_tokens} prompt tokens reused`);
  if (message.cut) parts.push("cut at the limit");
  return parts.join(" · ");
}

function refresh(message) {
  const li = [...log.children].find((e) => e.view.message === message);
  if (li) { li.className = `turn ${message.role}${message.error ? " error" : ""}`; fill(li.view); }
}

function busy() {
  const on = Boolean(running);
  log.setAttribute("aria-busy", String(on));
  const b = $("send");
  b.classList.toggle("stop", on);
  b.setAttribute("aria-label", on ? "Stop" : "Send");
  b.replaceChildren(icon(on ? "M7 7h10v10H7z" : "M12 19V5M5.5 11.5 12 5l6.5 6.5"));
  b.disabled = !on && !prompt.value.trim();
}

function stop() { running?.controller.abort(); }

function submit() {
  const text = prompt.value.trim();
  if (!text || running) return;
  prompt.value = "";
  grow();
  if (!current.title) current.title = text.split("\n")[0].slice(0, 60);
  conversations = [current, ...conversations.filter((c) => c !== current)];
  current.messages.push({ role: "user", content: text });
  keep();
  drawList();
  answer();
}

function again(index) {
  if (running) return;
  current.messages.length = index;
  answer();
}

function edit(index) {
  if (running) stop();
  prompt.value = current.messages[index].content;
  current.messages.length = index;
  keep();
  drawLog();
  grow();
  busy();
  prompt.focus();
}

// --- scrolling ------------------------------------------------------------------------------------------------

let follow = true;
scroll.addEventListener("scroll", () => {
  follow = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  $("down").hidden = follow;
}, { passive: true });
function toEnd(force) {
  if (force) follow = true;
  if (follow) scroll.scrollTop = scroll.scrollHeight;
  else $("down").hidden = false;
}
$("down").addEventListener("click", () => toEnd(true));

// --- the composer ------------------------------------------------------------------------------------------------

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}
prompt.addEventListener("input", () => { grow(); busy(); });
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  if (event.key === "ArrowUp" && !prompt.value && !running) {
    const last = current.messages.map((m) => m.role).lastIndexOf("user");
    if (last >= 0) { event.preventDefault(); edit(last); }
  }
});
$("composer").addEventListener("submit", (event) => { event.preventDefault(); running ? stop() : submit(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("settings").open) { if (running) stop(); else if (app.classList.contains("with-side")) closeSide(); }
  if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); prompt.focus(); }
});

// --- panels, theme, settings -----------------------------------------------------------------------------------

const narrow = matchMedia("(max-width: 980px)");
function closeSide() { app.classList.remove("with-side"); }
$("side-open").addEventListener("click", () => { app.classList.add("with-side"); $("new").focus(); });
$("side-close").addEventListener("click", () => { closeSide(); $("side-open").focus(); });
app.addEventListener("click", (event) => { if (event.target === app) closeSide(); });
$("new").addEventListener("click", () => { show(fresh()); closeSide(); prompt.focus(); });

function showMap(on) {
  app.classList.toggle("with-map", on);
  $("map-toggle").setAttribute("aria-pressed", String(on));
  if (!narrow.matches) { settings.map = on; write("flash-moe.settings", settings); }
  if (on) { watch(); relayout(); } else unwatch();
}
$("map-toggle").addEventListener("click", () => showMap(!app.classList.contains("with-map")));
$("map-close").addEventListener("click", () => { showMap(false); $("map-toggle").focus(); });
$("map-wide").addEventListener("click", () => {
  const on = app.classList.toggle("wide-map");
  $("map-wide").setAttribute("aria-pressed", String(on));
  relayout();
});

const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme() {
  document.documentElement.dataset.theme = settings.theme ?? (dark.matches ? "dark" : "light");
  mapTheme();
}
dark.addEventListener("change", setTheme);
$("theme").addEventListener("click", () => {
  settings.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  write("flash-moe.settings", settings);
  setTheme();
});

const FIELDS = ["system", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed", "key"];
function openSettings() {
  if ($("settings").open) return;
  for (const name of FIELDS) $(`s-${name}`).value = settings[name] ?? "";
  $("settings").showModal();
}
$("settings-open").addEventListener("click", () => { closeSide(); openSettings(); });
$("settings").addEventListener("close", () => {
  const before = settings.key;
  for (const name of FIELDS) settings[name] = $(`s-${name}`).value;
  write("flash-moe.settings", settings);
  if (settings.key !== before) { greet(); if (app.classList.contains("with-map")) { unwatch(); watch(); } }
});
$("settings").addEventListener("click", (event) => { if (event.target === $("settings")) $("settings").close(); });
$("export").addEventListener("click", () => {
  const a = document.createElement("a");
  a.href = URL.createObjectURL(new Blob([JSON.stringify(conversations, null, 2)], { type: "application/json" }));
  a.download = "flash-moe-conversations.json";
  a.click();
  URL.revokeObjectURL(a.href);
});
$("forget").addEventListener("click", () => {
  if (!confirm("Delete all conversations from this browser?")) return;
  stop();
  conversations = [];
  keep();
  show(fresh());
  $("settings").close();
});

// --- begin -----------------------------------------------------------------------------------------------------

setTheme();
greet();
show(conversations[0]?.messages.length ? conversations[0] : fresh());
showMap(narrow.matches ? false : settings.map ?? true);
busy();
if (!narrow.matches) prompt.focus();
