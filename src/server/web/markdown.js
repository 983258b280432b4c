// Markdown to elements. The model's text only ever becomes text nodes: nothing here parses HTML, and
// links may only lead to http, https or mailto.

const el = (name, className, ...children) => {
  const e = document.createElement(name);
  if (className) e.className = className;
  e.append(...children);
  return e;
};

// --- inside a line ------------------------------------------------------------------------------

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([\s\S]+?)\*\*(?!\*)|__([\s\S]+?)__(?!_)|~~([\s\S]+?)~~|\*([^\s*][^*]*?)\*(?!\*)|(?<![\w_])_([^\s_][^_]*?)_(?![\w_])|\[([^\]\n]{1,400})\]\(([^)\s]{1,2000})\)|(https?:\/\/[^\s<>"')\]]{1,2000}[^\s<>"')\].,;:!?])|\\([\\`*_{}[\]()#+\-.!~|>])/;

const safe = (href) => /^(https?:\/\/|mailto:)/i.test(href) ? href : null;

function link(href, ...children) {
  const target = safe(href);
  if (!target) return el("span", "", ...children, ` (${href})`);
  const a = el("a", "", ...children);
  a.href = target;
  a.rel = "noopener noreferrer nofollow";
  a.target = "_blank";
  return a;
}

export function inline(text, depth = 0) {
  const out = [];
  while (text) {
    const m = depth < 8 ? INLINE.exec(text) : null;
    if (!m) { out.push(text); break; }
    if (m.index) out.push(text.slice(0, m.index));
    const [all, , code, strong, strong2, strike, em, em2, label, href, bare, escaped] = m;
    if (code !== undefined) out.push(el("code", "", code.trim() || code));
    else if (strong ?? strong2) out.push(el("strong", "", ...inline(strong ?? strong2, depth + 1)));
    else if (strike) out.push(el("del", "", ...inline(strike, depth + 1)));
    else if (em ?? em2) out.push(el("em", "", ...inline(em ?? em2, depth + 1)));
    else if (label) out.push(link(href, ...inline(label, depth + 1)));
    else if (bare) out.push(link(bare, bare));
    else if (escaped) out.push(escaped);
    text = text.slice(m.index + all.length);
  }
  return out;
}

const lines = (text) => {
  const out = [];
  text.split("\n").forEach((line, i) => {
    if (i) out.push(/( {2}|\\)$/.test(line) ? el("br") : "\n");
    out.push(...inline(line));
  });
  return out;
};

// --- code ---------------------------------------------------------------------------------------

const KEYWORDS = new Set(("and as async await bool boolean break case catch char class const continue def default delete do double elif else enum except export extern false False finally float fn for from func function go if impl import in int interface is lambda let long match module mut namespace new nil None not null nullptr or package pass pub public private protected raise return self short signed sizeof static std string struct super switch template this throw trait true True try type typedef typeof union unsigned use using var void volatile while with yield").split(" "));
const TOKENS = /("""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|(\/\*[\s\S]*?\*\/|\/\/[^\n]*|#(?![0-9a-fA-F]{3,8}\b)[^\n]*)|\b(0x[\da-fA-F]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b|\b([A-Za-z_]\w*)\b/g;

function coloured(text, language) {
  if (text.length > 20000 || /^(text|txt|plain|output|console)$/.test(language)) return [text];
  const out = [];
  let at = 0;
  for (const m of text.matchAll(TOKENS)) {
    const kind = m[1] ? "t-text" : m[2] ? "t-note" : m[3] ? "t-number" : KEYWORDS.has(m[4]) ? "t-key" : null;
    if (!kind) continue;
    if (m.index > at) out.push(text.slice(at, m.index));
    out.push(el("span", kind, m[0]));
    at = m.index + m[0].length;
  }
  out.push(text.slice(at));
  return out;
}

function codeBlock(text, language) {
  const copy = el("button", "", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", "Copy this code");
  copy.dataset.copy = text;
  const pre = el("pre", "", el("code", "", ...coloured(text, language.toLowerCase())));
  pre.tabIndex = 0;
  return el("div", "block", el("header", "", el("span", "", language || "code"), copy), pre);
}

// --- blocks -------------------------------------------------------------------------------------

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const cells = (row) => row.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, "|"));

function list(rows, start, depth) {
  const first = ITEM.exec(rows[start]);
  const ordered = /\d/.test(first[2]);
  const e = el(ordered ? "ol" : "ul");
  if (ordered && parseInt(first[2]) !== 1) e.start = parseInt(first[2]);
  const indent = first[1].length;
  let i = start;
  while (i < rows.length) {
    const m = ITEM.exec(rows[i]);
    if (!m || m[1].length < indent || m[1].length > indent + 1 || /\d/.test(m[2]) !== ordered) break;
    const inner = [m[3]];
    const deeper = indent + m[2].length + 1;
    for (i++; i < rows.length; i++) {
      const next = ITEM.exec(rows[i]);
      if (next && next[1].length <= indent + 1) break;
      if (!rows[i].trim()) {
        if (i + 1 < rows.length && /^\s/.test(rows[i + 1]) && rows[i + 1].trim()) { inner.push(""); continue; }
        break;
      }
      if (!next && !/^\s/.test(rows[i]) && (FENCE.test(rows[i]) || /^(#|>)/.test(rows[i]))) break;
      inner.push(rows[i].replace(new RegExp(`^\\s{0,${deeper}}`), ""));
    }
    const item = el("li");
    blocks(inner, item, depth + 1, true);
    e.append(item);
    while (i < rows.length && !rows[i].trim() && ITEM.test(rows[i + 1] ?? "")) i++;
  }
  return [e, i];
}

function table(rows, start) {
  const head = cells(rows[start]);
  const t = el("table");
  t.append(el("thead", "", el("tr", "", ...head.map((c) => el("th", "", ...inline(c))))));
  const body = el("tbody");
  let i = start + 2;
  for (; i < rows.length && rows[i].includes("|") && rows[i].trim(); i++)
    body.append(el("tr", "", ...cells(rows[i]).slice(0, head.length).map((c) => el("td", "", ...inline(c)))));
  t.append(body);
  return [el("div", "table", t), i];
}

function blocks(rows, into, depth, tight) {
  let i = 0;
  while (i < rows.length) {
    const row = rows[i];
    let m;
    if (!row.trim()) {
      i++;
    } else if ((m = FENCE.exec(row))) {
      const body = [];
      for (i++; i < rows.length && !rows[i].trim().startsWith(m[1]); i++) body.push(rows[i]);
      i++;
      into.append(codeBlock(body.join("\n"), m[2]));
    } else if ((m = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/.exec(row))) {
      into.append(el(`h${Math.min(4, m[1].length)}`, "", ...inline(m[2])));
      i++;
    } else if (RULE.test(row)) {
      into.append(el("hr"));
      i++;
    } else if (/^ {0,3}>/.test(row) && depth < 8) {
      const inner = [];
      for (; i < rows.length && /^ {0,3}>/.test(rows[i]); i++) inner.push(rows[i].replace(/^ {0,3}> ?/, ""));
      const quote = el("blockquote");
      blocks(inner, quote, depth + 1, false);
      into.append(quote);
    } else if (ITEM.test(row) && depth < 8) {
      const [e, next] = list(rows, i, depth);
      into.append(e);
      i = next;
    } else if (row.includes("|") && /^[\s|:-]*-[\s|:-]*$/.test(rows[i + 1] ?? "") && (rows[i + 1] ?? "").includes("|")) {
      const [e, next] = table(rows, i);
      into.append(e);
      i = next;
    } else {
      const text = [row];
      for (i++; i < rows.length && rows[i].trim() && !FENCE.test(rows[i]) && !/^ {0,3}(#{1,6}\s|>)/.test(rows[i]) && !ITEM.test(rows[i]) && !RULE.test(rows[i]); i++) text.push(rows[i]);
      const content = lines(text.join("\n"));
      if (tight && i >= rows.length && !into.childNodes.length) into.append(...content);
      else if (tight && !into.childNodes.length) into.append(el("span", "", ...content));
      else into.append(el("p", "", ...content));
    }
  }
}

export function render(text, into) {
  into.replaceChildren();
  blocks(text.replace(/\r\n?/g, "\n").split("\n"), into, 0, false);
}
