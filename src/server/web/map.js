// The live picture of the experts: one cell an expert, one band a layer.
import { stream } from "/app.js";

const RESIDENT = 1, PINNED = 2, COMING = 4, HIT = 8, READ = 16;
const SECONDS = 60;
const $ = (id) => document.getElementById(id);

const canvas = $("map");
let frame = null, previous = null, controller = null;
let glow = null; // [cells] how bright, and which colour: > 0 used, < 0 read
let colours = {}, geometry = null, hovered = -1, painting = false, lastPaint = 0;
const series = { speed: [], hit: [], disk: [], memory: [] };
const totals = { said: 0 };

export function theme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["away", "resident", "hit", "read", "coming", "pinned"]) colours[name] = rgb(style.getPropertyValue(`--c-${name}`).trim());
  colours.accent = style.getPropertyValue("--c-hit").trim();
  colours.warm = style.getPropertyValue("--c-read").trim();
  paint();
  charts();
}

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const mix = (a, b, t) => `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * t)).join(" ")})`;

// --- numbers --------------------------------------------------------------------------------------

const size = (n) => n >= 1e9 ? [(n / 1e9).toFixed(n >= 1e10 ? 0 : 1), "GB"] : n >= 1e6 ? [(n / 1e6).toFixed(n >= 1e7 ? 0 : 1), "MB"] : [(n / 1e3).toFixed(0), "kB"];

function put(id, value, unit) {
  const small = document.createElement("small");
  small.textContent = unit;
  $(id).replaceChildren(value, ...(unit ? [small] : []));
}

function note(name, value, ms) {
  const s = series[name];
  s.push([ms, value]);
  while (s.length && s[0][0] < ms - SECONDS * 1000) s.shift();
}

// Rates over the last second, so that a figure can be read.
const history = [];
function measure(f) {
  history.push(f);
  while (history.length > 2 && history[0].ms < f.ms - 1100) history.shift();
  const a = history[0], dt = (f.ms - a.ms) / 1000;
  if (dt < 0.15) return;
  const tokens = (f.tokens - a.tokens) / dt, hits = f.hits - a.hits, misses = f.misses - a.misses;
  const disk = (f.bytes_read - a.bytes_read) / dt;
  const memory = ((hits + misses) * f.expert_bytes + (f.steps - a.steps) * f.step_bytes) / dt;
  note("speed", tokens, f.ms);
  note("disk", disk, f.ms);
  note("memory", memory, f.ms);
  if (hits + misses) note("hit", hits / (hits + misses), f.ms);
  const asked = f.hits + f.misses;
  put("n-speed", tokens >= 100 ? tokens.toFixed(0) : tokens.toFixed(1), f.active > 1 ? `${f.active} at once` : "");
  const rate = hits + misses ? hits / (hits + misses) : asked ? f.hits / asked : null;
  put("n-hit", rate === null ? "–" : (rate * 100).toFixed(rate > 0.9995 ? 0 : 1), rate === null ? "" : "%");
  put("n-disk", ...withUnit(size(disk)));
  put("n-memory", ...withUnit(size(memory)));
}
const withUnit = ([v, u]) => [v, `${u}/s`];

function charts() {
  const draw = (id, s, colour, top) => {
    const c = $(id), ratio = devicePixelRatio || 1, w = c.clientWidth, h = c.clientHeight;
    if (!w) return;
    c.width = w * ratio; c.height = h * ratio;
    const g = c.getContext("2d");
    g.scale(ratio, ratio);
    if (s.length < 2) return;
    const now = s[s.length - 1][0], most = top ?? (Math.max(...s.map((p) => p[1])) || 1);
    const x = (ms) => w - (now - ms) / (SECONDS * 1000) * w, y = (v) => h - 2 - v / most * (h - 6);
    g.beginPath();
    s.forEach(([ms, v], i) => g[i ? "lineTo" : "moveTo"](x(ms), y(v)));
    g.strokeStyle = colour; g.lineWidth = 1.5; g.lineJoin = "round"; g.stroke();
    g.lineTo(w, h); g.lineTo(x(s[0][0]), h); g.closePath();
    g.globalAlpha = 0.13; g.fillStyle = colour; g.fill();
  };
  draw("c-speed", series.speed, colours.accent);
  draw("c-hit", series.hit, colours.accent, 1);
  draw("c-disk", series.disk, colours.warm);
  draw("c-memory", series.memory, colours.accent);
}

// --- the map --------------------------------------------------------------------------------------

// Cells as large as fit: a layer takes one band of one or more rows.
function layout(f) {
  const width = $("map-box").clientWidth - 26, wide = $("app").classList.contains("wide-map");
  const height = wide || innerWidth <= 980 ? Math.max(300, innerHeight - 330) : Math.max(240, innerHeight - 430);
  // Bands of equal rows look calmest: take a ragged one only when it gains a lot.
  const fit = (even) => {
    for (let cell = 26; cell >= 2; cell -= 0.25) {
      const rows = Math.ceil(f.experts / Math.floor(width / cell)), gap = cell >= 6 ? cell * 0.5 : 2;
      if (even && f.experts % rows) continue;
      if (f.layers * (rows * cell + gap) <= height || cell === 2) return { cell, rows, gap, columns: Math.ceil(f.experts / rows) };
    }
    return null;
  };
  const ragged = fit(false), even = fit(true);
  const best = even && even.cell > 0.62 * ragged.cell ? even : ragged;
  const cell = Math.min(width / best.columns, best.cell * 1.6);
  geometry = { ...best, cell, width, height: f.layers * (best.rows * cell + best.gap) - best.gap, band: best.rows * cell + best.gap, left: (width - best.columns * cell) / 2 };
  const ratio = devicePixelRatio || 1;
  canvas.style.height = `${geometry.height}px`;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(geometry.height * ratio);
}

function paint() {
  if (!frame || !frame.experts || !canvas.clientWidth || !colours.away) return;
  if (!geometry) layout(frame);
  const g = canvas.getContext("2d"), { cell, columns, band, left } = geometry, ratio = devicePixelRatio || 1;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, canvas.width, canvas.height);
  const pad = cell >= 5 ? Math.max(1, cell * 0.12) : cell >= 3 ? 0.5 : 0, box = cell - pad, round = cell >= 8 ? cell * 0.2 : 0;
  for (let l = 0, i = 0; l < frame.layers; l++)
    for (let e = 0; e < frame.experts; e++, i++) {
      const state = frame.map.charCodeAt(i) - 48, x = left + (e % columns) * cell, y = l * band + Math.floor(e / columns) * cell;
      const base = state & RESIDENT ? colours.resident : colours.away, bright = glow[i];
      g.fillStyle = state & COMING ? mix(base, colours.coming, 1) : bright ? mix(base, bright > 0 ? colours.hit : colours.read, Math.min(1, Math.abs(bright))) : mix(base, base, 0);
      if (round) { g.beginPath(); g.roundRect(x, y, box, box, round); g.fill(); } else g.fillRect(x, y, box, box);
      if (state & PINNED && cell >= 5) {
        g.strokeStyle = mix(colours.pinned, colours.pinned, 0); g.lineWidth = Math.max(1, cell * 0.12);
        g.strokeRect(x + g.lineWidth / 2, y + g.lineWidth / 2, box - g.lineWidth, box - g.lineWidth);
      }
      if (i === hovered) { g.strokeStyle = getComputedStyle(canvas).color; g.lineWidth = 1.5; g.strokeRect(x - 0.5, y - 0.5, box + 1, box + 1); }
    }
}

// Used and read cells light up and fade in about a second.
function animate(now) {
  const dt = Math.min(0.2, (now - lastPaint) / 1000);
  lastPaint = now;
  let any = false;
  for (let i = 0; i < glow.length; i++)
    if (glow[i]) {
      glow[i] = Math.sign(glow[i]) * Math.max(0, Math.abs(glow[i]) - dt * 1.1);
      any ||= glow[i] !== 0;
    }
  paint();
  painting = any;
  if (any) requestAnimationFrame(animate);
}

function take(f) {
  const changed = !frame || frame.layers !== f.layers || frame.experts !== f.experts;
  previous = frame;
  frame = f;
  if (changed) { glow = new Float32Array(f.layers * f.experts); geometry = null; history.length = 0; }
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (let i = 0; i < glow.length; i++) {
    const state = f.map.charCodeAt(i) - 48;
    if (still) glow[i] = state & READ ? -1 : state & HIT ? 1 : 0;
    else if (state & READ) glow[i] = -1.25;
    else if (state & HIT && glow[i] > -0.4) glow[i] = 1.1;
  }
  measure(f);
  charts();
  $("map-toggle").classList.toggle("live", f.active > 0);
  document.dispatchEvent(new CustomEvent("experts", { detail: f }));
  if (hovered >= 0) say();
  else if (f.ms - totals.said > 1500 || changed) { totals.said = f.ms; say(); }
  if (!painting) { painting = true; lastPaint = performance.now(); requestAnimationFrame(animate); }
}

function say() {
  if (!frame) return;
  const state = (i) => frame.map.charCodeAt(i) - 48;
  if (hovered >= 0) {
    const s = state(hovered), words = [s & RESIDENT ? "in memory" : "on disk"];
    if (s & PINNED) words.push("pinned");
    if (s & COMING) words.push("on its way");
    if (glow[hovered]) words.push(glow[hovered] > 0 ? "just used" : "just read");
    $("map-say").textContent = `Layer ${Math.floor(hovered / frame.experts) + 1}, expert ${hovered % frame.experts}: ${words.join(", ")}`;
    return;
  }
  let resident = 0, pinned = 0;
  for (let i = 0; i < frame.map.length; i++) { resident += state(i) & RESIDENT; pinned += (state(i) & PINNED) >> 1; }
  const all = frame.layers * frame.experts, asked = frame.hits + frame.misses;
  const text = [`${resident} of ${all} experts are in memory (${size(resident * frame.expert_bytes).join(" ")}${pinned ? `, ${pinned} pinned` : ""}).`];
  if (asked) text.push(`${(100 * frame.hits / asked).toFixed(1)} % of ${asked.toLocaleString("en")} were found there since the start; ${size(frame.bytes_read).join(" ")} read.`);
  $("map-say").textContent = text.join(" ");
}

// --- pointing ----------------------------------------------------------------------------------------

canvas.addEventListener("pointermove", (event) => {
  if (!geometry || !frame) return;
  const { cell, columns, band, left, rows } = geometry, box = canvas.getBoundingClientRect();
  const x = event.clientX - box.left - left, y = event.clientY - box.top, layer = Math.floor(y / band);
  const column = Math.floor(x / cell), row = Math.floor((y - layer * band) / cell), expert = row * columns + column;
  hovered = column >= 0 && column < columns && row < rows && expert < frame.experts && layer < frame.layers ? layer * frame.experts + expert : -1;
  say(); paint();
});
canvas.addEventListener("pointerleave", () => { hovered = -1; say(); paint(); });
canvas.addEventListener("blur", () => { hovered = -1; say(); paint(); });
canvas.addEventListener("keydown", (event) => {
  if (!frame || !geometry) return;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: geometry.rows > 1 ? geometry.columns : frame.experts, ArrowUp: geometry.rows > 1 ? -geometry.columns : -frame.experts }[event.key];
  if (!step) return;
  event.preventDefault();
  hovered = Math.max(0, Math.min(frame.map.length - 1, hovered < 0 ? 0 : hovered + step));
  say(); paint();
});
addEventListener("resize", () => { geometry = null; paint(); charts(); });
export function relayout() { geometry = null; paint(); charts(); }

// --- the stream -----------------------------------------------------------------------------------------

export async function watch() {
  if (controller) return;
  const mine = controller = new AbortController();
  while (!mine.signal.aborted) {
    try {
      await stream("/v1/x/experts", { signal: mine.signal }, (data) => take(JSON.parse(data)));
    } catch (error) {
      if (mine.signal.aborted) break;
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

export function unwatch() {
  controller?.abort();
  controller = null;
  $("map-toggle").classList.remove("live");
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) unwatch();
  else if ($("app").classList.contains("with-map")) watch();
});
